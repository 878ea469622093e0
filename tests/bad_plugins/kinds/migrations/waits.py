"""Has a migration that nobody has run.

Outcome: it is left out until scrm db upgrade.
State: migration_required
Reason: 1 migration is pending; run scrm db upgrade
Upgrade: not run
Check: no problems
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("waits_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="waits", version="1.0", tables=tables, migrations=Path(__file__).parent / "waits_migrations")


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
