"""A subscription over graphql-transport-ws, to an app in the test's own process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from starlette.types import Message, Scope

from scrm.testing.client import Client

_PATIENCE = 20.0
_AFTERWARDS = "{ plugins { name state } viewer { name } }"


class Followed:
    """A subscription that is open: `next()` waits for what it says."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self._received: asyncio.Queue[Message] = asyncio.Queue()
        self._held: deque[dict[str, Any]] = deque()

    async def next(self) -> dict[str, Any]:
        """The data of the next answer.

        Raises: AssertionError for an answer with errors, TimeoutError when none comes.
        """
        while True:
            said = self._held.popleft() if self._held else await self._hear()
            if said["type"] == "next":
                assert "errors" not in said["payload"], said["payload"]["errors"]
                data: dict[str, Any] = said["payload"]["data"]
                return data
            assert said["type"] in ("connection_ack", "ping", "pong"), said

    async def run(self) -> None:
        """Serve the connection until it is closed."""
        scope: Scope = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "scheme": "ws",
            "path": "/graphql",
            "raw_path": b"/graphql",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"test")],
            "client": ("test", 1),
            "server": ("test", 80),
            "subprotocols": ["graphql-transport-ws"],
            "state": {},
        }
        await self._client.app(scope, self._sent.get, self._received.put)

    async def open(self, document: str, variables: dict[str, Any]) -> None:
        """Say hello, subscribe, and ask something else, so that the subscription knows by then where in the log it begins."""
        await self._sent.put({"type": "websocket.connect"})
        key = self._client.http.headers.get("authorization", "")
        await self._say({"type": "connection_init", "payload": {"Authorization": key}})
        while (await self._hear())["type"] != "connection_ack":
            pass
        await self._say({"id": "1", "type": "subscribe", "payload": {"query": document, "variables": variables}})
        for after in ("2", "3", "4"):
            await self._say({"id": after, "type": "subscribe", "payload": {"query": _AFTERWARDS}})
            while (said := await self._hear()) != {"id": after, "type": "complete"}:
                if said.get("id") == "1":
                    self._held.append(said)

    async def close(self) -> None:
        """Hang up."""
        await self._sent.put({"type": "websocket.disconnect", "code": 1000})

    async def _say(self, message: dict[str, Any]) -> None:
        await self._sent.put({"type": "websocket.receive", "text": orjson.dumps(message).decode()})

    async def _hear(self) -> dict[str, Any]:
        while True:
            message = await asyncio.wait_for(self._received.get(), _PATIENCE)
            assert message["type"] != "websocket.close", message
            if message["type"] == "websocket.send":
                said: dict[str, Any] = orjson.loads(message["text"])
                return said


@asynccontextmanager
async def following(client: Client, document: str, **variables: Any) -> AsyncIterator[Followed]:
    """Follow a subscription with the client's key."""
    followed = Followed(client)
    task = asyncio.create_task(followed.run())
    try:
        await followed.open(document, variables)
        yield followed
    finally:
        await followed.close()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, _PATIENCE)
