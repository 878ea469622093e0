"""Raises when two people become one.

Outcome: the core's merge is done; the plugin's part of it is set aside and tried again.
State: active
Failures: RETRYING RuntimeError in merge (unmerging.py:…)
Check: no problems
"""

from scrm.api import Contribution, Handler, hookimpl


@hookimpl
def merge(tx, kept, absorbed):
    raise RuntimeError("not those two")


def handle(tx, events, rules):
    pass


@hookimpl
def contribute():
    return Contribution(name="unmerging", version="1.0", handlers=[Handler(("order.paid",), handle)])
