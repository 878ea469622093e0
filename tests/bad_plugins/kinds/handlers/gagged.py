"""Raises on every event what cannot be put into words, nor looked at.

Outcome: it is degraded as any other that fails on everything.
State: degraded
Reason: 20 events failed in a row; the last, … at …: GaggedError in handle (gagged.py:…)
Check: no problems
"""

from scrm.api import Contribution, Handler, hookimpl


class GaggedError(Exception):
    @property
    def sqlstate(self):
        raise SystemExit(9)

    @property
    def orig(self):
        raise SystemExit(9)

    def __str__(self):
        raise SystemExit(9)


def handle(tx, events, rules):
    raise GaggedError


@hookimpl
def contribute():
    return Contribution(name="gagged", version="1.0", handlers=[Handler(("order.paid",), handle)])
