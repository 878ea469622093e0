"""Has a foreign key into the core.

Outcome: it is left out, and the column is named.
State: load_error
Reason: points_cards.user_id of points is a foreign key to users, which is not points's; keep the id without a foreign key; …
"""

import sqlalchemy as sa

from scrm.api import Contribution, Id, hookimpl, plugin_metadata

tables = plugin_metadata()
sa.Table("points_cards", tables, sa.Column("user_id", Id, sa.ForeignKey("users.id"), primary_key=True))


@hookimpl
def contribute():
    return Contribution(name="points", version="1.0", tables=tables)
