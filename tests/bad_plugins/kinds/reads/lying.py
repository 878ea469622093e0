"""Has queries that answer with something else than they promise: text for a number, a number for a list, what JSON cannot hold, half a character, and an object for nothing known.

Outcome: these fields are null, each with PLUGIN_FIELD_FAILED; the rest of the answer comes out.
State: active
Asks: { lyingNumber lyingList lyingJson lyingText lyingUser { id } viewer { name } }
Fails: lyingNumber lyingList lyingJson lyingText lyingUser
Check: no problems
"""

from scrm.api import ANY_KEY, JSON, Contribution, Info, Query, User, extend, hookimpl, query


@extend(Query)
class Asked:
    @query("A number.", scope=ANY_KEY)
    async def lying_number(self, info: Info) -> int | None:
        return "twelve"

    @query("Numbers.", scope=ANY_KEY)
    async def lying_list(self, info: Info) -> list[int] | None:
        return 12

    @query("Anything.", scope=ANY_KEY)
    async def lying_json(self, info: Info) -> JSON | None:
        return {"a": {1, 2}}

    @query("Text.", scope=ANY_KEY)
    async def lying_text(self, info: Info) -> str | None:
        return "half \ud83d"

    @query("Somebody.", scope=ANY_KEY)
    async def lying_user(self, info: Info) -> User | None:
        return object()


@hookimpl
def contribute():
    return Contribution(name="lying", version="1.0", query=[Asked])
