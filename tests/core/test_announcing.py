"""A handler that announces much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.events import handling
from scrm.events.consumers import Consumer, enable
from scrm.events.models import events
from scrm.events.records import Announcement, Event
from scrm.plugin import Handler, HandlerTx


async def test_many_announcements_are_written_as_they_are_made(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handling, "MOST_WAITING", 3)
    recorded = sa.select(sa.func.count()).select_from(events).where(events.c.type == "shout.told")
    written = []

    def tell(tx: HandlerTx, batch: Sequence[Event], rules: object) -> None:
        for n in range(7):
            tx.announce(Announcement("shout.told", batch[0], batch[0].user_id, {"n": n}, key=str(n)))
            written.append(tx.scalar(recorded))

    consumer = Consumer("shout", (Handler(("order.paid",), tell),), toy.zone)
    await toy.paid(await toy.user(), 1, "o1")
    await toy.db.write(enable, consumer, toy.start)
    toy.consumer = consumer
    assert await toy.run() == 1
    assert written == [0, 0, 3, 3, 3, 6, 6]
    told = sa.select(events.c.properties).where(events.c.type == "shout.told").order_by(events.c.position)
    assert await toy.rows(told) == [({"n": n},) for n in range(7)]
