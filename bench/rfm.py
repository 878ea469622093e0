"""A run of the RFM layering against the bare window query on the same log, interleaved in one process; on both engines.

The bare query sums the log by person and scores everybody, and returns one line; the run also writes everybody's row with
segment, layers and health score, and counts what there is to count.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import sqlalchemy as sa
from msgspec.structs import replace

from scrm.config import PluginSection, Settings
from scrm.db import Database, Tx
from scrm.events.consumers import consumer_of
from scrm.events.log import append, core_event
from scrm.events.sequencer import sequence
from scrm.events.steps import step
from scrm.loader import load_plugins
from scrm.provision import provision
from scrm.testing import postgres_server

AS_OF = datetime(2026, 6, 30, 15, 59, 59, 999999, tzinfo=UTC)
DAY = "2026-06-30"


def run(users: int, events: int, rounds: int) -> None:
    """Print the figures."""
    with postgres_server(on_disk=True) as server, server.database() as url:
        asyncio.run(measure("PostgreSQL", url, users, events, rounds))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure("SQLite", f"sqlite:///{folder}/bench.db", users, events, rounds))


async def measure(engine: str, url: str, users: int, events: int, rounds: int) -> None:
    """One engine: the bare query and a run as of another instant, in turns."""
    settings = Settings(database_url=url, plugins={"rfm": PluginSection(enabled=True, currency="CNY")}, handler_seconds=600)
    plugins = load_plugins(settings)
    await provision(settings, plugins)
    db = Database(url)
    consumer = consumer_of(plugins.active[0], settings)
    try:
        await db.write(fill, users, events)
        if db.dialect == "postgresql":
            await db.write(lambda tx: tx.execute(sa.text("analyze")))
        await caught_up(db, consumer)
        bare, made = [], []
        before = psutil.Process().memory_info().rss
        for n in range(rounds):
            bare.append(await timed(lambda: db.read(bare_query, db.dialect)))
            await db.write(due, n, settings)
            await sequence(db)
            made.append(await timed(lambda: caught_up(db, consumer)))
        grown = (psutil.Process().memory_info().rss - before) / 2**20
        rows, ms = await db.read(counted)
        asked, took = statistics.median(bare), statistics.median(made)
        print(
            f"rfm: {engine:10}  {users} users, {events} events: bare {asked:.2f} s, run {took:.2f} s ({took / asked:.2f} times),"
            f" {rows} people, {ms} ms of it said by the run, memory +{grown:.0f} MiB; median of {rounds}"
        )
    finally:
        await db.close()


async def timed(call: Callable[[], Awaitable[Any]]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    await call()
    return time.perf_counter() - start


async def caught_up(db: Database, consumer: Any) -> None:
    """Let the plugin read the log to its end."""
    while not (await db.write(step, consumer, at=db.clock())).idle:
        pass


def due(tx: Tx, n: int, settings: Settings) -> None:
    """A run is due, each as of another instant."""
    as_of = (AS_OF - timedelta(microseconds=100 - n)).isoformat()
    event = core_event("rfm.run_due", None, {"asOf": as_of}, AS_OF, settings.zone)
    append(tx, [replace(event, source="job:rfm")])


def bare_query(tx: Tx, dialect: str) -> Any:
    """The scores alone."""
    between = f"date '{DAY}' - last" if dialect == "postgresql" else f"cast(julianday('{DAY}') - julianday(last) as integer)"
    return tx.rows(sa.text(BARE.format(between=between)), {"as_of": AS_OF if dialect == "postgresql" else AS_OF.isoformat()})


def counted(tx: Tx) -> tuple[int, int]:
    """How many rows the last run wrote, and how long it says that it took."""
    row = tx.rows(sa.text("select id, duration_ms from rfm_runs order by as_of desc limit 1"))[0]
    rows = tx.scalar(sa.text("select count(*) from rfm_people where run_id = :id"), {"id": row.id})
    return int(rows), int(row.duration_ms)


def fill(tx: Tx, users: int, events: int) -> None:
    """People and their purchases over two years, some with many and most with few, made by the database itself."""
    for statement in POSTGRESQL if tx.dialect == "postgresql" else SQLITE:
        size = {"users": users, "events": events}
        tx.execute(sa.text(statement), {name: value for name, value in size.items() if f":{name}" in statement})


BARE = """
select count(*), sum(r), sum(f), sum(m), max({between}) from (
  select last, (5 * count(*) over (order by last) + n - 1) / n as r,
    1 + 5 * (rank() over (order by frequency) - 1) / n as f, 1 + 5 * (rank() over (order by monetary) - 1) / n as m
  from (select user_id, max(business_date) as last, count(distinct business_date) as frequency,
      sum(case when type = 'order.paid' then amount_minor else -amount_minor end) as monetary, count(*) over () as n
    from events where type in ('order.paid', 'order.refunded') and occurred_at <= :as_of and currency = 'CNY'
      and user_id is not null
    group by user_id) people) scored"""
COLUMNS = """insert into events (id, position, type, user_id, recorded_user_id, occurred_at, received_at, business_date,
  amount_minor, currency, properties, source, external_id, late, digest) """
POSTGRESQL = (
    """insert into users (id, attributes, created_at, updated_at)
    select ('01900000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, '{}', now(), now()
    from generate_series(0, cast(:users as bigint) - 1) n""",
    f"""{COLUMNS}
    select ('01900000-0000-7000-8000-' || lpad(to_hex(e), 12, '0'))::uuid, e + 1000, 'order.paid', whose, whose, at, now(),
      (at at time zone 'Asia/Shanghai')::date, 100 + (e * 7919) % 100000, 'CNY',
      json_build_object('orderId', 'o' || e, 'store', 'x'), 'bench', e::text, false, ''
    from (select e, ('01900000-0000-7000-9000-' || lpad(to_hex((cast(:users as bigint)
        * power(((e * 7907::bigint) % 100003) / 100003::float, 2))::bigint % cast(:users as bigint)), 12, '0'))::uuid as whose,
      timestamptz '2026-06-30 12:00+08' - ((e * 104729::bigint) % 1051200) * interval '1 minute' as at
      from generate_series(1, cast(:events as bigint)) e) made""",
    "update log_head set position = :events + 1000",
)
SQLITE = (
    """insert into users (id, attributes, created_at, updated_at)
    with recursive n(n) as (select 0 union all select n + 1 from n where n + 1 < :users)
    select printf('0190000000007000a000%012x', n), '{}', '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z' from n""",
    f"""{COLUMNS}
    with recursive e(e) as (select 1 union all select e + 1 from e where e < :events),
    made as materialized (select e, printf('0190000000007000a000%012x',
      cast(:users * ((e * 7907) % 100003 / 100003.0) * ((e * 7907) % 100003 / 100003.0) as integer) % :users) as whose,
      (e * 104729) % 1051200 as ago from e)
    select printf('01900000000070008000%012x', e), e + 1000, 'order.paid', whose, whose,
      strftime('%Y-%m-%dT%H:%M:00.000000Z', '2026-06-30 04:00', (-ago) || ' minutes'), '2026-07-01T00:00:00.000000Z',
      date('2026-06-30 12:00', (-ago) || ' minutes'), 100 + (e * 7919) % 100000, 'CNY',
      '{{"orderId":"o' || e || '","store":"x"}}', 'bench', cast(e as text), 0, '' from made""",
    "analyze",
)
