"""Adds a field without a scope and one without a description.

Outcome: it is left out, and both fields are named with the way out.
State: load_error
Reason: field User.unsaid of unscoped has no description; say what it is in its first argument, or description=…; field User.unsaid of unscoped has no scope; say scope=… on it, on its class or on @rows
"""

import sqlalchemy as sa

from scrm.api import Contribution, User, expression, extend, hookimpl


@extend(User)
class More:
    unsaid: int | None = expression("", lambda user: sa.literal(1))


@hookimpl
def contribute():
    return Contribution(name="unscoped", version="1.0", extends=[More])
