"""Compiled reads on PostgreSQL: asyncpg without anything around it, on connections of their own.

They stay taken from the pool between two statements: to give one back and to take it again costs more than many a statement.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

log = logging.getLogger("scrm.db")

LARGEST_KEPT = 2**17
"""Characters of the longest statement that a connection keeps prepared."""
KEPT = 30.0
"""Seconds after which one goes back all the same, so that the pool may close what is idle or has served long."""


@dataclass(slots=True)
class Lease:
    """A connection, since when it is taken, and when it was last used, in the loop's time."""

    connection: Any
    since: float
    used: float

    @property
    def is_gone(self) -> bool:
        """Whether its other end has ended it; the pool has it back then."""
        try:
            return bool(self.connection.is_closed())
        except asyncpg.InterfaceError:
            return True


class Leases:
    """The connections of one pool; the one that was used last is taken first."""

    def __init__(self, pool: asyncpg.Pool[Any], patience: float) -> None:
        self.pool = pool
        self._patience = patience
        self._free = asyncio.Semaphore(pool.get_max_size())
        self._idle: deque[Lease] = deque()
        self._loop = asyncio.get_running_loop()
        self._closed = False

    async def take(self) -> Lease:
        """One to use alone.

        Raises: TimeoutError where all are in use for too long; and what connecting does.
        """
        if self._free.locked():
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        else:
            await self._free.acquire()
        try:
            while self._idle:
                lease = self._idle.pop()
                if not lease.is_gone:
                    return lease
                await self.pool.release(lease.connection)
            now = self._loop.time()
            return Lease(await self.pool.acquire(), now, now)
        except BaseException:
            self._free.release()
            raise

    async def give(self, lease: Lease) -> None:
        """Have it back after it answered."""
        now = lease.used = self._loop.time()
        old = lease if self._closed or now - lease.since > KEPT else None
        if old is None:
            self._idle.append(lease)
            if now - self._idle[0].used > KEPT:
                old = self._idle.popleft()
        self._free.release()
        if old is not None:
            await self.pool.release(old.connection)

    async def drop(self, lease: Lease) -> None:
        """Have it back after it did not answer, or was not waited for: the pool knows what to do with it."""
        try:
            await self.pool.release(lease.connection)
        finally:
            self._free.release()

    async def close(self) -> None:
        """Give all back, when those in use have answered."""
        self._closed = True
        while self._idle:
            await self.pool.release(self._idle.pop().connection)
        await self.pool.close()


class RawReads:
    """Statements in the driver's own words, answered by its own rows; JSON stays the text it came as."""

    def __init__(self, given: Mapping[str, Any], size: int, patience: float) -> None:
        self._given = given
        self._size = size
        self._patience = patience
        self._leases: Leases | None = None
        self._opening = asyncio.Lock()
        self._left: set[asyncio.Task[None]] = set()

    async def _open(self) -> Leases:
        async with self._opening:
            if self._leases is None:
                settings = {**self._given, "max_cacheable_statement_size": LARGEST_KEPT}
                pool = await asyncpg.create_pool(min_size=0, max_size=self._size, init=_raw_json, reset=_keep, **settings)
                self._leases = Leases(pool, self._patience)
        return self._leases

    async def fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Answer one statement."""
        leases = self._leases or await self._open()
        lease = await leases.take()
        try:
            rows = await lease.connection.fetch(sql, *parameters)
        except BaseException:
            self._leave(leases.drop(lease))
            raise
        await leases.give(lease)
        return rows  # type: ignore[no-any-return]

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[RawSnapshot]:
        """Several statements that see one state of the database."""
        leases = self._leases or await self._open()
        lease = await leases.take()
        transaction = lease.connection.transaction(isolation="repeatable_read", readonly=True)
        try:
            await transaction.start()
            yield RawSnapshot(lease.connection)
        finally:
            self._leave(self._end(leases, lease, transaction))

    async def _end(self, leases: Leases, lease: Lease, transaction: Any) -> None:
        try:
            await transaction.rollback()
        except Exception:  # it never began, or its connection is gone: the pool finds out what is left of it
            log.debug("a snapshot could not be ended", exc_info=True)
        await leases.drop(lease)

    def _leave(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something come to its end by itself: who gave up waiting for a database does not wait for it to notice."""
        task = asyncio.create_task(work)
        self._left.add(task)
        task.add_done_callback(self._left.discard)

    async def close(self) -> None:
        """Hang up."""
        if self._left:
            await asyncio.wait(self._left)
        if self._leases is not None:
            await self._leases.close()


class RawSnapshot:
    """A connection in a transaction that only reads."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Answer one statement."""
        return await self._connection.fetch(sql, *parameters)  # type: ignore[no-any-return]


async def _raw_json(connection: Any) -> None:
    await connection.set_type_codec("json", schema="pg_catalog", encoder=lambda data: data, decoder=bytes, format="binary")


async def _keep(_connection: Any) -> None:
    """Compiled reads set no session state, so there is nothing to reset and a round trip to save."""
