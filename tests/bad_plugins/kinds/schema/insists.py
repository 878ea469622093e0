"""Adds a field to a core type that may not be null: where it failed, the person would be gone with it.

Outcome: it is left out, and the way out is said.
State: load_error
Reason: field User.certain of insists is added to a core type and must be nullable; annotate it with | None
"""

import sqlalchemy as sa

from scrm.api import Contribution, User, expression, extend, hookimpl


@extend(User, scope="users:read")
class More:
    certain: int = expression("Always there.", lambda user: sa.literal(1))


@hookimpl
def contribute():
    return Contribution(name="insists", version="1.0", extends=[More])
