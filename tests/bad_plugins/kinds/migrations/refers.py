"""Has a migration with a foreign key into the core, which its models do not say.

Outcome: it is refused and the table named: a row of the core could not go while the plugin's stays.
State: migration_error
Reason: its migration failed: it touches users, which is core's; …
Upgrade: migration of refers failed: it touches users, which is core's; …
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("refers_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="refers", version="1.0", tables=tables, migrations=Path(__file__).parent / "refers_migrations")


@hookimpl
def merge():
    return 0


@hookimpl
def unmerge():
    return 0


@hookimpl
def erase():
    pass


@hookimpl
def export():
    return {}
