"""Tries to end the worker.

Outcome: that is its own failure, and the worker goes on.
State: degraded
Reason: 20 events failed in a row; the last, … at …: SystemExit in handle (exiting.py:…)
Check: no problems
"""

from scrm.api import Contribution, Handler, hookimpl


def handle(tx, events, rules):
    raise SystemExit(0)


@hookimpl
def contribute():
    return Contribution(name="exiting", version="1.0", handlers=[Handler(("order.paid",), handle)])
