"""What a consumer reads of the log before its turn: as it was at the event, or thrown away."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.events.consumers import Consumer, enable
from scrm.events.log import core_event
from scrm.events.models import events, out_of_turn
from scrm.events.records import Announcement, Event
from scrm.events.steps import advance, read_ahead, step
from scrm.plugin import Handler, HandlerTx


def reading_ahead(toy: Any, seen: list[Any], *, fail: bool = False) -> Consumer:
    """It counts the payments before each `toy.due` ahead of its turn, and keeps what its handler finds."""

    def count(tx: HandlerTx, event: Event, rules: object) -> int:
        for attempt in (
            lambda: tx.execute(sa.delete(events)),
            lambda: tx.announce(Announcement("shout.told", event, None, {})),
            lambda: tx.send("mail", {}, cause=event),
        ):
            with pytest.raises(PermissionError):
                attempt()
        if fail:
            raise ValueError
        log = tx.history(["order.paid"], until=event)
        return int(tx.scalar(sa.select(sa.func.count()).select_from(log)))

    def follow(tx: HandlerTx, batch: Sequence[Event], rules: object) -> None:
        seen.append([(event.type, tx.ahead(event)) for event in batch])

    return Consumer("shout", (Handler(("order.paid", "toy.due"), follow, ahead={"toy.due": count}),), toy.zone)


async def test_what_is_read_ahead_is_as_the_log_was_at_the_event(toy: Any) -> None:
    seen: list[Any] = []
    user = await toy.user()
    await toy.db.write(enable, consumer := reading_ahead(toy, seen), toy.start)
    await toy.paid(user, 1, "o1")
    for _ in range(2):
        await toy.append(core_event("toy.due", None, {}, toy.start, toy.zone))
    await toy.paid(user, 1, "o2")
    while not (await advance(toy.db, consumer, at=toy.start)).idle:
        pass
    paid = ("order.paid", None)
    assert seen == [[paid], [("toy.due", 1)], [("toy.due", 1), paid]]


@pytest.mark.parametrize("why", ["the cursor moved", "an event was applied out of turn", "it failed"])
async def test_what_was_read_too_early_is_thrown_away(toy: Any, why: str) -> None:
    seen: list[Any] = []
    consumer = reading_ahead(toy, seen, fail=why == "it failed")
    await toy.db.write(enable, consumer, toy.start)
    await toy.append(core_event("toy.due", None, {}, toy.start, toy.zone))
    ahead = await toy.db.read(read_ahead, consumer)
    assert (ahead and ahead.value) == (None if why == "it failed" else 0)
    if why == "the cursor moved":
        ahead = dataclasses.replace(ahead, cursor=-1)
    if why == "an event was applied out of turn":
        place = {"plugin": "shout", "event_id": uuid.uuid4(), "after": ahead.cursor}
        await toy.db.write(lambda tx: tx.execute(sa.insert(out_of_turn).values(place)))
    await toy.db.write(step, consumer, at=toy.start, ahead=ahead)
    assert seen == [[("toy.due", None)]]
