"""Sleeps for ever on an event.

Outcome: nothing wakes it, so its worker starts again and the plugin rests; the others go on.
State: degraded
Reason: it did not return from …, and its worker had to be started again
Check: no problems
"""

import time

from scrm.api import Contribution, Handler, hookimpl


def handle(tx, events, rules):
    time.sleep(3600)


@hookimpl
def contribute():
    return Contribution(name="sleeping", version="1.0", handlers=[Handler(("order.paid",), handle)])
