"""Has a migration that does not make the table that its models say.

Outcome: it starts, and what needs the column fails; scrm plugins check and scrm db check say so.
State: active
Check: migrations and models differ: remove column drifts_rows weather
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("drifts_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="drifts", version="1.0", tables=tables, migrations=Path(__file__).parent / "drifts_migrations")


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
