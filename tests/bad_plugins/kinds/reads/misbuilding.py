"""Has fields whose source functions raise, try to end the server, and give no SQL, on people and within an object of its own.

Outcome: these fields are null, and an object that holds one which may not be null; its other fields, the core's and the others' come out, also where several plugins fail at once.
State: active
Asks: { users(first: 2) { nodes { id buildRaises buildWell buildExits buildBabbles buildThing { well raises } buildSolid { never } goodOrders goodWord } } }
Fails: buildRaises buildExits buildBabbles buildThing.raises buildSolid
Check: field User.buildRaises of misbuilding fails: RuntimeError: no luck; mend its source; field User.buildExits of misbuilding fails: RuntimeError: a source function raised SystemExit; mend its source; field User.buildBabbles of misbuilding fails: …
"""

import sqlalchemy as sa

from scrm.api import Contribution, User, expression, extend, hookimpl, rows, same_row


def raises(user):
    raise RuntimeError("no luck")


def exits(user):
    raise SystemExit(0)


def seven(user):
    return sa.literal(7)


@rows(None, scope="users:read", public=True)
class Thing:
    "An object with a field that fails."

    well: int | None = expression("A number.", seven)
    raises: int | None = expression("A number.", raises)


@rows(None, scope="users:read", public=True)
class Solid:
    "An object with a field that fails and may not be null."

    never: int = expression("A number.", raises)


@extend(User, scope="users:read")
class More:
    build_raises: int | None = expression("A number.", raises)
    build_well: int | None = expression("A number.", seven)
    build_exits: int | None = expression("A number.", exits)
    build_babbles: int | None = expression("A number.", lambda user: "twelve")
    build_thing: Thing | None = same_row("An object.", lambda user: {"one": sa.literal(1)})
    build_solid: Solid | None = same_row("An object.", lambda user: {"one": sa.literal(1)})


@hookimpl
def contribute():
    return Contribution(name="misbuilding", version="1.0", extends=[More], types=[Thing, Solid])
