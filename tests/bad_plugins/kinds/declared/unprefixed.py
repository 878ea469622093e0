"""Has a table without its prefix.

Outcome: it is left out, and the table is named.
State: load_error
Reason: table notes of unprefixed must be named unprefixed_…; unprefixed has tables and no migrations; give its Contribution a migrations directory; unprefixed has tables and no hook merge; write one, be it empty; …
"""

import sqlalchemy as sa

from scrm.api import Contribution, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("notes", tables, sa.Column("id", sa.Integer, primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="unprefixed", version="1.0", tables=tables)
