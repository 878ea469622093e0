"""Has a migration that writes a core table.

Outcome: it is refused and the table named, and nothing of it stays.
State: migration_error
Reason: its migration failed: it touches users, which is core's; a migration of meddles makes, changes and refers to tables whose names begin with meddles_; mend it and run scrm db upgrade
Upgrade: migration of meddles failed: it touches users, which is core's; …
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("meddles_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="meddles", version="1.0", tables=tables, migrations=Path(__file__).parent / "meddles_migrations")


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
