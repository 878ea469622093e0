"""Has a type with the name of a core type, reached through a field only.

Outcome: it is left out, and both owners are named.
State: load_error
Reason: type Tag is defined by core and by retags; rename it in retags
"""

import sqlalchemy as sa

from scrm.api import Contribution, User, expression, extend, hookimpl, rows, same_row


@rows(None, scope="users:read", public=True)
class Tag:
    "Another tag."

    size: int | None = expression("How large.", lambda row: row.c.size)


@extend(User, scope="users:read")
class More:
    other_tag: Tag | None = same_row("A tag.", lambda user: {"size": sa.literal(1)})


@hookimpl
def contribute():
    return Contribution(name="retags", version="1.0", extends=[More])
