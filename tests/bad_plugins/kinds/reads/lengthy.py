"""Has a list of a million rows, made by SQL.

Outcome: no more than the list's cap comes out.
State: active
Asks: { users(first: 1) { nodes { id lengthyList { number } } } }
Fails: nothing
Check: no problems
"""

import sqlalchemy as sa

from scrm.api import Contribution, User, column, extend, hookimpl, many, rows


@rows(None, scope="users:read", public=True)
class Numbered:
    "A number."

    number: int | None = column("The number.")


def million(user):
    n = sa.select(sa.literal(1).label("number")).cte("n", recursive=True)
    return sa.select(n.union_all(sa.select(n.c.number + 1).where(n.c.number < 10**6)).c.number)


@extend(User, scope="users:read")
class More:
    lengthy_list: list[Numbered] | None = many("Numbers.", select=million, order=[sa.column("number")], cap=100)


@hookimpl
def contribute():
    return Contribution(name="lengthy", version="1.0", extends=[More])
