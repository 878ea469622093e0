"""A database with some channels, and a way to record into it: for the tests of ingestion."""

import asyncio
import itertools
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.channels.models import channels
from scrm.config import Settings
from scrm.db import Database, Tx, new_id
from scrm.events.ingest import Ingest, Undecoded
from scrm.events.log import core_event_types
from scrm.events.models import events
from scrm.events.records import IdentityRef, NewEvent, RecordResult
from scrm.events.sequencer import head
from scrm.users.models import identities

NOW = datetime(2026, 6, 1, 4, 0, tzinfo=UTC)
TYPES = {known.name: known for known in core_event_types}
SETTINGS = Settings()
numbers = itertools.count()


class Shop:
    """A database with some channels, and a way to record into it."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.ingest = Ingest(db, SETTINGS, TYPES)

    async def record(self, *items: NewEvent | Undecoded, **options: Any) -> list[RecordResult]:
        return await self.ingest.record(items, **options)

    async def rows(self, statement: sa.Select[Any]) -> list[tuple[Any, ...]]:
        return await self.db.read(lambda tx: [tuple(row) for row in tx.rows(statement)])

    async def count(self, table: sa.Table) -> int:
        return int((await self.rows(sa.select(sa.func.count()).select_from(table)))[0][0])

    async def all_at_once(self, *batches: Sequence[NewEvent]) -> list[list[RecordResult]]:
        """Record batches together, on connections that are open already: opening them would make the batches take turns."""
        await asyncio.gather(*(self.db.read(head) for _ in range(10)))
        return list(await asyncio.gather(*(self.record(*batch) for batch in batches)))

    async def types(self) -> list[str]:
        return [row[0] for row in await self.rows(sa.select(events.c.type).order_by(events.c.position))]

    async def owner(self, channel: str, external_id: str) -> uuid.UUID:
        found = await self.rows(
            sa.select(identities.c.user_id)
            .join(channels, channels.c.id == identities.c.channel_id)
            .where(channels.c.key == channel, identities.c.external_id == external_id)
        )
        owner: uuid.UUID = found[0][0]
        return owner


def make_channels(tx: Tx) -> None:
    ids = {key: new_id() for key in ("wecom", "mini", "store", "code-a", "code-b")}
    for key, channel_id in ids.items():
        parent = ids["wecom"] if key.startswith("code") else None
        row = {"id": channel_id, "key": key, "name": key, "kind": "OTHER", "role": "MAIN", "enabled": True, "config": {}}
        tx.execute(channels.insert().values(**row, parent_id=parent, created_at=NOW))


async def opened(db: Database) -> Shop:
    """The shop on a migrated database, at `NOW`."""
    db.clock = lambda: NOW
    await db.write(make_channels)
    return Shop(db)


def event(who: str | None = "ann", **said: Any) -> NewEvent:
    """An event of its own; `who` is an id on the channel `wecom`."""
    full = {
        "type": "page.viewed",
        "source": "test",
        "external_id": f"key {next(numbers)}",
        "occurred_at": NOW - timedelta(hours=1),
        "identity": IdentityRef("wecom", who) if who is not None else None,
    }
    return NewEvent(**{**full, **said})


def codes(results: Sequence[RecordResult]) -> list[list[str]]:
    return [[error.code for error in result.errors] for result in results]


def statuses(results: Sequence[RecordResult]) -> list[str]:
    return [result.status.value for result in results]
