"""Adds a field that says nothing of where its value comes from, and a query without a scope.

Outcome: it is left out, and both are named.
State: load_error
Reason: field User.anything of sourceless is of a compiled type and has no source; use column, expression, one, many or batch; field Query.everything of sourceless has no scope; declare it with query, mutation or subscription
"""

import strawberry

from scrm.api import Contribution, Query, User, extend, hookimpl


@extend(User)
class More:
    anything: int | None = strawberry.field(description="Anything.", default=None)


@extend(Query)
class Asked:
    @strawberry.field(description="Everything.")
    def everything(self) -> int | None:
        return 1


@hookimpl
def contribute():
    return Contribution(name="sourceless", version="1.0", extends=[More], query=[Asked])
