"""How far the log has come: asked a few times a second for a whole server, however many follow it."""

from __future__ import annotations

import asyncio
import time

import sqlalchemy as sa

from scrm.db import Database, Tx
from scrm.events.models import consumers
from scrm.events.sequencer import head

POLL = 0.1


class Tide:
    """How far the log reaches, or a plugin has read it: asked once for all who follow."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: dict[str | None, tuple[float, asyncio.Task[int]]] = {}

    async def upper(self, plugin: str | None) -> int:
        """The last position, as of a tenth of a second ago at most."""
        now = time.monotonic()
        found = self._known.get(plugin)
        if found is None or now - found[0] >= POLL or _failed(found[1]):
            found = self._known[plugin] = (now, asyncio.ensure_future(self._db.read(_upper, plugin)))
        return await asyncio.shield(found[1])


def _failed(asked: asyncio.Task[int]) -> bool:
    return asked.done() and (asked.cancelled() or asked.exception() is not None)


def _upper(tx: Tx, plugin: str | None) -> int:
    if plugin is None:
        return head(tx)
    read: int | None = tx.scalar(sa.select(consumers.c.cursor).where(consumers.c.plugin == plugin))
    return read or 0
