"""Following the log: subscriptions read it by position, so they work across processes, resume, and miss nothing."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from scrm.db import Database, Tx
from scrm.errors import ScrmError
from scrm.events.models import events
from scrm.events.sequencer import head
from scrm.events.tide import POLL
from scrm.graphql.context import Context

BATCH = 100
RENEW = timedelta(seconds=5)
"""How long a subscription goes on before its key is looked at again."""


async def follow(
    context: Context, condition: Any, after: int | None = None, *, plugin: str | None = None
) -> AsyncIterator[uuid.UUID]:
    """The ids of events that match, from behind `after` (or from now on), as they get their positions.

    With `plugin` each comes when that plugin has read it, so that its tables show it. What plugins announce of history is left
    out.
    """
    db: Database = context.services.db
    start = await db.read(head)
    if after is not None and after < 0:
        raise ScrmError("INVALID_POSITION", f"after is {after}; a position is 0 or more", path=("after",))
    restricted = context.principal.user_id
    if restricted is not None:
        own = events.c.user_id == restricted
        condition = own if condition is None else condition & own
    cursor = start if after is None else after
    asked = db.clock()
    while True:
        if not timedelta(0) <= db.clock() - asked < RENEW:
            await context.renew()
            asked = db.clock()
        upper = await context.services.tide.upper(plugin)
        while cursor < upper:
            found = await db.read(_matching, condition, cursor, upper)
            for event_id, _ in found:
                yield event_id
            cursor = found[-1][1] if len(found) == BATCH else upper
        await asyncio.sleep(POLL)


def _matching(tx: Tx, condition: Any, cursor: int, upper: int) -> list[tuple[uuid.UUID, int]]:
    query = sa.select(events.c.id, events.c.position).where(events.c.position > cursor, events.c.position <= upper)
    query = query.where(events.c.backfill.is_(False))
    if condition is not None:
        query = query.where(condition)
    return [(row.id, row.position) for row in tx.rows(query.order_by(events.c.position).limit(BATCH))]
