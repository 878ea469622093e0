"""Connections that stay taken from asyncpg's pool between two statements: to give one back and to take it again costs more than
many a statement."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

import asyncpg

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
