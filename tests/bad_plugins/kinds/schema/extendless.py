"""Contributes a class of fields that extends no type.

Outcome: it is left out, and the class is named.
State: load_error
Reason: More of extendless extends nothing; decorate it with @extend(Type)
"""

from scrm.api import Contribution, hookimpl


class More:
    anything: int | None = None


@hookimpl
def contribute():
    return Contribution(name="extendless", version="1.0", extends=[More])
