"""Has a migration that opens a second connection, whose changes nobody could undo.

Outcome: it is refused, and nothing of it stays.
State: migration_error
Reason: its migration failed: it opens a connection of its own, …
Upgrade: migration of reconnects failed: it opens a connection of its own, …
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("reconnects_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(
        name="reconnects", version="1.0", tables=tables, migrations=Path(__file__).parent / "reconnects_migrations"
    )


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
