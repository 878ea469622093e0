"""Events per second through each door, with loyalty consuming; on both engines."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import orjson

from scrm.app import create_app
from scrm.auth import create_key
from scrm.channels.service import create_channel
from scrm.config import CostSettings, PluginSection, ServerSettings, Settings
from scrm.loader import load_plugins
from scrm.provision import provision
from scrm.testing import postgres_server
from scrm.testing.client import Client, drain

PEOPLE = 2_000
TYPED = """mutation($i: RecordEventsInput!) { recordEvents(input: $i) { accepted rejected } }"""


def run(events: int) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure("SQLite", f"sqlite:///{folder}/bench.db", events))
    with postgres_server() as server, server.database() as url:
        asyncio.run(measure("PostgreSQL", url, events))


async def measure(engine: str, url: str, events: int) -> None:
    """One engine."""
    async with opened(url) as client:
        people = await timed(lambda: bulk(client, "new", PEOPLE, PEOPLE))
        bulked = await timed(lambda: bulk(client, "known", events, PEOPLE))
        consumed = await timed(lambda: drain(client))
        few = max(500, events // 10 // 500 * 500)
        typed = await timed(lambda: by_mutation(client, few))
        print(
            f"ingest: {engine}: POST /events {events / bulked:.0f}/s (new people {PEOPLE / people:.0f}/s), recordEvents by 500 "
            f"{few / typed:.0f}/s, consumers core and loyalty {(events + PEOPLE) / consumed:.0f}/s"
        )


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Client]:
    """An app with loyalty on an empty database."""
    server = ServerSettings(cost=CostSettings(maximum=10**12, restore_per_second=10**12), max_body_bytes=10**8)
    settings = Settings(database_url=url, plugins={"loyalty": PluginSection(enabled=True)}, server=server)
    plugins = load_plugins(settings)
    await provision(settings, plugins)
    app = create_app(settings, plugins=plugins)
    async with app.router.lifespan_context(app):
        db = app.state.services.db
        key = await db.write(create_key, app.state.keys.secret, "bench", ["*"], at=db.clock(), actor="bench")
        await db.write(create_channel, key="shop", name="shop", kind="STORE", at=db.clock(), actor="bench")
        yield Client(app, httpx2.AsyncClient(timeout=None)).with_key(key)


async def timed(call: Callable[[], Any]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    await call()
    return time.perf_counter() - start


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
