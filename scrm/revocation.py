"""Follows the log for revoked keys, so that every process forgets one at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import sqlalchemy as sa

from scrm.auth import Keys
from scrm.db import Database, Tx
from scrm.events.models import events
from scrm.events.sequencer import head

POLL = 0.25
log = logging.getLogger("scrm.auth")


@asynccontextmanager
async def forgetting(db: Database, keys: Keys) -> AsyncIterator[None]:
    """While it lasts, a key that is revoked anywhere stops working here."""
    task = asyncio.create_task(_follow(db, keys))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _follow(db: Database, keys: Keys) -> None:
    cursor: int | None = None
    while True:
        try:
            cursor, revoked = await db.read(_revoked, cursor)
            for key in revoked:
                keys.forget(UUID(hex=key))
        except Exception:  # the database is away: the cache ends by itself, and this goes on when it is back
            log.debug("cannot look for revoked keys now")
            keys.forget()
        await asyncio.sleep(POLL)


def _revoked(tx: Tx, cursor: int | None) -> tuple[int, list[str]]:
    upper = head(tx)
    if cursor is None or cursor >= upper:
        return upper, []
    query = sa.select(events.c.properties).where(
        events.c.type == "key.revoked", events.c.position > cursor, events.c.position <= upper
    )
    return upper, [str(row.properties["key"]) for row in tx.rows(query)]
