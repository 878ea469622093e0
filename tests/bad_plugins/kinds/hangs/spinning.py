"""Runs in a circle on one person's event.

Outcome: it is interrupted; the event is left to people, with that person's later ones behind it, and the others' are applied.
State: active
Failures: DEAD HangingError in …; BEHIND -
Check: no problems
"""

from scrm.api import Contribution, Handler, hookimpl


def handle(tx, events, rules):
    while any(event.properties["orderId"] == "poison" for event in events):
        pass


@hookimpl
def contribute():
    return Contribution(name="spinning", version="1.0", handlers=[Handler(("order.paid",), handle)])
