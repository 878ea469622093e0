"""Has a migration that makes its table, fills it, and fails.

Outcome: nothing of it stays, and where it failed is the reason; its words are not, because they may hold values.
State: migration_error
Reason: its migration failed: RuntimeError in upgrade (0001_rows.py:10); mend it and run scrm db upgrade
Upgrade: migration of half failed: no luck
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("half_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="half", version="1.0", tables=tables, migrations=Path(__file__).parent / "half_migrations")


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
