"""Raises on every event.

Outcome: when the events of several people in a row have failed, the plugin is degraded: its place in the log stays, and it is tried again by and by.
State: degraded
Reason: 20 events failed in a row; the last, … at …: ZeroDivisionError in handle (always.py:…)
Check: no problems
"""

from scrm.api import Contribution, Handler, hookimpl


def handle(tx, events, rules):
    return 1 / 0


@hookimpl
def contribute():
    return Contribution(name="always", version="1.0", handlers=[Handler(("order.paid",), handle)])
