"""Has a batch field that never answers, and one that does not even let itself be cancelled.

Outcome: both are waited for a third of the request's time, at once, and are null then; the rest comes out.
State: active
Asks: { users(first: 2) { nodes { id batchStalls batchClings goodOrders goodWord } } }
Fails: batchStalls batchClings
Check: no problems
"""

import asyncio

from scrm.api import Contribution, User, batch, extend, hookimpl


async def stalls(keys, info):
    await asyncio.Event().wait()


async def clings(keys, info):
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0.1)
    return dict.fromkeys(keys, 1)


@extend(User, scope="users:read")
class More:
    batch_stalls: int | None = batch("A number.", stalls, needs=["id"])
    batch_clings: int | None = batch("A number.", clings, needs=["id"])


@hookimpl
def contribute():
    return Contribution(name="stalling", version="1.0", extends=[More])
