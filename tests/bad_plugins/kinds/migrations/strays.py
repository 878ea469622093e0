"""Has a migration that makes a table without the plugin's prefix.

Outcome: it is refused, and the table is named: purging the plugin would leave it behind.
State: migration_error
Reason: its migration failed: it touches notes; a migration of strays makes, changes and refers to tables whose names begin with strays_; …
Upgrade: migration of strays failed: it touches notes; …
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("strays_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="strays", version="1.0", tables=tables, migrations=Path(__file__).parent / "strays_migrations")


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
