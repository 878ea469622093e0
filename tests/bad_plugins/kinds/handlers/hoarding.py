"""Keeps the transaction and uses it when it has ended.

Outcome: it is refused: a transaction ends with the call it was made for.
State: active
Check: no problems
"""

import sqlalchemy as sa

from scrm.api import Contribution, Handler, hookimpl

kept = []


def handle(tx, events, rules):
    for old in kept:
        try:
            old.execute(sa.text("select 1"))
        except PermissionError:
            continue
        raise AssertionError("an ended transaction was open")
    kept.append(tx)


@hookimpl
def contribute():
    return Contribution(name="hoarding", version="1.0", handlers=[Handler(("order.paid",), handle)])
