"""Tries to end the host's transaction in every way there is.

Outcome: every way is refused; nothing is committed but what the host commits.
State: active
Check: no problems
"""

import sqlalchemy as sa

from scrm.api import Contribution, Handler, hookimpl


def handle(tx, events, rules):
    ways = [
        lambda: tx.connection.commit(),
        lambda: tx.execute(sa.text("commit")),
        lambda: tx.execute(sa.text("/* done */ COMMIT")),
        lambda: tx.execute(sa.text("-- done\nrollback")),
        lambda: tx.execute(sa.text("select 1; commit")),
        lambda: tx.execute(sa.DDL("commit")),
        lambda: tx.execute(sa.text("savepoint mine")),
    ]
    for number, way in enumerate(ways):
        try:
            way()
        except PermissionError:
            continue
        raise AssertionError(f"way {number} was open")


@hookimpl
def contribute():
    return Contribution(name="committing", version="1.0", handlers=[Handler(("order.paid",), handle)])
