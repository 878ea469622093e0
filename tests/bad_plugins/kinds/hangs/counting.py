"""Asks the database something that takes for ever.

Outcome: the statement is ended, and that is the handler's failure.
State: active
Failures: DEAD …; BEHIND -
Check: no problems
"""

import sqlalchemy as sa

from scrm.api import Contribution, Handler, hookimpl

ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"


def handle(tx, events, rules):
    if any(event.properties["orderId"] == "poison" for event in events):
        tx.scalar(sa.text(ENDLESS))


@hookimpl
def contribute():
    return Contribution(name="counting", version="1.0", handlers=[Handler(("order.paid",), handle)])
