"""Adds a field that another plugin has.

Outcome: the later of the two by name is left out, and both owners are named.
State: load_error
Reason: User.goodOrders is defined by good and by zz_repeats; disable one
With: good
"""

import sqlalchemy as sa

from scrm.api import Contribution, User, expression, extend, hookimpl


@extend(User, scope="users:read")
class More:
    good_orders: int | None = expression("Other orders.", lambda user: sa.literal(1))


@hookimpl
def contribute():
    return Contribution(name="zz_repeats", version="1.0", extends=[More])
