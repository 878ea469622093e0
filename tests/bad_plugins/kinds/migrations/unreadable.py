"""Has a migration that is no Python.

Outcome: it is left out, and the others are upgraded and start.
State: migration_error
Reason: its migrations cannot be read: SyntaxError: …
Upgrade: migration of unreadable failed: …
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("unreadable_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(
        name="unreadable", version="1.0", tables=tables, migrations=Path(__file__).parent / "unreadable_migrations"
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
