"""Resident memory of a server while it answers 100 000 requests of a thousand shapes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import orjson
import psutil

from bench.load import Wire, post, wires
from bench.queries import Read
from bench.reads import CONNECTIONS, prepare, served
from scrm.testing import postgres_server

REQUESTS = 100_000
SHAPES = 1_000


def run(users: int, events: int) -> None:
    """Print the figures."""
    with postgres_server(on_disk=True) as server, server.database() as url:
        key, _ = asyncio.run(prepare(url, users, events))
        with served(url) as (port, process):
            asyncio.run(measure(port, process, key))


async def ask(wire: Wire, requests: list[bytes], numbers: Iterator[int]) -> None:
    """One connection's share of the requests."""
    for number in numbers:
        status, body = await wire.ask(requests[number % SHAPES])
        if status != 200:
            raise AssertionError(body)


async def measure(port: int, process: psutil.Process, key: str) -> None:
    """Ask, and look now and then."""
    headers = {"Authorization": f"Bearer {key}"}
    reads = [
        Read(f"r{n}", f"query($n: Int!) {{ users(first: $n) {{ nodes {{ id a{n}: displayName city }} }} }}", {"n": 1 + n % 20})
        for n in range(SHAPES)
    ]
    requests = [post("/graphql", orjson.dumps({"query": read.query, "variables": read.variables}), headers) for read in reads]
    seen = [process.memory_info().rss]
    async with wires(port, CONNECTIONS) as opened:
        for tenth in range(10):
            numbers = iter(range(tenth * REQUESTS // 10, (tenth + 1) * REQUESTS // 10))
            await asyncio.gather(*(ask(wire, requests, numbers) for wire in opened))
            seen.append(process.memory_info().rss)
    shown = ", ".join(f"{each / 2**20:.0f}" for each in seen)
    print(f"memory: MiB before and after each {REQUESTS // 10} of {REQUESTS} requests of {SHAPES} shapes: {shown}")
