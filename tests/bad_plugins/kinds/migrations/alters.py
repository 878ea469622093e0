"""Has a migration that adds a column to a core table, and swallows the refusal.

Outcome: it is refused and the table named all the same.
State: migration_error
Reason: its migration failed: it touches users, which is core's; …
Upgrade: migration of alters failed: it touches users, which is core's; …
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("alters_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="alters", version="1.0", tables=tables, migrations=Path(__file__).parent / "alters_migrations")


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
