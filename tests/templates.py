"""Migrated databases without rows, made once and copied for every test."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from scrm.loader import GROUP, contribution_of
from scrm.migrate import upgrade
from scrm.plugin import Contribution
from scrm.testing import PostgresServer


@dataclass(frozen=True)
class Installed:
    """A plugin, as far as migrations care."""

    contribution: Contribution


def built_in() -> list[Installed]:
    """The plugins that come with scrm."""
    points = distribution("scrm").entry_points.select(group=GROUP)
    return [Installed(contribution_of(point.name, point.load, 120)) for point in points]


async def migrate(url: str, plugins: Sequence[Installed]) -> None:
    """Bring a database up to date, as `scrm db upgrade` does."""
    assert [one.error for one in await upgrade(url, plugins) if one.error is not None] == []


def sqlite_file(path: Path, plugins: Sequence[Installed] = ()) -> Path:
    """Make a migrated SQLite file of which a copy is whole."""
    asyncio.run(migrate(f"sqlite:///{path}", plugins))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    return path


@contextlib.contextmanager
def postgres_database(server: PostgresServer, plugins: Sequence[Installed] = ()) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database that lives as long as the block."""
    with server.database() as url:
        asyncio.run(migrate(url, plugins))
        yield url
