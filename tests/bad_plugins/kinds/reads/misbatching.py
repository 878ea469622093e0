"""Has batch fields that raise, try to end the server, answer wrong types, no mapping, and only some of the keys.

Outcome: what fails is null with PLUGIN_FIELD_FAILED; a key without an answer is null without an error; the rest comes out.
State: active
Asks: { users(first: 2) { nodes { id batchRaises batchExits batchLies batchBabbles batchForgets goodOrders goodWord } } }
Fails: batchRaises batchExits batchLies batchBabbles
Check: no problems
"""

from scrm.api import Contribution, User, batch, extend, hookimpl


async def raises(keys, info):
    raise RuntimeError("no luck")


async def exits(keys, info):
    raise SystemExit(0)


async def lies(keys, info):
    return dict.fromkeys(keys, "twelve")


async def babbles(keys, info):
    return 12


async def forgets(keys, info):
    return {}


@extend(User, scope="users:read")
class More:
    batch_raises: int | None = batch("A number.", raises, needs=["id"])
    batch_exits: int | None = batch("A number.", exits, needs=["id"])
    batch_lies: int | None = batch("A number.", lies, needs=["id"])
    batch_babbles: int | None = batch("A number.", babbles, needs=["id"])
    batch_forgets: int | None = batch("A number.", forgets, needs=["id"])


@hookimpl
def contribute():
    return Contribution(name="misbatching", version="1.0", extends=[More])
