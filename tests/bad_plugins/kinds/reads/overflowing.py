"""Has a field whose SQL fails in the database for one person: a number grows too large.

Outcome: it is null where that person is in the answer, and there for the others the moment after.
State: active
Asks: { users(first: 2) { nodes { id overflowingNumber overflowingOther goodOrders goodWord } } }
Fails: nothing
Check: no problems
"""

import sqlalchemy as sa

from scrm.api import Contribution, User, expression, extend, hookimpl

SMALLEST = -(2**63)


def size(user):
    too_large = sa.literal(SMALLEST, sa.BigInteger)
    return sa.func.abs(sa.case((user.c.display_name == "Large", too_large), else_=sa.literal(1, sa.BigInteger)))


@extend(User, scope="users:read")
class More:
    overflowing_number: int | None = expression("A number.", size)
    overflowing_other: int | None = expression("A number.", lambda user: sa.literal(2))


@hookimpl
def contribute():
    return Contribution(name="overflowing", version="1.0", extends=[More])
