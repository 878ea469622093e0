"""Shows a column that its table has not, of rows that are nobody's.

Outcome: it is left out, and both are named.
State: load_error
Reason: type Miscolumn of miscolumns does not say whose its rows are; give @rows owner=… or public=True; field Miscolumn.weight of miscolumns shows the column weight, which users has not; check its name
"""

from scrm.api import Contribution, User, column, extend, hookimpl, one, rows, users


@rows(users, scope="users:read")
class Miscolumn:
    "A row."

    weight: int | None = column("How heavy.")


@extend(User, scope="users:read")
class More:
    miscolumn: Miscolumn | None = one("The same row.", lambda user, other: other.c.id == user.c.id)


@hookimpl
def contribute():
    return Contribution(name="miscolumns", version="1.0", extends=[More])
