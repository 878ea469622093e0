"""The database: one engine per dialect, column types that mean the same on both, and transactions.

Services are plain functions that take a `Tx` first. On PostgreSQL they run in a greenlet over asyncpg, so the event loop
goes on while
a statement waits; on SQLite in a thread, a whole function per hop, writers one at a time.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection, CursorResult, Dialect, Engine, Row, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from uuid6 import uuid7

from scrm.availability import CONNECTING, PATIENCE, Reach, Reached
from scrm.errors import StartupError
from scrm.leases import RawReads
from scrm.statements import CHECK, Check, refuse_transaction_control
from scrm.uuids import Uuids, uuid_of

P = ParamSpec("P")
T = TypeVar("T")

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

metadata = sa.MetaData(naming_convention=NAMING)
"""The core's own tables. A plugin has a `MetaData` of its own: `plugin_metadata()`."""


MEASURED = {"measured": True}
"""The `info` of a column that says how something went, such as how long it took: another time it is another, so a replay does not
compare it."""


def plugin_metadata() -> sa.MetaData:
    """A new collection for a plugin's tables, with the house's constraint names."""
    return sa.MetaData(naming_convention=NAMING)


def new_id() -> uuid.UUID:
    """A UUIDv7: unique, and later ones sort after earlier ones."""
    return uuid_of(uuid7().int)


class Instant(sa.types.TypeDecorator[datetime]):
    """A point in time: aware UTC in Python, `timestamptz` on PostgreSQL, RFC 3339 text of fixed width on SQLite."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.String(27))
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the time {value.isoformat()} has no zone")
        value = value.astimezone(UTC)
        return instant_text(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        return value.astimezone(UTC) if value is not None else None


def instant_text(value: datetime) -> str:
    """`2026-01-02T03:04:05.000006Z`, the one text of an instant everywhere in scrm."""
    text = orjson.dumps(value.astimezone(UTC), option=orjson.OPT_UTC_Z)  # much quicker than isoformat; without a zero fraction
    return text[1:-1].decode() if len(text) == _INSTANT_LENGTH else f"{text[1:20].decode()}.000000Z"


_INSTANT_LENGTH = 29


Id = Uuids(as_uuid=True)
"""A UUID: `uuid` on PostgreSQL, 32 hex digits on SQLite."""

Json = sa.JSON(none_as_null=True)
"""JSON kept as it was written: `json` on PostgreSQL, text on SQLite."""

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text that compares and sorts by code point on both engines."""


class DriverText(sa.TextClause):
    """A statement in the driver's own words, with rows of its own values: on SQLite the quickest way to write many."""

    inherit_cache = True


class Tx:
    """One transaction. It ends where the function that was given it returns; there is nothing to commit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect: str = connection.dialect.name

    def execute(self, statement: sa.Executable, parameters: Any = None) -> CursorResult[Any]:
        """Run a statement; words that end or begin a transaction are refused."""
        if isinstance(statement, sa.TextClause):
            refuse_transaction_control(statement.text)
        return self._send(statement, parameters, {})

    def checked(self, statement: sa.Executable, parameters: Any, check: Check) -> CursorResult[Any]:
        """Run a statement after `check` has seen the text that the database is sent; what it raises is raised here."""
        return self._send(statement, parameters, {CHECK: check})

    def _send(self, statement: sa.Executable, parameters: Any, options: dict[str, Any]) -> CursorResult[Any]:
        if isinstance(statement, DriverText):
            return self._connection.exec_driver_sql(statement.text, parameters, options)
        return self._connection.execute(statement, parameters, execution_options=options)

    def rows(self, statement: sa.Executable, parameters: Any = None) -> Sequence[Row[Any]]:
        """All rows of a query."""
        return self.execute(statement, parameters).fetchall()

    def row(self, statement: sa.Executable, parameters: Any = None) -> Row[Any] | None:
        """The first row of a query, or None."""
        return self.execute(statement, parameters).first()

    def scalar(self, statement: sa.Executable, parameters: Any = None) -> Any:
        """The first column of the first row, or None."""
        return self.execute(statement, parameters).scalar()

    def limit_statements(self, seconds: float) -> None:
        """Let PostgreSQL end each statement of this transaction that takes longer; SQLite has no such thing."""
        if self.dialect != "sqlite":
            self.execute(_LIMIT, {"milliseconds": str(int(seconds * 1000))})

    def end_statement(self) -> None:
        """End the statement that runs now, from another thread; PostgreSQL has `limit_statements` for that."""
        if self.dialect == "sqlite":
            raw: Any = self._connection.connection.driver_connection
            raw.interrupt()

    @property
    def connection(self) -> Connection:
        """The connection itself, for core only: plugins are not given it."""
        return self._connection


_LIMIT = sa.text("select set_config('statement_timeout', :milliseconds, true)")


class Snapshot(Protocol):
    """Something that answers a compiled read: text in the driver's own parameter style, and its parameters."""

    async def fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]: ...


def loads(data: str | bytes | float) -> Any:
    """A JSON value from its text; SQLite keeps a JSON column's bare number as a number."""
    return orjson.loads(data) if isinstance(data, str | bytes) else data


def dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


class Database:
    """Where everything is kept. Opened by `create_app` and the commands; closed by them.

    Raises: UnavailableError from everything that asks it, where it does not answer.
    """

    def __init__(self, url: str, *, pool_size: int = 10, clock: Callable[[], datetime] | None = None) -> None:
        self.url = make_url(url)
        self._reach = Reach()
        self.clock = clock or (lambda: datetime.now(UTC))
        self.dialect = self.url.get_backend_name()
        self._backend: _SqliteBackend | _PostgresBackend
        if self.url.drivername == "sqlite":
            self._backend = _SqliteBackend(self.url, pool_size)
        elif self.url.drivername == "postgresql+asyncpg":
            self._backend = _PostgresBackend(self.url, pool_size)
        else:
            raise StartupError(
                f"the database URL's scheme is {self.url.drivername!r}; use sqlite:///FILE or postgresql+asyncpg://USER:PASSWORD@HOST/NAME"
            )

    @property
    def sql_dialect(self) -> Dialect:
        """SQLAlchemy's dialect, for building a statement's text."""
        return self._backend.sql_dialect

    async def read(self, function: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(tx, …)` in one read-only snapshot."""
        return await self._run(False, lambda tx: function(tx, *args, **kwargs))

    async def write(self, function: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(tx, …)` in one transaction: all of it happens, or nothing."""
        return await self._run(True, lambda tx: function(tx, *args, **kwargs))

    async def _run(self, write: bool, call: Callable[[Tx], T]) -> T:
        inside = False

        def run(tx: Tx) -> T:
            nonlocal inside
            inside = True
            answer = call(tx)
            inside = False
            return answer

        with self._reach(lambda: not inside):
            return await self._backend.run(write, run)

    async def fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Answer one compiled read on a connection of its own."""
        try:
            rows = await self._backend.fetch(sql, parameters)
        except Exception as error:
            self._reach.check(error)
            raise
        self._reach.found()
        return rows

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Several compiled reads that see one state of the database."""
        with self._reach():
            async with self._backend.snapshot() as snapshot:
                yield Reached(snapshot.fetch, self._reach)

    async def close(self) -> None:
        """Give every connection back."""
        await self._backend.close()


def database_exists(url: str) -> bool:
    """False for a SQLite file that is not there; looking into it would make it. A server has to be asked."""
    parsed = make_url(url)
    return parsed.get_backend_name() != "sqlite" or not parsed.database or Path(parsed.database).exists()


def must_exist(url: str) -> None:
    """Refuse a SQLite file that is not there.

    Raises: StartupError.
    """
    if not database_exists(url):
        file = Path(make_url(url).database or "").resolve()
        raise StartupError(f"there is no database {file}; run scrm db upgrade to make it, or name your settings with --config")


class _SqliteBackend:
    """Threads over sqlite3: one that writes, several that read. Every use sees the file that has the name by then."""

    def __init__(self, url: sa.URL, pool_size: int) -> None:
        if not url.database or url.database == ":memory:":
            raise StartupError("the SQLite database must be a file, as in sqlite:///scrm.db")
        self.path = Path(url.database).resolve()
        self._made = self.path.exists()
        self.engine = self._engine(url, "begin immediate", cache_mib=64)
        self.reader = self._engine(url, "begin", cache_mib=16)
        self.sql_dialect = self.engine.dialect
        self._writer = ThreadPoolExecutor(1, "scrm-writer")
        self._readers = ThreadPoolExecutor(max(2, min(pool_size, 8)), "scrm-reader")
        self._local = threading.local()
        self._raw: list[sqlite3.Connection] = []

    def _engine(self, url: sa.URL, begin: str, cache_mib: int) -> Engine:
        engine = sa.create_engine(url, creator=self._connect, json_serializer=dumps, json_deserializer=loads)
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute(f"pragma cache_size = -{cache_mib * 1000}"))
        sa.event.listen(engine, "connect", self._note_file)
        sa.event.listen(engine, "checkout", self._check_file)
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine

    def _connect(self, mode: str = "rw") -> sqlite3.Connection:
        """A file that was there is not made again: an empty one in its place would be worse than none."""
        mode = "rwc" if mode == "rw" and not self._made else mode
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=PATIENCE
        )
        self._made = True
        return connection

    def _note_file(self, _connection: object, record: Any) -> None:
        record.info["file"] = self._file()

    def _check_file(self, _connection: object, record: Any, _proxy: object) -> None:
        if record.info["file"] != self._file():
            raise sa.exc.DisconnectionError("the database file was taken away")

    def _file(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    async def run(self, write: bool, call: Callable[[Tx], T]) -> T:
        executor = self._writer if write else self._readers
        return await asyncio.get_running_loop().run_in_executor(executor, self._run, write, call)

    def _run(self, write: bool, call: Callable[[Tx], T]) -> T:
        with (self.engine if write else self.reader).begin() as connection:
            return call(Tx(connection))

    async def fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        return await _Query(self._own, sql, parameters).run(self._readers)

    def _own(self) -> sqlite3.Connection:
        file = self._file()
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None and self._local.file != file:
            self._local.connection = None
            self._raw.remove(connection)
            connection.close()
            connection = None
        if connection is None:
            connection, self._local.file = self._open(), file
            self._local.connection = connection
        return connection

    def _open(self) -> sqlite3.Connection:
        connection = self._connect("ro")
        connection.execute("pragma cache_size = -16000")
        self._raw.append(connection)
        return connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        loop = asyncio.get_running_loop()
        connection = await loop.run_in_executor(self._readers, self._open)
        try:
            connection.execute("begin")
            yield _SqliteSnapshot(connection, self._readers)
        finally:
            self._raw.remove(connection)
            connection.close()

    async def close(self) -> None:
        self._writer.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        for connection in self._raw:
            connection.close()
        self._raw.clear()
        self.engine.dispose()
        self.reader.dispose()


class _SqliteSnapshot:
    def __init__(self, connection: sqlite3.Connection, executor: ThreadPoolExecutor) -> None:
        self._connection = connection
        self._executor = executor

    async def fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        return await _Query(lambda: self._connection, sql, parameters).run(self._executor)


class _Query:
    """One query in a thread of its own. Who stops waiting for it ends it, so that the thread is free for others."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], sql: str, parameters: Sequence[Any]) -> None:
        self._connect = connect
        self._asked = sql, parameters
        self._lock = threading.Lock()
        self._running: sqlite3.Connection | None = None
        self._given_up = False

    async def run(self, executor: ThreadPoolExecutor) -> list[tuple[Any, ...]]:
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, self._run)
        except asyncio.CancelledError:
            with self._lock:
                self._given_up = True
                if self._running is not None:
                    self._running.interrupt()
            raise

    def _run(self) -> list[tuple[Any, ...]]:
        connection = self._connect()
        with self._lock:
            if self._given_up:
                return []
            self._running = connection
        try:
            return connection.execute(*self._asked).fetchall()
        finally:
            with self._lock:
                self._running = None


def _configure_sqlite(connection: Any, _record: object) -> None:
    # What many batches change is copied from the write-ahead log into the file once, not after each of them: from 32 MiB on.
    for pragma in ("journal_mode = wal", "synchronous = normal", "foreign_keys = on", "wal_autocheckpoint = 8000"):
        connection.execute(f"pragma {pragma}")


_SESSION = {"jit": "off", "application_name": "scrm"}
"""Compiling a statement of many small parts to machine code takes seconds, running it milliseconds."""


class _PostgresBackend:
    """asyncpg: SQLAlchemy's pool for services, a bare pool for compiled reads."""

    def __init__(self, url: sa.URL, pool_size: int) -> None:
        self.url = url
        self.pool_size = pool_size
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=PATIENCE,
            json_serializer=dumps,
            json_deserializer=loads,
            connect_args={"server_settings": _SESSION, "timeout": CONNECTING},
        )
        sa.event.listen(self.engine.sync_engine, "checkout", _refuse_closed)
        self.reader = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self.sql_dialect = self.engine.dialect
        given = {**self.sql_dialect.create_connect_args(url)[1], "server_settings": _SESSION, "timeout": CONNECTING}
        self._reads = RawReads(given, pool_size, PATIENCE)
        self._left: set[asyncio.Task[Any]] = set()

    async def run(self, write: bool, call: Callable[[Tx], T]) -> T:
        """A transaction in a task of its own: who gives up waiting goes at once, and it is undone behind."""
        task = asyncio.create_task(self._run(write, call))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancel():
                self._left.add(task)
                task.add_done_callback(self._end)
            raise

    async def _run(self, write: bool, call: Callable[[Tx], T]) -> T:
        async with (self.engine if write else self.reader).begin() as connection:
            return await connection.run_sync(lambda sync: call(Tx(sync)))

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # has been looked at

    async def fetch(self, sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        return await self._reads.fetch(sql, parameters)

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        return self._reads.snapshot()

    async def close(self) -> None:
        if self._left:
            await asyncio.wait(self._left)
        await self._reads.close()
        await self.engine.dispose()


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """A connection that the server has ended meanwhile is known for it without a round trip; the pool then opens another."""
    if connection.driver_connection.is_closed():
        raise sa.exc.DisconnectionError("the server has ended the connection")


def json_rows(value: Sequence[Any]) -> str:
    """Rows, or single values, for a set-based statement: one JSON array with times and ids as SQLite keeps them."""
    rows = [{str(key): _plain(item) for key, item in row.items()} if isinstance(row, Mapping) else _plain(row) for row in value]
    return orjson.dumps(rows).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return value.hex
    return instant_text(value) if isinstance(value, datetime) else value
