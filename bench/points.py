"""Points and levels: redemptions against the bare statements, orders projected by loyalty and tiers, a review of everybody."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, cycle
from typing import Any

import asyncpg
import orjson
import psutil
import sqlalchemy as sa

from bench.ingest import backends, follow
from bench.load import Wire, post, wires
from bench.projecting import Orders, plugins_of, project, recorded, review, settings_of
from bench.reads import served
from bench.served import settings_for
from scrm.config import Settings
from scrm.db import Database, Tx
from scrm.events.consumers import Consumer, consumer_of
from scrm.events.decide import decide
from scrm.events.sequencer import sequence
from scrm.testing import postgres_server
from scrm.users.models import users
from scrm_loyalty.mutations import redeem_points

ACCOUNTS = 1_000
CONNECTIONS = 8
RICH = 10**14
"""Minor units that everybody has paid, in ten orders: nobody runs out of points."""
Way = Callable[[int, uuid.UUID, int], Awaitable[None]]
"""Takes one from an account: which of the callers it is, the account, and a number that none had before."""
WAYS = ("scrm", "decision", "bare")
REDEEM = "mutation($i: RedeemPointsInput!) { redeemPoints(input: $i) { entry { id points } errors { code } } }"


def run(orders: int, members: int, seconds: float, rounds: int) -> None:
    """Print the figures."""
    for engine, url, copy in engines():
        with url() as fresh:
            asyncio.run(redemptions(engine, fresh, seconds, rounds))
        with url() as fresh:
            asyncio.run(recorded(fresh, orders))
            project(engine, Orders(orders, fresh, copy))
        with url() as fresh:
            asyncio.run(review(engine, fresh, members))


def engines() -> Iterator[tuple[str, Callable[[], Any], Callable[[str], Any]]]:
    """Each engine with what makes an empty database and what copies one, for a block each."""
    with tempfile.TemporaryDirectory() as folder:
        names = count()

        @contextlib.contextmanager
        def empty() -> Iterator[str]:
            yield f"sqlite:///{folder}/bench{next(names)}.db"

        @contextlib.contextmanager
        def copied(url: str) -> Iterator[str]:
            with empty() as other:
                with sqlite3.connect(url.removeprefix("sqlite:///")) as found:
                    found.execute("vacuum into ?", (other.removeprefix("sqlite:///"),))
                found.close()
                yield other

        yield "SQLite", empty, copied
    with postgres_server(on_disk=True) as server:
        yield "PostgreSQL", server.database, server.database


# ---- redemptions


@dataclass
class Spending:
    """Everybody who has points, as each way names them."""

    url: str
    settings: Settings
    consumer: Consumer
    db: Database
    key: str
    people: list[uuid.UUID]
    ids: Iterator[int] = field(default_factory=count)


@dataclass
class Spent:
    """What a measurement took: how many redemptions a second, and the CPU of all processes for one of them in microseconds."""

    per_second: float
    cpu: float


async def redemptions(engine: str, url: str, seconds: float, rounds: int) -> None:
    """One point at a time, each with a key of its own: of one account, and of a thousand in turn."""
    async with spending(url) as made:
        with served(url) as (port, process):
            async with wires(port, CONNECTIONS) as opened, bare(url, made.people) as redeem_bare:
                ways = {"scrm": _over_http(made, opened), "decision": _decision(made), "bare": redeem_bare}
                cases = {"one account": made.people[:1], f"{ACCOUNTS} accounts": made.people}
                found = await in_turn(made, ways, cases, seconds, rounds, process)
        for whose in cases:
            print(f"points: {engine:10}  redemptions of {whose:13} {shown(found, whose)}")


async def in_turn(
    made: Spending, ways: Mapping[str, Way], cases: Mapping[str, list[uuid.UUID]], seconds: float, rounds: int,
    server: psutil.Process,
) -> dict[tuple[str, str], list[Spent]]:  # fmt: skip
    """Every case in every way, round by round; the first round warms up."""
    found: dict[tuple[str, str], list[Spent]] = {}
    for turn in range(rounds + 1):
        for case, accounts in cases.items():
            for way in WAYS:
                taken = await spend(made, ways[way], accounts, seconds if turn else seconds / 4, server)
                found.setdefault((case, way), []).extend([taken] if turn else [])
    return found


def shown(found: dict[tuple[str, str], list[Spent]], whose: str) -> str:
    """A case's figures."""
    rates = {way: statistics.median(each.per_second for each in found[whose, way]) for way in WAYS}
    cpu = {way: statistics.median(each.cpu for each in found[whose, way]) for way in WAYS}
    scrm, alone = (rates[way] / rates["bare"] for way in WAYS[:2])
    shares = f"{scrm:.0%} of the bare statements, the decision alone {alone:.0%}"
    return f"{shares}; " + ", ".join(f"{way} {rates[way]:.0f}/s (CPU {cpu[way]:.0f} µs)" for way in WAYS)


async def spend(made: Spending, redeem: Way, people: list[uuid.UUID], seconds: float, server: psutil.Process) -> Spent:
    """So many callers at once, each asking again as soon as it is answered."""
    whose, done, database = cycle(people), 0, made.db.url.database or ""
    start, cpu = time.perf_counter(), _cpu(server) + backends(database)

    async def caller(place: int) -> None:
        nonlocal done
        while time.perf_counter() - start < seconds:
            await redeem(place, next(whose), next(made.ids))
            done += 1

    await asyncio.gather(*(caller(place) for place in range(CONNECTIONS)))
    took, used = time.perf_counter() - start, _cpu(server) + backends(database) - cpu
    return Spent(done / took, used / done * 1e6)


def _cpu(server: psutil.Process) -> float:
    return float(sum(server.cpu_times()[:2])) + time.process_time()


def _over_http(made: Spending, opened: list[Wire]) -> Way:
    async def redeem(place: int, user: uuid.UUID, number: int) -> None:
        said = {"userId": f"User_{user.hex}", "points": 1, "reference": "bench", "idempotencyKey": f"http {number}"}
        asked = orjson.dumps({"query": REDEEM, "variables": {"i": said}})
        status, body = await opened[place].ask(post("/graphql", asked, {"Authorization": f"Bearer {made.key}"}))
        if status != 200 or b'"points":-1' not in body:
            raise AssertionError(body[:500])

    return redeem


def _decision(made: Spending) -> Way:
    async def redeem(_place: int, user: uuid.UUID, number: int) -> None:
        said = {"userId": user.hex, "points": 1, "reason": None, "reference": "bench"}
        key = f"decision {number}"
        await decide(made.db, made.consumer, redeem_points, said, key=key, at=made.db.clock(), actor="bench")

    return redeem


@asynccontextmanager
async def spending(url: str) -> AsyncIterator[Spending]:
    """A thousand people with points."""
    settings = settings_for(url)
    key = await recorded(url, 10 * ACCOUNTS, people=ACCOUNTS, amount=RICH // 10)
    plugins = plugins_of(settings_of(url, ["loyalty"]))
    db = Database(url, pool_size=CONNECTIONS)
    try:
        consumer = consumer_of(plugins.active[0], settings)
        await sequence(db)
        await follow(db, consumer)
        yield Spending(url, settings, consumer, db, key, await db.read(_everybody))
    finally:
        await db.close()


def _everybody(tx: Tx) -> list[uuid.UUID]:
    return [row.id for row in tx.rows(sa.select(users.c.id).order_by(users.c.id))]


# ---- the bare statements

_TABLES = (
    "create table bare_accounts (id {id} primary key, balance bigint not null check (balance >= 0))",
    "create table bare_entries (id {id} primary key, account_id {id} not null references bare_accounts, points bigint not null,"
    " occurred_at {at} not null, idempotency_key text not null unique)",
)
_TAKE = "update bare_accounts set balance = balance - 1 where id = $1 and balance >= 1"
_WRITE = "insert into bare_entries (id, account_id, points, occurred_at, idempotency_key) values ($1, $2, -1, $3, $4)"


@asynccontextmanager
async def bare(url: str, people: list[uuid.UUID]) -> AsyncIterator[Way]:
    """A conditional UPDATE and an INSERT in one transaction, by as many connections; on SQLite by its one writer."""
    if url.startswith("sqlite"):
        with ThreadPoolExecutor(1) as thread:
            connection = await asyncio.get_running_loop().run_in_executor(thread, _bare_sqlite, url, people)

            async def redeem_sqlite(_place: int, user: uuid.UUID, number: int) -> None:
                await asyncio.get_running_loop().run_in_executor(thread, _redeem_sqlite, connection, user, number)

            yield redeem_sqlite
            await asyncio.get_running_loop().run_in_executor(thread, connection.close)
        return
    plain = url.replace("+asyncpg", "")
    async with asyncpg.create_pool(plain, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        for table in _TABLES:
            await pool.execute(table.format(id="uuid", at="timestamptz"))
        await pool.executemany("insert into bare_accounts values ($1, $2)", [(person, RICH) for person in people])
        held = [await pool.acquire() for _ in range(CONNECTIONS)]

        async def redeem(place: int, user: uuid.UUID, number: int) -> None:
            async with held[place].transaction():
                if await held[place].execute(_TAKE, user) != "UPDATE 1":
                    raise AssertionError(user)
                await held[place].execute(_WRITE, uuid.uuid4(), user, datetime.now(UTC), f"bare {number}")

        try:
            yield redeem
        finally:
            for each in held:
                await pool.release(each)


def _bare_sqlite(url: str, people: list[uuid.UUID]) -> sqlite3.Connection:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=20)
    for statement in ("pragma synchronous = normal", "pragma foreign_keys = on", "begin immediate"):
        connection.execute(statement)
    for table in _TABLES:
        connection.execute(table.format(id="text", at="text"))
    connection.executemany("insert into bare_accounts values (?, ?)", [(person.hex, RICH) for person in people])
    connection.execute("commit")
    return connection


def _redeem_sqlite(connection: sqlite3.Connection, user: uuid.UUID, number: int) -> None:
    connection.execute("begin immediate")
    if connection.execute(_TAKE.replace("$1", "?"), (user.hex,)).rowcount != 1:
        raise AssertionError(user)
    said = (uuid.uuid4().hex, user.hex, datetime.now(UTC).isoformat(), f"bare {number}")
    connection.execute(_WRITE.replace("$1", "?").replace("$2", "?").replace("$3", "?").replace("$4", "?"), said)
    connection.execute("commit")
