"""Events per second through each door, with loyalty consuming; on both engines. Beside each figure the CPU for one event."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2
import orjson
import psutil

from scrm.app import create_app
from scrm.auth import create_key
from scrm.channels.service import create_channel
from scrm.config import CostSettings, PluginSection, ServerSettings, Settings
from scrm.db import Database
from scrm.events.consumers import Consumer, consumer_of, core_consumer, enable
from scrm.events.sequencer import sequence
from scrm.events.steps import step
from scrm.loader import load_plugins
from scrm.memory import settle
from scrm.provision import provision
from scrm.testing import postgres_server
from scrm.testing.client import Client
from scrm.users.handlers import core_handlers

PEOPLE = 2_000
TYPED = """mutation($i: RecordEventsInput!) { recordEvents(input: $i) { accepted rejected } }"""


def run(events: int) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure("SQLite", f"sqlite:///{folder}/bench.db", events))
    with postgres_server(on_disk=True) as server, server.database() as url:
        asyncio.run(measure("PostgreSQL", url, events))


async def measure(engine: str, url: str, events: int) -> None:
    """One engine. Consumers run one after the other; in `scrm worker` on PostgreSQL they run side by side."""
    async with opened(url) as client:
        said = {
            "POST /events, new people": await timed(client, PEOPLE, lambda: bulk(client, "new", PEOPLE, PEOPLE)),
            "POST /events": await timed(client, events, lambda: bulk(client, "known", events, PEOPLE)),
        }
        settings = client.services.settings
        loyalty, core = (
            consumer_of(client.services.plugins.active[0], settings),
            core_consumer(core_handlers(settings.zone), settings),
        )
        for consumer, count in ((loyalty, events + PEOPLE), (core, 2 * events + 3 * PEOPLE)):
            await client.services.db.write(enable, consumer, client.services.db.clock())
            await sequence(client.services.db)
            said[f"consumer {consumer.name}"] = await timed(client, count, partial(follow, client.services.db, consumer))
        few = max(500, events // 10 // 500 * 500)
        said["recordEvents by 500"] = await timed(client, few, lambda: by_mutation(client, few))
        for what, taken in said.items():
            print(f"ingest: {engine:10}  {what:24} {taken}")


@dataclass(frozen=True)
class Taken:
    """Events per second, and the CPU for one of them in microseconds."""

    per_second: float
    server: float
    database: float

    def __str__(self) -> str:
        database = f" + {self.database:.0f} of the database" if self.database else ""
        return f"{self.per_second:6.0f} events/s; CPU per event: {self.server:.0f} µs of the server{database}"


@asynccontextmanager
async def opened(url: str, names: Sequence[str] = ("loyalty",)) -> AsyncIterator[Client]:
    """An app with these plugins on an empty database, its memory as a server's."""
    server = ServerSettings(cost=CostSettings(maximum=10**12, restore_per_second=10**12), max_body_bytes=10**8)
    settings = Settings(database_url=url, plugins={name: PluginSection(enabled=True) for name in names}, server=server)
    plugins = load_plugins(settings)
    await provision(settings, plugins)
    app = create_app(settings, plugins=plugins)
    async with app.router.lifespan_context(app):
        db = app.state.services.db
        key = await db.write(create_key, app.state.keys.secret, "bench", ["*"], at=db.clock(), actor="bench")
        await db.write(create_channel, key="shop", name="shop", kind="STORE", at=db.clock(), actor="bench")
        settle()
        yield Client(app, httpx2.AsyncClient(timeout=None)).with_key(key)


async def timed(client: Client, count: int, call: Callable[[], Any]) -> Taken:
    """What so many events take. The caller's own work (making the JSON) is this process's too: 3 µs for each, which is in it."""
    database = client.services.db.url.database or ""
    before, cpu, start = backends(database), time.process_time(), time.perf_counter()
    await call()
    took, used = time.perf_counter() - start, time.process_time() - cpu
    return Taken(count / took, used / count * 1e6, (backends(database) - before) / count * 1e6)


def backends(database: str) -> float:
    """Seconds of CPU that PostgreSQL's processes for this database have used, as far as they can be seen."""
    used = 0.0
    for process in psutil.process_iter(["cmdline", "cpu_times"]):
        if (said := process.info["cmdline"]) and said[0].startswith("postgres:") and f" {database} " in f"{said[0]} ":
            times = process.info["cpu_times"]
            used += times.user + times.system if times is not None else 0.0
    return used


async def follow(db: Database, consumer: Consumer) -> None:
    """Move a consumer to the end of the log."""
    while not (await db.write(step, consumer, at=db.clock())).idle:
        pass


def event(tag: str, number: int, people: int) -> dict[str, Any]:
    """A paid order."""
    return {
        "type": "order.paid",
        "identity": {"channel": "shop", "externalId": f"p{number % people}"},
        "occurredAt": f"2026-03-{1 + number % 28:02}T08:00:00Z",
        "amount": {"amountMinor": 1_000 + number % 5_000, "currency": "CNY"},
        "source": "bench",
        "externalId": f"{tag}{number}",
        "properties": {"orderId": f"{tag}{number}"},
    }


async def bulk(client: Client, tag: str, count: int, people: int) -> None:
    """All in one NDJSON body."""
    body = b"\n".join(orjson.dumps(event(tag, number, people)) for number in range(count))
    response = await client.http.post("/events", content=body, headers={"content-type": "application/x-ndjson"})
    accepted = orjson.loads(response.content)["accepted"]
    if accepted != count:
        raise AssertionError(f"{accepted} of {count} were accepted")


async def by_mutation(client: Client, count: int) -> None:
    """Five hundred at a time."""
    for start in range(0, count, 500):
        events = [event("typed", number, PEOPLE) for number in range(start, start + 500)]
        answer = await client.data(TYPED, i={"events": events})
        if answer["recordEvents"]["accepted"] != 500:
            raise AssertionError(answer)
