"""Has queries that answer a million items, and items without end.

Outcome: these fields are null: no list has more than a thousand items; one that has a thousand comes out.
State: active
Asks: { floodingList floodingGenerator floodingThousand viewer { name } }
Fails: floodingList floodingGenerator
Check: no problems
"""

from itertools import count

from scrm.api import ANY_KEY, Contribution, Info, Query, extend, hookimpl, query


@extend(Query)
class Asked:
    @query("Numbers.", scope=ANY_KEY)
    async def flooding_list(self, info: Info) -> list[int] | None:
        return [1] * 10**6

    @query("Numbers.", scope=ANY_KEY)
    async def flooding_generator(self, info: Info) -> list[int] | None:
        return count()

    @query("Numbers.", scope=ANY_KEY)
    async def flooding_thousand(self, info: Info) -> list[int] | None:
        return [1] * 1000


@hookimpl
def contribute():
    return Contribution(name="flooding", version="1.0", query=[Asked])
