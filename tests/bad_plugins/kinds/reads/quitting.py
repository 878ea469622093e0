"""Has queries that try to end the server, and to look as if the request had been cancelled.

Outcome: these fields are null, and the server goes on.
State: active
Asks: { quittingNow quittingLater { deep } quittingAsCancelled quittingItself viewer { name } }
Fails: quittingNow quittingLater.deep quittingAsCancelled quittingItself
Check: no problems
"""

import asyncio

import strawberry

from scrm.api import ANY_KEY, Contribution, Info, Query, extend, hookimpl, query


@strawberry.type(description="Something Python makes.")
class Later:
    @strawberry.field(description="A number.")
    async def deep(self) -> int | None:
        raise SystemExit(0)


@extend(Query)
class Asked:
    @query("A number.", scope=ANY_KEY)
    def quitting_now(self, info: Info) -> int | None:
        raise SystemExit(0)

    @query("An object.", scope=ANY_KEY)
    async def quitting_later(self, info: Info) -> Later | None:
        return Later()

    @query("A number.", scope=ANY_KEY)
    async def quitting_as_cancelled(self, info: Info) -> int | None:
        raise asyncio.CancelledError

    @query("A number.", scope=ANY_KEY)
    async def quitting_itself(self, info: Info) -> int | None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        return 1


@hookimpl
def contribute():
    return Contribution(name="quitting", version="1.0", query=[Asked])
