"""How the first read and the bulk door go on as the log grows tenfold and tenfold again; a hundred events for each person."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Mapping

import orjson
import psutil

from bench.load import rate, wires
from bench.queries import reads
from bench.reads import Bench, prepare, served
from scrm.testing import postgres_server

STEP = 10
SMALLEST = 100_000
SENT = 20_000


def run(largest: int, seconds: float) -> None:
    """Print the figures, up to so many events."""
    events = min(SMALLEST, largest)
    while events <= largest:
        with postgres_server(on_disk=True) as server, server.database() as url:
            key, somebody = asyncio.run(prepare(url, events // 100, events))
            with served(url) as (port, process):
                print(f"growth: {events} events: {asyncio.run(measure(port, process, key, somebody, events // 100, seconds))}")
        events *= STEP


async def measure(port: int, process: psutil.Process, key: str, somebody: str, people: int, seconds: float) -> str:
    """The first read asked by one client, and paid orders of people who are known."""
    bench, read = Bench(port, process, key), reads(somebody)[0]
    async with wires(port, 1) as [wire]:
        asked = bench.request("scrm", read)
        status, body = await wire.ask(asked)
        alone = await rate(process, [wire], asked, len(body), seconds)
        if status != 200:
            raise AssertionError(body[:500])
    body = b"\n".join(_order(number, people) for number in range(SENT))
    cpu, start = sum(process.cpu_times()[:2]), time.perf_counter()
    await asyncio.to_thread(_send, port, body, bench.headers)
    took, cpu = time.perf_counter() - start, sum(process.cpu_times()[:2]) - cpu
    return f"Q1 {alone.median_ms:.2f} ms; POST /events {SENT / took:.0f} events/s, {cpu / SENT * 1e6:.0f} µs of the server each"


def _send(port: int, body: bytes, headers: Mapping[str, str]) -> None:
    said = {**headers, "Content-Type": "application/x-ndjson"}
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/events", body, said)) as response:
        answer = orjson.loads(response.read())
    if answer["accepted"] != SENT:
        raise AssertionError(f"{answer['accepted']} of {SENT} were accepted: {answer['results'][:1]}")


def _order(number: int, people: int) -> bytes:
    who = 3 * (number * 7919 % (people // 3))  # of every third person the third channel knows the name
    return orjson.dumps(
        {
            "type": "order.paid",
            "identity": {"channel": "channel-3", "externalId": f"x{who}channel-3"},
            "occurredAt": "2026-03-01T08:00:00Z",
            "amount": {"amountMinor": 1_000 + number % 5_000, "currency": "CNY"},
            "source": "growth",
            "externalId": str(number),
            "properties": {"orderId": f"o{number}"},
        }
    )
