"""Has a migration that makes a table of its own and gives it a name that is not.

Outcome: it is refused, and the name is said.
State: migration_error
Reason: its migration failed: it touches …users2; …
Upgrade: migration of renames failed: it touches …users2; …
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("renames_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="renames", version="1.0", tables=tables, migrations=Path(__file__).parent / "renames_migrations")


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
