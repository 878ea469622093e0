"""Has fields whose source functions raise, try to end the server, and give no SQL.

Outcome: its fields are null; the core's and the others' come out, also where several plugins fail at once.
State: active
Asks: { users(first: 2) { nodes { id buildRaises buildExits buildBabbles goodOrders goodWord } } }
Fails: buildRaises buildExits buildBabbles
Check: field User.buildRaises of misbuilding fails: RuntimeError: no luck; mend its source; field User.buildExits of misbuilding fails: RuntimeError: a source function raised SystemExit; mend its source; field User.buildBabbles of misbuilding fails: …
"""

from scrm.api import Contribution, User, expression, extend, hookimpl


def raises(user):
    raise RuntimeError("no luck")


def exits(user):
    raise SystemExit(0)


@extend(User, scope="users:read")
class More:
    build_raises: int | None = expression("A number.", raises)
    build_exits: int | None = expression("A number.", exits)
    build_babbles: int | None = expression("A number.", lambda user: "twelve")


@hookimpl
def contribute():
    return Contribution(name="misbuilding", version="1.0", extends=[More])
