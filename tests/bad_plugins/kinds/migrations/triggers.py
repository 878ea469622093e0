"""Has a migration that hangs a trigger on a core table: it would run whenever the core writes.

Outcome: it is refused and the table named.
State: migration_error
Reason: its migration failed: it touches events, which is core's; …
Upgrade: migration of triggers failed: it touches events, which is core's; …
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("triggers_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="triggers", version="1.0", tables=tables, migrations=Path(__file__).parent / "triggers_migrations")


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
