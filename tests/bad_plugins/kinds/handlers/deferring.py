"""Has a handler that makes a coroutine, in disguise.

Outcome: it fails where it is called, and is degraded.
State: degraded
Reason: 20 events failed in a row; the last, … at …: TypeError in …
Check: no problems
"""

from scrm.api import Contribution, Handler, hookimpl


async def work(events):
    pass


def handle(tx, events, rules):
    return work(events)


@hookimpl
def contribute():
    return Contribution(name="deferring", version="1.0", handlers=[Handler(("order.paid",), handle)])
