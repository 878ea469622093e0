"""Orders projected by loyalty and tiers, each alone and both by two workers; and a review of everybody's level."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import psutil
import sqlalchemy as sa

from bench.ingest import backends, event, opened
from scrm.config import PluginSection, Settings
from scrm.db import Database, Tx
from scrm.events.consumers import consumer_of, core_consumer, enable
from scrm.events.decide import Decided, decide
from scrm.events.models import consumers
from scrm.events.sequencer import head, sequence
from scrm.loader import load_plugins
from scrm.memory import settle
from scrm.plugin_set import PluginSet
from scrm.provision import provision
from scrm.users.handlers import core_handlers
from scrm.worker import follow, run_worker
from scrm_tiers.mutations import review_tiers
from scrm_tiers.rules import TiersRules

PLUGINS = ("loyalty", "tiers")
BODY = 50_000
MILLION = 1_000_000


def settings_of(url: str, names: Sequence[str] = PLUGINS) -> Settings:
    """Settings with these plugins."""
    return Settings(database_url=url, plugins={name: PluginSection(enabled=True) for name in names})


def plugins_of(settings: Settings) -> PluginSet:
    """The plugins of these settings."""
    return load_plugins(settings)


async def recorded(url: str, orders: int, *, people: int | None = None, amount: int | None = None) -> str:
    """A database with so many paid orders, ten for each person, that nobody but the core has read; returns a key for it."""
    people = people or max(orders // 10, 1)
    async with opened(url, PLUGINS) as client:
        for start in range(0, orders, BODY):
            said = (event("o", number, people) for number in range(start, min(start + BODY, orders)))
            paid = said if amount is None else ({**one, "amount": {"amountMinor": amount, "currency": "CNY"}} for one in said)
            response = await client.http.post(
                "/events", content=b"\n".join(map(orjson.dumps, paid)), headers={"content-type": "application/x-ndjson"}
            )
            if orjson.loads(response.content)["rejected"]:
                raise AssertionError(response.text[:500])
        db, settings = client.services.db, client.services.settings
        await db.write(enable, core_consumer(core_handlers(settings.zone), settings), db.clock())
        await db.write(_pass_core, await sequence(db))
        key: str = client.http.headers["authorization"].removeprefix("Bearer ")
        return key


def _pass_core(tx: Tx, position: int) -> None:
    tx.execute(sa.update(consumers).where(consumers.c.plugin == "core").values(cursor=position))
    if tx.dialect != "sqlite":
        tx.execute(sa.text("analyze"))


# ---- projecting


@dataclass(frozen=True)
class Orders:
    """A database with so many orders, and what copies it for a block."""

    count: int
    url: str
    copy: Callable[[str], Any]


def project(engine: str, orders: Orders) -> None:
    """Print what each consumer takes alone, and both in two workers."""
    for what, names, workers in (*((f"{name} alone", [name], 1) for name in PLUGINS), ("two workers", PLUGINS, 2)):
        with orders.copy(orders.url) as url:
            said = asyncio.run(projected(url, orders.count, names, workers))
        print(f"points: {engine:10}  {what}, {orders.count} orders: {said}")


async def projected(url: str, orders: int, names: Sequence[str], workers: int) -> str:
    """Wait until these consumers have read what was recorded; what it took."""
    db = Database(url, pool_size=1)
    database = db.url.database or ""
    top = await db.read(head)
    before, start = backends(database), time.perf_counter()
    processes = [
        psutil.Popen([sys.executable, "-m", "bench.projecting", url, *names], env=dict(os.environ)) for _ in range(workers)
    ]
    try:
        begun: float | None = None
        early: list[int] = []
        cpu = 0.0
        while (place := await db.read(_slowest, names)) < top:
            if any(process.poll() is not None for process in processes):
                raise AssertionError("a worker ended")
            if begun is None and place > 0:  # what it takes to start is not what it takes to project
                begun, start, before = float(place), time.perf_counter(), backends(database)
                cpu = sum(_cpu(process) for process in processes)
            if not early and place >= top // 10:
                early = [process.memory_info().rss for process in processes]
            await asyncio.sleep(0.02)
        took = time.perf_counter() - start
        used, database_used = sum(_cpu(process) for process in processes) - cpu, backends(database) - before
        late = [process.memory_info().rss for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        await db.close()
    done = (top - (begun or 0.0)) / top * orders
    spent = f"{used / done * 1e6:.0f} µs of the workers" + (
        f" + {database_used / done * 1e6:.0f} of the database" if before else ""
    )
    return (
        f"{done / took:.0f} orders/s, a million in {MILLION / done * took:.0f} s; CPU per order: {spent}; "
        f"MiB at a tenth {_mib(early or late)}, at the end {_mib(late)}"
    )


def _cpu(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def _mib(sizes: list[int]) -> str:
    return " + ".join(f"{size / 2**20:.0f}" for size in sizes)


def _slowest(tx: Tx, names: Sequence[str]) -> int:
    return min(int(row.cursor) for row in tx.rows(sa.select(consumers.c.cursor).where(consumers.c.plugin.in_(names))))


async def work(url: str, names: Sequence[str]) -> None:
    """A worker with these plugins; with one alone, only that one's consumer."""
    settings = settings_of(url, names)
    plugins, stop = plugins_of(settings), asyncio.Event()
    db = Database(url)
    settle()
    if len(names) == 1:
        await follow(db, consumer_of(plugins.active[0], settings), stop)
    else:
        await run_worker(db, settings, plugins, core_handlers(settings.zone), stop)


# ---- the review

_MEMBERS = {
    "sqlite": (
        "with recursive n(n) as (select 1 union all select n + 1 from n where n < :members)"
        " insert into tiers_accounts (id, user_id, holder_id, tier, since, failures, changes, seen_on, reviewed_on)"
        " select printf('%032x', n), printf('%032x', n), printf('%032x', n), {tier}, '2026-01-01T00:00:00.000000Z',"
        " 0, 1, :seen, :reviewed from n",
        "insert into tiers_days (account_id, counted_on, known_on, spend, orders, points_earned, growth)"
        " select id, day, day, {spend}, 1, 0, 0 from (select id, rowid as n from tiers_accounts), "
        " (select :new as day, 1 as new union all select :old, 0)",
    ),
    "postgresql": (
        "insert into tiers_accounts (id, user_id, holder_id, tier, since, failures, changes, seen_on, reviewed_on)"
        " select id, id, id, {tier}, '2026-01-01', 0, 1, :seen, :reviewed"
        " from (select n, lpad(to_hex(n), 32, '0')::uuid as id from generate_series(1, :members) n) as made",
        "insert into tiers_days (account_id, counted_on, known_on, spend, orders, points_earned, growth)"
        " select id, day, day, {spend}, 1, 0, 0"
        " from (select id, row_number() over (order by id) as n from tiers_accounts) as made,"
        " (values (cast(:new as date), 1), (cast(:old as date), 0)) as days(day, new)",
    ),
}
_TIER = "case when n % 10 = 0 then 'gold' when n % 10 < 3 then 'silver' end"
_SPEND = "case when n % 10 = 0 then (1 - new) * 600000 when n % 10 < 3 then new * 200000 else 100 end"
"""A tenth has what gold takes on a day that counts no more, and falls; two tenths keep what they have; the others have none."""


async def review(engine: str, url: str, members: int) -> None:
    """Print what the review of so many members takes, a tenth of whom fall, asked for until nobody is left."""
    settings = settings_of(url, ["tiers"])
    plugins = plugins_of(settings)
    await provision(settings, plugins)
    db = Database(url)
    consumer = consumer_of(plugins.active[0], settings)
    try:
        rules = consumer.initial_rules
        if not isinstance(rules, TiersRules):
            raise AssertionError(rules)
        await db.write(_fill, members)
        settle()
        process, database = psutil.Process(), db.url.database or ""
        first, cpu, before, start = process.memory_info().rss, time.process_time(), backends(database), time.perf_counter()
        longest = 0.0
        for part in range(members):
            asked = time.perf_counter()
            said = {"asOf": "2026-06-01T00:00:00Z"}
            at = datetime(2026, 6, 2, tzinfo=UTC)
            decided = await decide(db, consumer, review_tiers, said, key=f"part {part}", at=at, actor="bench")
            longest = max(longest, time.perf_counter() - asked)
            if not isinstance(decided, Decided):
                raise AssertionError(decided)
            if decided.properties["last"] == "0" * 32:
                break
        took = time.perf_counter() - start
        moved = await db.read(lambda tx: tx.scalar(sa.text("select count(*) from tiers_transitions where cause = 'REVIEW'")))
        used, database_used = time.process_time() - cpu, backends(database) - before
        if moved != members // 10:
            raise AssertionError(f"{moved} of {members} fell")
        print(
            f"points: {engine:10}  review of {members} members, {moved} fall: {took:.1f} s, "
            f"a million in {took * MILLION / members:.0f} s; "
            f"CPU {used:.1f} s + {database_used:.1f} of the database; longest transaction {longest:.2f} s; "
            f"{first / 2**20:.0f} MiB before, {process.memory_info().rss / 2**20:.0f} after"
        )
    finally:
        await db.close()


def _fill(tx: Tx, members: int) -> None:
    day = {"seen": "2026-05-20", "reviewed": "2026-05-01", "new": "2026-04-01", "old": "2025-04-01"}
    given: dict[str, Any] = {"members": members, **day}
    if tx.dialect != "sqlite":
        given |= {name: datetime.fromisoformat(value).date() for name, value in day.items()}
    for statement in _MEMBERS["sqlite" if tx.dialect == "sqlite" else "postgresql"]:
        text = statement.format(tier=_TIER, spend=_SPEND)
        tx.execute(sa.text(text), {name: value for name, value in given.items() if f":{name}" in text})
    tx.execute(sa.text("analyze"))


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2:]))
