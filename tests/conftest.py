"""Fixtures that every test can ask for."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from scrm.db import Database
from scrm.memory import settle
from scrm.testing import PostgresServer, postgres_server
from tests.compiled import compiled_once
from tests.templates import postgres_database, sqlite_file
from tests.validated import validated_once


def pytest_collection_finish() -> None:
    """Collect garbage as a server does: what is loaded by now lives until the end."""
    settle()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def _made_once() -> Iterator[None]:
    with compiled_once(), validated_once():
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL server for all tests of this process, started when the first test asks for it."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh, empty database, once on each engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'scrm.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database() as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy: the core's tables, no rows."""
    return sqlite_file(tmp_path_factory.mktemp("template") / "scrm.db")


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database to copy."""
    with postgres_database(postgres) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with all core migrations applied and nothing in it, once on each engine."""
    if request.param == "sqlite":
        path = tmp_path / "scrm.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database(request.getfixturevalue("postgres_template")) as url:
        yield url


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    """A `Database` with all core migrations applied, once on each engine."""
    database = Database(migrated_url)
    yield database
    await database.close()
