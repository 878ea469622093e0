"""The world of the contract's tests, once on each engine for the whole session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from scrm.testing import PostgresServer
from tests.contract import small
from tests.contract.differential import Differential
from tests.contract.world import World, build, copy, opened


@pytest.fixture(scope="session")
def sqlite_world(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a SQLite database with the rows."""
    url = f"sqlite:///{tmp_path_factory.mktemp('world') / 'scrm.db'}"
    asyncio.run(build(url))
    return url


@pytest.fixture(scope="session")
def postgres_world(postgres: PostgresServer, sqlite_world: str) -> Iterator[str]:
    """The URL of a PostgreSQL database with the same rows."""
    with postgres.database() as url:
        asyncio.run(copy(sqlite_world, url))
        yield url


@pytest.fixture(scope="session")
async def sqlite(anyio_backend: str, sqlite_world: str) -> AsyncIterator[World]:
    """The world on SQLite."""
    async with opened(sqlite_world) as world:
        yield world


@pytest.fixture(scope="session")
async def postgresql(anyio_backend: str, postgres_world: str) -> AsyncIterator[World]:
    """The world on PostgreSQL."""
    async with opened(postgres_world) as world:
        yield world


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest) -> World:
    """The world, once on each engine."""
    found: World = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
async def differential(anyio_backend: str, world: World) -> Differential:
    """Compares on the world, once on each engine."""
    made = Differential(world)
    await made.prepare()
    return made


@pytest.fixture(scope="session")
def small_sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a SQLite database with the few rows."""
    url = f"sqlite:///{tmp_path_factory.mktemp('small') / 'scrm.db'}"
    asyncio.run(small.build(url))
    return url


@pytest.fixture(scope="session")
def small_postgresql(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a PostgreSQL database with the few rows."""
    with postgres.database() as url:
        asyncio.run(small.build(url))
        yield url


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def small_url(request: pytest.FixtureRequest) -> str:
    """The few rows, once on each engine."""
    url: str = request.getfixturevalue(f"small_{request.param}")
    return url


@pytest.fixture(scope="session")
async def few(anyio_backend: str, small_url: str) -> AsyncIterator[World]:
    """An app on the few rows, once on each engine."""
    async with opened(small_url) as world:
        yield world
