"""Has a migration that makes a schema and a type on PostgreSQL, and a view on SQLite, none with the plugin's prefix.

Outcome: it is refused, and they are named: purging the plugin would leave them behind.
State: migration_error
Reason: its migration failed: it …mood…; a migration …
Upgrade: migration of builds failed: it …mood…; a migration …
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("builds_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="builds", version="1.0", tables=tables, migrations=Path(__file__).parent / "builds_migrations")


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
