"""How a front end asks, and how a shop records orders: what must go on working whatever a plugin does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx2
from starlette.applications import Starlette

from scrm.testing.client import Client
from tests.bad_plugins.kit import Kind, fits

PLUGINS = "{ plugins { name state reason failures(first: 100) { nodes { state error } } } }"
PEOPLE = "{ users(first: 100) { nodes { identities { externalId } goodOrders goodWord } } viewer { name } }"
PATIENCE = 60.0
"""Seconds that something may take on a slow machine before a test gives up."""


async def open_shop(client: Client) -> None:
    """Make a channel to sell in."""
    made = await client.data('mutation { createChannel(input: {key: "store", name: "Store", kind: STORE}) { errors { code } } }')
    assert made["createChannel"]["errors"] == []


async def sell(client: Client, *orders: str) -> None:
    """Record orders, said as `person:order`, through the bulk door."""
    events = [
        {
            "type": "order.paid",
            "identity": {"channel": "store", "externalId": order.partition(":")[0]},
            "occurredAt": "2026-03-01T04:00:00Z",
            "amount": {"amountMinor": 1000, "currency": "CNY"},
            "properties": {"orderId": order.partition(":")[2]},
            "source": "till",
            "externalId": order,
        }
        for order in orders
    ]
    answer = await client.events(events)
    assert answer["accepted"] == len(orders), answer


async def counted(client: Client) -> dict[str, int | None]:
    """What the good plugin says of each person; the core and its batch field have answered too."""
    data = await client.data(PEOPLE)
    assert data["viewer"] is not None
    people = data["users"]["nodes"]
    assert all(person["goodWord"] == "well" for person in people)
    return {person["identities"][0]["externalId"]: person["goodOrders"] for person in people}


async def plugins(client: Client) -> dict[str, dict[str, Any]]:
    """Every plugin as the API shows it."""
    return {one["name"]: one for one in (await client.data(PLUGINS))["plugins"]}


def failures(shown: Mapping[str, Any]) -> str:
    """A plugin's failed events in one line."""
    return "; ".join(f"{one['state']} {one['error'] or '-'}" for one in shown["failures"]["nodes"])


def otherwise(kinds: Sequence[Kind], shown: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The plugins that are not in the state that was promised, or not for that reason."""
    wrong = {}
    for kind in kinds:
        one = shown[kind.name]
        fine = one["state"] == kind.state.upper() and fits(one["reason"], kind.reason)
        if not fine or not fits(failures(one), kind.says.get("Failures", "")):
            wrong[kind.name] = (one["state"], one["reason"], failures(one))
    return wrong


async def until(so: Callable[[], Awaitable[bool]]) -> None:
    """Wait until another process has made something so."""
    async with asyncio.timeout(PATIENCE):
        while not await so():  # noqa: ASYNC110  # there is no event that both processes know
            await asyncio.sleep(0.05)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@asynccontextmanager
async def connected(port: int, key: str, server: Popen[str], log: Path) -> AsyncIterator[Client]:
    """A client of a server in a process of its own, as soon as it answers."""
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=PATIENCE) as http:

        async def answers() -> bool:
            assert server.poll() is None, await asyncio.to_thread(log.read_text)
            try:
                return (await http.get("/livez")).status_code == 200
            except httpx2.ConnectError:
                return False

        await until(answers)
        yield Client(Starlette(), http)
