"""Has a table that nest and nest_egg both have.

Outcome: both are left out, and each is told of the other.
State: load_error
Reason: table nest_egg_rows is defined by nest and by nest_egg; disable one
With: nest nest_egg
"""

from pathlib import Path

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("nest_egg_rows", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="nest_egg", version="1.0", tables=tables, migrations=Path(__file__).parent)


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
