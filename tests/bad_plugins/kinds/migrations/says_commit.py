"""Has a migration that says commit in SQL, behind a comment.

Outcome: it is refused, and nothing of it stays.
State: migration_error
Reason: its migration failed: it ends the transaction, which is the host's to end; …
Upgrade: migration of says_commit failed: it ends the transaction, …
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("says_commit_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(
        name="says_commit", version="1.0", tables=tables, migrations=Path(__file__).parent / "says_commit_migrations"
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
