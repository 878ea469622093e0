"""Has a deliverer that tries to end the worker, a job that raises and one that writes.

Outcome: the message waits for another try, and the jobs for their next time; the worker goes on.
State: active
Check: no problems
"""

from datetime import timedelta

import sqlalchemy as sa

from scrm.api import Contribution, Deliverer, Handler, Job, hookimpl


async def exits(payload, wiring):
    raise SystemExit(0)


def raises(tx, due, rules):
    raise RuntimeError("no luck")


def writes(tx, due, rules):
    tx.execute(sa.text("delete from users"))
    return []


def handle(tx, events, rules):
    for event in events:
        tx.send("mail", {"order": event.external_id}, cause=event)


@hookimpl
def contribute():
    return Contribution(
        name="misdelivering",
        version="1.0",
        handlers=[Handler(("order.paid",), handle)],
        deliverers=[Deliverer("mail", exits)],
        jobs=[Job("raising", timedelta(minutes=1), raises), Job("writing", timedelta(minutes=1), writes)],
    )
