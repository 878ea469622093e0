"""Has a migration that raises what cannot be put into words: asked for them, it tries to end the process.

Outcome: that is its failure, and the others are upgraded.
State: migration_error
Reason: its migration failed: StifledError in upgrade (0001_rows.py:…); mend it and run scrm db upgrade
Upgrade: migration of stifled failed: its words cannot be read, because that raises SystemExit
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("stifled_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="stifled", version="1.0", tables=tables, migrations=Path(__file__).parent / "stifled_migrations")


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
