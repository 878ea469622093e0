"""Has a migration that tries to end the process.

Outcome: that is its own failure, and the others are upgraded.
State: migration_error
Reason: its migration failed: SystemExit in upgrade (0001_rows.py:9); …
Upgrade: migration of leaves failed: 3
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("leaves_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="leaves", version="1.0", tables=tables, migrations=Path(__file__).parent / "leaves_migrations")


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
