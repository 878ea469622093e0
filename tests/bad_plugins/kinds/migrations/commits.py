"""Has a migration that ends the transaction half-way, to keep what it has done so far.

Outcome: it is refused, and nothing of it stays.
State: migration_error
Reason: its migration failed: it ends the transaction, which is the host's to end; take commit and rollback out; mend it and run scrm db upgrade
Upgrade: migration of commits failed: it ends the transaction, …
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("commits_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="commits", version="1.0", tables=tables, migrations=Path(__file__).parent / "commits_migrations")


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
