"""Databases that go away and come back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import asyncpg
import psutil
import pytest

from scrm.migrate import upgrade
from scrm.testing import PostgresServer, postgres_server


class Engine(Protocol):
    """A database that can be taken away."""

    @property
    def url(self) -> str: ...
    def stop(self) -> None:
        """Take it away."""

    def start(self) -> None:
        """Bring it back as it was."""


@dataclass
class File:
    """A SQLite file that is renamed."""

    path: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def stop(self) -> None:
        self.path.rename(self.path.with_suffix(".away"))

    def start(self) -> None:
        self.path.with_suffix(".away").rename(self.path)


@dataclass
class Server:
    """A PostgreSQL server that is stopped."""

    server: PostgresServer
    url: str
    crash: bool = False

    def stop(self) -> None:
        self.server.stop(crash=self.crash)

    def start(self) -> None:
        self.server.start()

    async def processes(self) -> list[psutil.Process]:
        """Its own, the first one first."""
        connection = await asyncpg.connect(self.url.replace("+asyncpg", ""))
        first = psutil.Process(connection.get_server_pid()).parent()
        await connection.close()
        assert first is not None
        return [first, *first.children()]


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that only these tests use, so that they may stop it."""
    with postgres_server(own=True) as server:
        yield server


@pytest.fixture(scope="session")
def own_template(own_postgres: PostgresServer) -> Iterator[str]:
    """A migrated database on it, to copy."""
    with own_postgres.database() as url:
        asyncio.run(upgrade(url))
        yield url


@pytest.fixture
def server(own_postgres: PostgresServer, own_template: str) -> Iterator[Server]:
    """A migrated database on a server that can be stopped; what it has said is committed outlives a crash."""
    with own_postgres.database(own_template) as url:
        asyncio.run(_durable(url))
        yield Server(own_postgres, url)


async def _durable(url: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(f'alter database "{url.rpartition("/")[2]}" set synchronous_commit = on')
    await connection.close()


@pytest.fixture
def file(tmp_path: Path, sqlite_template: Path) -> File:
    """A migrated SQLite file."""
    path = tmp_path / "scrm.db"
    shutil.copyfile(sqlite_template, path)
    return File(path)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """A migrated database that can be taken away, once on each engine."""
    found: Engine = request.getfixturevalue("file" if request.param == "sqlite" else "server")
    return found
