"""`make bench`: compiled reads against the floor, the same SQL behind a bare Starlette route, on PostgreSQL.

Both run in this process without a network, interleaved; the median of the rounds is printed, and what every answer says is
checked.
`python -m bench --users 100000 --events 1000000` for the full size.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.data import fill
from bench.queries import QUERIES
from scrm.app import create_app
from scrm.auth import create_key
from scrm.config import Settings
from scrm.graphql import shortcut
from scrm.graphql.plans import Facts, Plan
from scrm.loader import load_plugins
from scrm.provision import provision
from scrm.testing import postgres_server

ROUNDS = 5


def main() -> None:
    """Run the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement")
    given = parser.parse_args()
    with postgres_server() as server, server.database() as url:
        asyncio.run(measure(url, given.users, given.events, given.seconds))


async def measure(url: str, users: int, events: int, seconds: float) -> None:
    """Fill a database, and print for each query how close the served answer comes to the floor."""
    settings = Settings(database_url=url)
    plugins = load_plugins(settings)
    await provision(settings, plugins)
    app = create_app(settings, plugins=plugins)
    async with app.router.lifespan_context(app):
        services = app.state.services
        key = await services.db.write(create_key, app.state.keys.secret, "bench", ["*"], at=services.db.clock(), actor="bench")
        some = await services.db.write(fill, users, events)
        print(f"PostgreSQL, {users} users, {events} events; answers per second and CPU ms per answer, median of {ROUNDS} rounds")
        gc.collect()
        gc.freeze()
        for name, query, variables in QUERIES(some):
            await compare(app, key, name, query, variables, seconds)


async def compare(app: Starlette, key: str, name: str, query: str, variables: Any, seconds: float) -> None:
    """Measure one query both ways."""
    body = orjson.dumps({"query": query, "variables": variables})
    served = caller(app, "/graphql", body, key)
    with watched() as ran:
        answer = orjson.loads(await served())
    assert "errors" not in answer, answer["errors"]
    floor = caller(floor_app(app, *ran[-1]), "/floor", b"", key)
    root = next(iter(answer["data"].values()))
    assert orjson.loads(await floor()) == root, "the floor answers something else"
    figures: dict[str, list[tuple[float, float]]] = {"served": [], "floor": []}
    for _ in range(ROUNDS):
        figures["floor"].append(await rate(floor, seconds / ROUNDS))
        figures["served"].append(await rate(served, seconds / ROUNDS))
    (fast, fast_cpu), (ours, ours_cpu) = (
        (statistics.median(each[0] for each in figures[way]), statistics.median(each[1] for each in figures[way]))
        for way in ("floor", "served")
    )
    print(f"{name}: {ours:8.0f}/s ({ours_cpu:.2f} ms)  floor {fast:8.0f}/s ({fast_cpu:.2f} ms)  {ours / fast:.0%} of the floor")


@contextmanager
def watched() -> Iterator[list[tuple[Plan, Facts]]]:
    """What plans are run with which facts, meanwhile."""
    ran: list[tuple[Plan, Facts]] = []
    original = shortcut.run

    async def run(plan: Plan, snapshot: Any, facts: Facts, info: Any) -> Any:
        ran.append((plan, facts))
        return await original(plan, snapshot, facts, info)

    shortcut.run = run
    try:
        yield ran
    finally:
        shortcut.run = original


def floor_app(app: Starlette, plan: Plan, facts: Facts) -> Starlette:
    """A route that runs the same SQL with the same parameters, and nothing else."""
    db = app.state.services.db
    sql, parameters = plan.statement.sql, [recipe(facts) for recipe in plan.statement.recipes]

    async def endpoint(_request: Request) -> Response:
        [[value]] = await db.fetch(sql, parameters)
        return Response(value, media_type="application/json")

    return Starlette(routes=[Route("/floor", endpoint, methods=["POST"])])


def caller(app: Starlette, path: str, body: bytes, key: str) -> Callable[[], Awaitable[bytes]]:
    """Calls an app as a server would, without a network."""
    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {key}".encode())]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "app": app,
    }
    scope |= {"http_version": "1.1", "scheme": "http", "server": ("test", 80), "client": ("test", 1), "root_path": ""}

    async def call() -> bytes:
        parts: list[bytes] = []
        sent = False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            parts.append(message.get("body", b""))

        await app(dict(scope), receive, send)
        return b"".join(parts)

    return call


async def rate(call: Callable[[], Awaitable[bytes]], seconds: float) -> tuple[float, float]:
    """Answers per second and CPU milliseconds per answer, eight at a time."""
    count, cpu, start = 0, time.process_time(), time.perf_counter()

    async def client() -> None:
        nonlocal count
        while time.perf_counter() - start < seconds:
            await call()
            count += 1

    await asyncio.gather(*(client() for _ in range(8)))
    return count / (time.perf_counter() - start), (time.process_time() - cpu) / count * 1000


if __name__ == "__main__":
    main()
