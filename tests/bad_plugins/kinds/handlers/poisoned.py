"""Raises on one person's event.

Outcome: the event is set aside with that person's later ones behind it, and the others' are applied.
State: active
Failures: RETRYING KeyError in handle (poisoned.py:…); BEHIND -
Check: no problems
"""

from scrm.api import Contribution, Handler, hookimpl


def handle(tx, events, rules):
    for event in events:
        if event.properties["orderId"] == "poison":
            raise KeyError("a person's name")


@hookimpl
def contribute():
    return Contribution(name="poisoned", version="1.0", handlers=[Handler(("order.paid",), handle)])
