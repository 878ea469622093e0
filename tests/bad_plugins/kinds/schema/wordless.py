"""Describes a field, its argument and a query with blanks.

Outcome: it is left out, and each is named as if nothing had been said.
State: load_error
Reason: field User.blank of wordless has no description; say what it is in its first argument, or description=…; field User.blank of wordless has the argument much without a description; say what it is; field Query.wordlessNumber of wordless has no description; …
"""

import sqlalchemy as sa

from scrm.api import ANY_KEY, Contribution, Info, Query, User, arg, expression, extend, hookimpl, query


@extend(User, scope="users:read")
class More:
    blank: int | None = expression("  ", lambda user, much: sa.literal(1), much=arg(int | None, " \n"))


@extend(Query)
class Asked:
    @query("\t", scope=ANY_KEY)
    async def wordless_number(self, info: Info) -> int | None:
        return 1


@hookimpl
def contribute():
    return Contribution(name="wordless", version="1.0", query=[Asked], extends=[More])
