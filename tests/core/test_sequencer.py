"""Positions: every committed event gets one, in the order of writing, without a gap, whoever asks and when."""

import asyncio
import random
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from scrm.db import Database, Tx
from scrm.events.log import Entry, NumberedTwiceError, append, core_event
from scrm.events.models import events
from scrm.events.sequencer import Nudge, head, number, sequence
from tests.core.shop import event, opened, statuses

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ZONE = ZoneInfo("Asia/Shanghai")


def entry(key: str) -> Entry:
    return core_event("user.updated", None, {"fields": []}, NOW, ZONE, key=key)


async def log(db: Database) -> list[tuple[str, int | None]]:
    statement = sa.select(events.c.external_id, events.c.position).order_by(events.c.position)
    return await db.read(lambda tx: [(row.external_id, row.position) for row in tx.rows(statement)])


def only_postgresql(db: Database) -> None:
    if db.dialect == "sqlite":
        pytest.skip("one writer: the row number is the position")


async def write(connection: AsyncConnection, *keys: str, number: bool = False) -> None:
    await connection.run_sync(lambda sync: append(Tx(sync), [entry(key) for key in keys], number=number))


async def test_an_empty_log_has_head_zero(database: Database) -> None:
    assert await sequence(database) == 0
    assert await database.read(head) == 0


async def test_events_are_numbered_in_the_order_of_writing(database: Database) -> None:
    await database.write(append, [entry("c"), entry("a")])
    await database.write(append, [entry("b"), entry("a")])
    assert await sequence(database) == 3
    assert await log(database) == [("c", 1), ("a", 2), ("b", 3)]
    assert await sequence(database) == 3
    assert await database.read(head) == 3


async def test_what_commits_late_is_numbered_late_and_never_lost(database: Database) -> None:
    """The first writer has the lower `ord`; a reader that trusted it would pass over what commits after."""
    only_postgresql(database)
    engine = create_async_engine(database.url)
    async with engine.connect() as slow, engine.connect() as fast, engine.connect() as undone:
        await write(slow, "slow 1", "slow 2")
        await write(undone, "undone")
        await write(fast, "fast")
        await fast.commit()
        assert await sequence(database) == 1
        await undone.rollback()
        assert await sequence(database) == 1
        await slow.commit()
        assert await sequence(database) == 3
    await engine.dispose()
    assert await log(database) == [("fast", 1), ("slow 1", 2), ("slow 2", 3)]


async def test_while_one_numbers_nobody_waits(database: Database) -> None:
    only_postgresql(database)
    await database.write(append, [entry("a")])
    engine = create_async_engine(database.url)
    async with engine.connect() as other:
        assert await other.run_sync(lambda sync: number(Tx(sync))) == 1
        async with asyncio.timeout(30):
            assert await database.write(number) is None
            assert await sequence(database) == 0
        await other.commit()
    await engine.dispose()
    assert await database.write(number) == 0
    assert await sequence(database) == 1


async def test_many_are_numbered_in_pieces(database: Database) -> None:
    await database.write(append, [entry(f"{n:03}") for n in range(25)])
    assert await sequence(database, chunk=10) == 25
    assert await log(database) == [(f"{n:03}", n + 1) for n in range(25)]


async def test_what_is_numbered_at_once_stands_behind_what_waited_and_leaves_no_gap(database: Database) -> None:
    only_postgresql(database)
    await database.write(append, [entry("a")])
    await database.write(append, [entry("b")], number=True)
    assert await log(database) == [("a", None), ("b", None)]
    assert await sequence(database) == 2
    await database.write(append, [entry("d"), entry("b"), entry("c")], number=True)
    assert await log(database) == [("a", 1), ("b", 2), ("d", 3), ("c", 4)]
    assert await database.read(head) == 4


async def test_numbers_that_are_not_kept_are_given_again(database: Database) -> None:
    only_postgresql(database)
    engine = create_async_engine(database.url)
    async with engine.connect() as undone:
        await write(undone, "undone", number=True)
        async with asyncio.timeout(30):
            await database.write(append, [entry("a")], number=True)
        assert await log(database) == [("a", None)], "its turn is when the other has ended"
        await undone.rollback()
    await engine.dispose()
    assert await sequence(database) == 1
    await database.write(append, [entry("b")], number=True)
    assert await log(database) == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("also", [["b"], []], ids=["beside another", "alone"])
async def test_a_key_that_two_write_at_once_gets_one_number(database: Database, also: list[str]) -> None:
    only_postgresql(database)
    engine = create_async_engine(database.url)
    async with engine.connect() as first:
        await write(first, "a")
        second = asyncio.create_task(database.write(append, [entry(key) for key in ("a", *also)], number=True))
        while not await database.read(is_waited_for):
            pass
        await first.commit()
        with pytest.raises(NumberedTwiceError):
            await second
    await engine.dispose()
    assert await sequence(database) == 1
    await database.write(append, [entry("a"), entry("b")], number=True)
    assert await log(database) == [("a", 1), ("b", 2)]


async def test_who_waits_for_somebody_keeps_nobody_from_being_numbered(database: Database) -> None:
    only_postgresql(database)
    shop = await opened(database)
    await shop.record(event("ann"))
    before = await sequence(database)
    engine = create_async_engine(database.url)
    async with engine.connect() as other:
        theirs = replace(entry("x"), source="test")
        await other.run_sync(lambda sync: append(Tx(sync), [theirs]))
        waiting = asyncio.create_task(shop.record(event("ann", external_id="x")))
        while not await database.read(is_waited_for):
            pass
        await database.write(append, [entry("a")])
        async with asyncio.timeout(30):
            while await sequence(database) == before:
                pass
        await other.rollback()
        assert statuses(await waiting) == ["ACCEPTED"]
    await engine.dispose()
    assert await sequence(database) == before + 2


def is_waited_for(tx: Tx) -> bool:
    waiting = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    return bool(tx.scalar(sa.text(f"select exists ({waiting})")))


@pytest.mark.parametrize("at_once", [False, True])
async def test_writers_and_sequencers_at_once_leave_no_gap_and_no_double(database: Database, at_once: bool) -> None:
    chance = random.Random(7)
    nudge = Nudge(database)

    async def writer(name: int) -> None:
        for n in range(10):
            keys = [f"{name}-{n}-{m}" for m in range(chance.randint(1, 5))]
            await database.write(append, [entry(key) for key in keys], number=at_once and name % 4 > 0)
            written.extend(keys)
            await (nudge() if name % 2 else sequence(database))

    written: list[str] = []
    await asyncio.gather(*(writer(name) for name in range(8)))
    assert await sequence(database) == len(written)
    numbered = await log(database)
    assert [position for _, position in numbered] == list(range(1, len(written) + 1))
    assert sorted(key for key, _ in numbered) == sorted(written)
    order = dict(numbered)
    assert all(order[f"{a}-{n}-0"] < order[f"{a}-{n + 1}-0"] for a in range(8) for n in range(9))  # type: ignore[operator]


async def test_a_nudge_numbers_what_was_committed_before_it(database: Database) -> None:
    nudge = Nudge(database)

    async def record(key: str) -> None:
        await database.write(append, [entry(key)])
        await nudge()

    await asyncio.gather(*(record(str(n)) for n in range(30)))
    assert await database.read(head) == 30


async def test_a_nudge_that_fails_is_made_good_by_the_next(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    only_postgresql(database)
    nudge = Nudge(database)
    await database.write(append, [entry("a")])

    async def fail(*_: Any) -> int:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(database, "write", fail)
        await nudge()
    assert await database.read(head) == 0
    await nudge()
    assert await database.read(head) == 1
