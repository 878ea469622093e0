"""Whether the database can be used: what drivers say of one that is away becomes one error that every door knows."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi

from scrm.errors import UnavailableError

log = logging.getLogger("scrm.db")

PATIENCE = 20.0
"""Seconds that a connection of the pool, or SQLite's one lock, is waited for: less than a request may take."""

CONNECTING = 10.0
"""Seconds that a server may take to let one in."""

_SERVER = ("08", "25006", "3D000", "53", "57P", "58")
"""PostgreSQL's: no connection, a replica, no such database, no memory or disk or connection left, starts or ends, its disk."""
_FILE = frozenset(
    getattr(sqlite3, f"SQLITE_{name}")
    for name in ("BUSY", "LOCKED", "READONLY", "IOERR", "CORRUPT", "FULL", "CANTOPEN", "NOTADB", "PROTOCOL")
)


_CLIENT = (
    *(asyncpg.InterfaceError, asyncpg.InternalClientError),
    *(AsyncAdapt_asyncpg_dbapi.InterfaceError, AsyncAdapt_asyncpg_dbapi.InternalClientError),
)


def why_unavailable(error: BaseException) -> str | None:
    """In a word why the database cannot be used now, whatever was asked; None where an error is about what was asked of it."""
    if isinstance(error, UnavailableError):
        error = error.__cause__ or error
    cause = getattr(error, "orig", None) or error
    state = getattr(cause, "sqlstate", None)
    if isinstance(cause, sqlite3.Error):
        now = getattr(cause, "sqlite_errorcode", -1) & 0xFF in _FILE
        return str(cause.sqlite_errorname) if now else None
    if state is not None and str(state).startswith(_SERVER):
        return f"{type(cause).__name__} {state}"
    if isinstance(cause, _CLIENT) and any(said in str(cause) for said in ("clos", "cannot switch to state")):
        return "the connection is closed"  # or the server has said goodbye, and the client has not looked yet
    if isinstance(cause, sa.exc.TimeoutError | ConnectionError) or getattr(error, "connection_invalidated", False) is True:
        return type(cause).__name__
    return None


class Reach:
    """The way to one database; the log says when it is lost, and when it is found again."""

    def __init__(self) -> None:
        self._lost = False

    @contextmanager
    def __call__(self, of_driver: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Go it. An OSError tells that the database is away where it is the driver's own.

        Raises: UnavailableError.
        """
        try:
            yield
        except Exception as error:
            self.check(error, of_driver)
            raise
        self.found()

    def check(self, error: Exception, of_driver: Callable[[], bool] = lambda: True) -> None:
        """Look at what came of going it.

        Raises: UnavailableError.
        """
        why = why_unavailable(error) or (type(error).__name__ if isinstance(error, OSError) and of_driver() else None)
        if why is None:
            return
        if not self._lost:
            self._lost = True
            log.warning("the database cannot be used: %s", why)
        raise UnavailableError from error

    def found(self) -> None:
        """It was gone to its end."""
        if self._lost:
            self._lost = False
            log.warning("the database can be used again")


class Reached:
    """A snapshot of a database that may go away."""

    def __init__(self, fetch: Callable[[str, Sequence[Any]], Awaitable[list[tuple[Any, ...]]]], reach: Reach) -> None:
        self._fetch = fetch
        self._reach = reach

    async def fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Answer one compiled read."""
        with self._reach():
            return await self._fetch(sql, parameters)
