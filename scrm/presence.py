"""Which processes work on the database, and which plugins each runs: one that is disabled runs on until they restart."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa

from scrm.db import Database, Tx, new_id
from scrm.events.models import workers

log = logging.getLogger("scrm.presence")

HEARTBEAT = 5.0
"""Seconds after which a process says again that it is there."""

RUNS_FOR = timedelta(seconds=20)
"""How long a process is taken to run its plugins after it was last seen; one that ends in order is gone at once."""

GONE_AFTER = timedelta(seconds=30)


class Kind(StrEnum):
    """What a process does."""

    SERVER = "SERVER"
    WORKER = "WORKER"


@dataclass(frozen=True, slots=True)
class Process:
    """A process at work, the plugins it was started with, and when it was last seen."""

    kind: Kind
    host: str
    pid: int
    plugins: tuple[str, ...]
    seen_at: datetime

    @property
    def place(self) -> str:
        """`HOST:PID`."""
        return f"{self.host}:{self.pid}"


@dataclass(frozen=True, slots=True)
class Presence:
    """This process in the list of those at work."""

    kind: Kind
    plugins: tuple[str, ...]
    started_at: datetime
    id: uuid.UUID = field(default_factory=new_id)

    def be_seen(self, tx: Tx, at: datetime) -> None:
        """Say that it is there, whether for the first time or again; and forget those that have not been seen for long."""
        seen = tx.execute(sa.update(workers).where(workers.c.id == self.id).values(seen_at=at))
        if not seen.rowcount:
            row = {"id": self.id, "kind": self.kind.value, "host": socket.gethostname(), "pid": os.getpid()}
            said = {**row, "plugins": list(self.plugins), "started_at": self.started_at, "seen_at": at}
            tx.execute(sa.insert(workers).values(said))
        tx.execute(sa.delete(workers).where(workers.c.seen_at < at - 20 * GONE_AFTER))

    def leave(self, tx: Tx) -> None:
        """Take it out of the list."""
        tx.execute(sa.delete(workers).where(workers.c.id == self.id))


@asynccontextmanager
async def present(db: Database, kind: Kind, plugins: Iterable[str]) -> AsyncIterator[None]:
    """While it lasts, this process is seen to run these plugins."""
    me = Presence(kind, tuple(plugins), db.clock())
    await db.write(me.be_seen, me.started_at)
    task = asyncio.create_task(_keep(db, me))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        with suppress(Exception):
            await db.write(me.leave)


async def _keep(db: Database, me: Presence) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT)
        try:
            await db.write(me.be_seen, db.clock())
        except Exception as error:  # the database is away: it goes on when that is back
            log.warning("heartbeat: %s; it goes on", type(error).__name__)


def living_workers(tx: Tx, at: datetime) -> int:
    """How many workers have been seen in the last half minute, by a clock that is right or nearly."""
    living = sa.and_(workers.c.kind == Kind.WORKER.value, workers.c.seen_at.between(at - GONE_AFTER, at + GONE_AFTER))
    return int(tx.scalar(sa.select(sa.func.count()).where(living)))


def running(tx: Tx, at: datetime) -> list[Process]:
    """The processes that were seen lately, servers first; none where the tables do not say yet what they run."""
    inspector = sa.inspect(tx.connection)
    if not inspector.has_table("workers") or "plugins" not in {column["name"] for column in inspector.get_columns("workers")}:
        return []
    lately = sa.select(workers).where(workers.c.seen_at > at - RUNS_FOR)
    found = tx.rows(lately.order_by(workers.c.kind, workers.c.host, workers.c.pid))
    return [Process(Kind(row.kind), row.host, row.pid, tuple(row.plugins), row.seen_at) for row in found]
