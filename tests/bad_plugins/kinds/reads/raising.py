"""Has a query that raises.

Outcome: that field is null with PLUGIN_FIELD_FAILED and the plugin's name; the rest of the answer comes out.
State: active
Asks: { raisingNumber viewer { name } }
Fails: raisingNumber
Check: no problems
"""

from scrm.api import ANY_KEY, Contribution, Info, Query, extend, hookimpl, query


@extend(Query)
class Asked:
    @query("A number.", scope=ANY_KEY)
    async def raising_number(self, info: Info) -> int | None:
        raise RuntimeError("a person's name")


@hookimpl
def contribute():
    return Contribution(name="raising", version="1.0", query=[Asked])
