"""A run of the RFM layering against the bare window query on the same log, interleaved in one process; on both engines.

The bare query sums the log by person and scores everybody, and returns one line; the run also writes everybody's row with
segment, layers and health score, and counts what there is to count. Before that, a run a month after another one, when people
have moved.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from datetime import datetime, timedelta
from typing import Any

import psutil
import sqlalchemy as sa
from msgspec.structs import replace

from bench.years import LAST_DAY, UNTIL, fill
from scrm.config import PluginSection, Settings
from scrm.db import Database, Tx
from scrm.events.consumers import consumer_of
from scrm.events.log import append, core_event
from scrm.events.sequencer import sequence
from scrm.events.steps import advance
from scrm.loader import load_plugins
from scrm.provision import provision
from scrm.testing import postgres_server

MONTH = timedelta(days=30)


def run(users: int, events: int, rounds: int, engine: str) -> None:
    """Print the figures of `sqlite`, of `postgresql` or of `both`."""
    if engine != "sqlite":
        with postgres_server(on_disk=True) as server, server.database() as url:
            asyncio.run(measure("PostgreSQL", url, users, events, rounds))
    if engine != "postgresql":
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measure("SQLite", f"sqlite:///{folder}/bench.db", users, events, rounds))


async def measure(engine: str, url: str, users: int, events: int, rounds: int) -> None:
    """One engine: a run a month after another one; then the bare query and a run as of another instant, in turns."""
    settings = Settings(database_url=url, plugins={"rfm": PluginSection(enabled=True, currency="CNY")}, handler_seconds=3600)
    plugins = load_plugins(settings)
    await provision(settings, plugins)
    db = Database(url)
    consumer = replace_fields(consumer_of(plugins.active[0], settings), statement_seconds=3600.0)
    try:
        await db.write(fill, users, events)
        if db.dialect == "postgresql":
            await db.write(lambda tx: tx.execute(sa.text("analyze")))
        await caught_up(db, consumer)

        async def run_as_of(as_of: datetime) -> float:
            await db.write(due, as_of, settings)
            await sequence(db)
            return await timed(lambda: caught_up(db, consumer))

        await run_as_of(UNTIL - MONTH)
        async with grown() as memory:
            later = await run_as_of(UNTIL - timedelta(microseconds=rounds))
        moved = await db.read(lambda tx: tx.scalar(sa.text("select count(*) from events where type = 'rfm.segment_changed'")))
        print(
            f"rfm: {engine:10}  {users} users, {events} events, a run a month after another: {later:.2f} s, {moved} people in"
            f" another segment, each announced; memory +{memory.mib:.0f} MiB"
        )
        bare, made = [], []
        async with grown() as memory:
            for n in range(rounds):
                bare.append(await timed(lambda: db.read(bare_query, db.dialect)))
                made.append(await run_as_of(UNTIL - timedelta(microseconds=rounds - n - 1)))
        rows, ms = await db.read(counted)
        asked, took = statistics.median(bare), statistics.median(made)
        print(
            f"rfm: {engine:10}  {users} users, {events} events: bare {asked:.2f} s, run {took:.2f} s ({took / asked:.2f} times),"
            f" {rows} people, {ms} ms of it said by the run, memory +{memory.mib:.0f} MiB; median of {rounds}"
        )
    finally:
        await db.close()


@dataclass
class Grown:
    """By how much the resident memory was larger at most than at the start."""

    mib: float = 0.0


@asynccontextmanager
async def grown() -> AsyncIterator[Grown]:
    """Look at the memory of this process while the block runs."""
    process, found = psutil.Process(), Grown()
    before = process.memory_info().rss

    async def look() -> None:
        while True:
            found.mib = max(found.mib, (process.memory_info().rss - before) / 2**20)
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    try:
        yield found
    finally:
        looking.cancel()


async def timed(call: Callable[[], Awaitable[Any]]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    await call()
    return time.perf_counter() - start


async def caught_up(db: Database, consumer: Any) -> None:
    """Let the plugin read the log to its end."""
    while not (await advance(db, consumer, at=db.clock())).idle:
        pass


def due(tx: Tx, as_of: datetime, settings: Settings) -> None:
    """A run is due."""
    event = core_event("rfm.run_due", None, {"asOf": as_of.isoformat()}, as_of, settings.zone)
    append(tx, [replace(event, source="job:rfm")])


def bare_query(tx: Tx, dialect: str) -> Any:
    """The scores alone."""
    postgresql = dialect == "postgresql"
    between = f"date '{LAST_DAY}' - last" if postgresql else f"cast(julianday('{LAST_DAY}') - julianday(last) as integer)"
    return tx.rows(sa.text(BARE.format(between=between)), {"as_of": UNTIL if postgresql else UNTIL.isoformat()})


def counted(tx: Tx) -> tuple[int, int]:
    """How many rows the last run wrote, and how long it says that it took."""
    row = tx.rows(sa.text("select id, duration_ms from rfm_runs order by as_of desc limit 1"))[0]
    rows = tx.scalar(sa.text("select count(*) from rfm_people where run_id = :id"), {"id": row.id})
    return int(rows), int(row.duration_ms)


BARE = """
select count(*), sum(r), sum(f), sum(m), max({between}) from (
  select last, (5 * count(*) over (order by last) + n - 1) / n as r,
    1 + 5 * (rank() over (order by frequency) - 1) / n as f, 1 + 5 * (rank() over (order by monetary) - 1) / n as m
  from (select user_id, max(business_date) as last, count(distinct business_date) as frequency,
      sum(case when type = 'order.paid' then amount_minor else -amount_minor end) as monetary, count(*) over () as n
    from events where type in ('order.paid', 'order.refunded') and occurred_at <= :as_of and currency = 'CNY'
      and user_id is not null
    group by user_id) people) scored"""
