"""Has a type that another plugin lists.

Outcome: the later of the two by name is left out, and both owners are named.
State: load_error
Reason: type GoodThing is defined by good and by zz_retypes; disable one
With: good
"""

import sqlalchemy as sa

from scrm.api import Contribution, User, expression, extend, hookimpl, rows, same_row


@rows(None, scope="users:read", public=True)
class GoodThing:
    "Something else."

    size: int | None = expression("How large.", lambda row: row.c.size)


@extend(User, scope="users:read")
class More:
    other_thing: GoodThing | None = same_row("A thing.", lambda user: {"size": sa.literal(1)})


@hookimpl
def contribute():
    return Contribution(name="zz_retypes", version="1.0", types=[GoodThing], extends=[More])
