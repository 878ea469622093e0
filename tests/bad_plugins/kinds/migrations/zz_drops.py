"""Has a migration that drops another plugin's table.

Outcome: it is refused, and the table is named with its owner.
State: migration_error
Reason: its migration failed: it touches good_counts, which is good's; …
Upgrade: migration of zz_drops failed: it touches good_counts, which is good's; …
With: good
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("zz_drops_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="zz_drops", version="1.0", tables=tables, migrations=Path(__file__).parent / "zz_drops_migrations")


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
