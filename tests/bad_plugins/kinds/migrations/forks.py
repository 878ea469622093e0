"""Has a history with two ends.

Outcome: it is refused, by the check too, and both ends are named.
State: migration_error
Reason: its history ends in 0002 and in 0003; let one of them come after the other
Upgrade: migration of forks failed: its history ends in 0002 and in 0003; let one of them come after the other
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("forks_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="forks", version="1.0", tables=tables, migrations=Path(__file__).parent / "forks_migrations")


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
