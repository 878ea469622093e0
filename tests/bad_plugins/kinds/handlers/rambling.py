"""Returns a million things.

Outcome: nobody looks at what a handler returns.
State: active
Check: no problems
"""

from scrm.api import Contribution, Handler, hookimpl


def handle(tx, events, rules):
    return list(range(10**6))


@hookimpl
def contribute():
    return Contribution(name="rambling", version="1.0", handlers=[Handler(("order.paid",), handle)])
