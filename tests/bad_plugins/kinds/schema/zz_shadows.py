"""Adds a field that the core has.

Outcome: it is left out, and both owners are named.
State: load_error
Reason: User.displayName is defined by core and by zz_shadows; rename it in zz_shadows
"""

import sqlalchemy as sa

from scrm.api import Contribution, User, expression, extend, hookimpl


@extend(User, scope="users:read")
class More:
    display_name: str | None = expression("Another name.", lambda user: sa.literal("somebody"))


@hookimpl
def contribute():
    return Contribution(name="zz_shadows", version="1.0", extends=[More])
