"""Reads an event type that nobody records.

Outcome: it works with a warning: the type may come from a plugin that is not installed.
State: active
Check: warning: event type ordr.paid, which careless uses, is registered by nobody; check its spelling
"""

from scrm.api import Contribution, Handler, hookimpl


def handle(tx, events, rules):
    pass


@hookimpl
def contribute():
    return Contribution(name="careless", version="1.0", handlers=[Handler(("ordr.paid",), handle)])
