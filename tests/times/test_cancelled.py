"""Callers that hang up in the middle, and ask again with the same key: what they asked for happens once."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import orjson
import pytest
import uvicorn

from scrm.config import ServerSettings
from scrm.testing.client import Client, serving
from tests.times.till import LOYALTY, RECORD, REDEEM, Sound, member, opened, paid, redemption, settle, working

TRIES = 50

pytestmark = [
    pytest.mark.usefixtures("in_clear"),
    # A cancelled execution drops what it has not begun, and Python says so of every coroutine.
    pytest.mark.filterwarnings("ignore:coroutine 'CompiledExecutor._ref' was never awaited"),
    pytest.mark.filterwarnings("ignore:coroutine 'Executor.execute_field.<locals>.await_completed' was never awaited"),
]
Request = tuple[str, Any]
"""A path and a body."""


@pytest.fixture
def in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncpg complains of itself where it is cancelled while it asks a server for TLS."""
    monkeypatch.setenv("PGSSLMODE", "disable")


def requests(user: str, chance: random.Random) -> Iterator[tuple[str, Request]]:
    """What is asked, each with its own key: one event, several events, points."""
    for n in range(TRIES):
        match n % 3:
            case 0:
                yield f"bulk {n}", ("/events", [paid(f"bulk {n}", f"new {n}")])
            case 1:
                variables = {"events": [paid(f"typed {n}", f"m{chance.randrange(5)}")]}
                yield f"typed {n}", ("/graphql", {"query": RECORD, "variables": variables})
            case _:
                yield f"spend {n}", ("/graphql", {"query": REDEEM, "variables": redemption(user, 3, f"spend {n}")})


async def done(client: Client, path: str, body: Any) -> str:
    """What the request is answered in the end: what became of the event, or the ledger's line."""
    response = await client.http.post(path, json=body)
    answer = orjson.loads(response.content)
    assert (response.status_code, "errors" in answer) == (200, False), answer
    if path == "/events":
        return str(answer["results"][0]["status"])
    payload = next(iter(answer["data"].values()))
    assert payload["errors"] == []
    return str(payload["results"][0]["status"] if "results" in payload else payload["entry"]["id"])


async def checked(client: Client, noted: dict[str, set[str]]) -> None:
    """Each was done once, and all callers of a key heard the same."""
    await settle(client.services.db)
    sound = Sound(client)
    await sound.check(key for key in noted if not key.startswith("spend"))
    spent = sound.redeemed()
    assert {key: spent[key] for key in noted if key.startswith("spend")} == {key: 1 for key in noted if key.startswith("spend")}
    assert spent.total() == len([key for key in noted if key.startswith("spend")])
    assert [key for key, said in noted.items() if len(said - {"ACCEPTED", "DUPLICATE"}) > 1] == []


@asynccontextmanager
async def rich(url: str, **more: Any) -> AsyncIterator[tuple[Client, str]]:
    """A server with a worker, and somebody with points enough."""
    async with opened(url, **more) as client, working(client):
        await client.data(RECORD, events=[paid("first", "ann", 1_000)], waitFor=["loyalty"])
        yield client, await member(client, "ann")


async def test_a_request_that_is_cancelled_anywhere_and_asked_again_happens_once(migrated_url: str) -> None:
    chance = random.Random(11)
    noted: dict[str, set[str]] = {}
    cut = 0
    async with rich(migrated_url, database_pool=2) as (client, ann):
        for key, (path, body) in requests(ann, chance):
            asked = [asyncio.create_task(done(client, path, body)) for _ in range(2)]
            await asyncio.sleep(chance.uniform(0, 0.03))
            for task in asked:
                cut += task.cancel()
            heard = [said for said in await asyncio.gather(*asked, return_exceptions=True) if isinstance(said, str)]
            noted[key] = {*heard, await done(client, path, body)}
        await checked(client, noted)
    assert cut > TRIES // 4, "next to nothing was cancelled"


async def test_a_request_that_the_server_gives_up_and_that_is_sent_again_happens_once(migrated_url: str) -> None:
    chance = random.Random(12)
    noted: dict[str, set[str]] = {}
    late = 0
    async with rich(migrated_url) as (client, ann):
        for seconds in (0.003, 0.012):
            server = ServerSettings(timeout_seconds=seconds)
            async with serving(migrated_url, modules=LOYALTY, server=server) as hasty:
                for key, (path, body) in requests(ann, chance):
                    if path == "/graphql":
                        response = await hasty.http.post(path, json=body)
                        if response.status_code != 200:
                            code = response.json()["errors"][0]["extensions"]["code"]
                            assert (response.status_code, code) == (503, "TIMEOUT")
                            late += 1
                        noted[key] = {*noted.get(key, set()), await done(client, path, body)}
        await checked(client, noted)
    assert late > 5, "next to nothing took too long"


class _Uvicorn(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for the tests."""
        yield


@asynccontextmanager
async def listening(client: Client) -> AsyncIterator[int]:
    """The same app behind a socket; its port."""
    bound = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(client.app, lifespan="off", ws="none", log_config=None, timeout_graceful_shutdown=5)
    server = _Uvicorn(config)
    serving_ = asyncio.create_task(server.serve([bound]))
    try:
        yield int(bound.getsockname()[1])
    finally:
        server.should_exit = True
        await serving_


def sent(client: Client, path: str, body: bytes, kind: str = "application/json") -> bytes:
    """A whole request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: t\r\nAuthorization: {client.http.headers['authorization']}\r\n"
    return f"{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def hang_up(port: int, request: bytes, chance: random.Random, cut: Callable[[bytes], int]) -> None:
    """Send a request, or a part, and be gone: with a word or without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request[: cut(request)])
    await writer.drain()
    await asyncio.sleep(chance.uniform(0, 0.025))
    if chance.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    assert reader is not None


async def test_a_caller_who_hangs_up_and_sends_again_is_served_once(migrated_url: str) -> None:
    chance = random.Random(13)
    noted: dict[str, set[str]] = {}
    async with rich(migrated_url) as (client, ann), listening(client) as port:
        for key, (path, body) in requests(ann, chance):
            request = sent(client, path, orjson.dumps(body))
            await asyncio.gather(*(hang_up(port, request, chance, len) for _ in range(2)))
            noted[key] = {await done(client, path, body)}
        await checked(client, noted)
    assert "DUPLICATE" in {said for each in noted.values() for said in each}, "nobody hung up after it had happened"


@pytest.mark.parametrize("kind", ["application/x-ndjson", "application/json"])
async def test_a_body_that_breaks_off_leaves_what_was_whole_and_no_more(migrated_url: str, kind: str) -> None:
    chance = random.Random(14)
    items = [paid(f"o{n}", f"m{n % 9}") for n in range(1_200)]
    lines = b"".join(orjson.dumps(item) + b"\n" for item in items)
    body = lines if kind == "application/x-ndjson" else orjson.dumps(items)
    async with rich(migrated_url) as (client, _), listening(client) as port:
        request = sent(client, "/events", body, kind)
        for share in (0.3, 0.5, 0.7, 0.95):
            await hang_up(port, request, chance, lambda whole, share=share: int(len(whole) * share))  # type: ignore[misc]
        headers = {"content-type": kind}
        answer = (await client.http.post("/events", content=body, headers=headers)).json()
        assert (answer["accepted"] + answer["duplicates"], answer["rejected"]) == (1_200, 0)
        assert (answer["duplicates"] > 0) == (kind == "application/x-ndjson")
        assert answer["duplicates"] % 500 == 0, "batches are recorded whole"
        await settle(client.services.db)
        await Sound(client).check(f"o{n}" for n in range(1_200))
