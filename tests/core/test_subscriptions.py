"""Subscriptions as a front end follows them, over graphql-transport-ws and over server-sent events, on both engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import orjson
import pytest

from scrm.auth import revoke_key
from scrm.config import ServerSettings
from scrm.events.sequencer import sequence
from scrm.testing.client import Client, serving
from tests.core.asking import NOBODY, Clock, channel, create, do, event, record, tag

PATIENCE = 20.0
ONE = (
    "subscription($f: EventFilter, $a: BigInt) { eventRecorded(filter: $f, after: $a) { position externalId type user { "
    "tags { tag { key } } } } }"
)
SHOP = {"source": ["shop"]}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(migrated_url: str, clock: Clock) -> AsyncIterator[Client]:
    async with serving(migrated_url, clock=clock) as client:
        await channel(client, "oa")
        yield client


class Connection:
    """An ASGI connection of the test's own: what it says and what it hears."""

    def __init__(self, client: Client, scope: Mapping[str, Any]) -> None:
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._out: asyncio.Queue[Any] = asyncio.Queue()
        given = {
            "asgi": {"version": "3.0"},
            "path": "/graphql",
            "raw_path": b"/graphql",
            "query_string": b"",
            "root_path": "",
            "state": {},
        }
        self._task = asyncio.create_task(client.app({**given, **scope}, self._in.get, self._out.put))

    async def send(self, message: dict[str, Any]) -> None:
        await self._in.put(message)

    async def hear(self) -> dict[str, Any]:
        return await asyncio.wait_for(self._out.get(), PATIENCE)

    async def end(self, message: dict[str, Any]) -> None:
        await self.send(message)
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(self._task, PATIENCE)


class Socket:
    """A graphql-transport-ws connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._held: list[dict[str, Any]] = []

    async def say(self, message: Any) -> None:
        text = message if isinstance(message, str) else orjson.dumps(message).decode()
        await self.connection.send({"type": "websocket.receive", "text": text})

    async def hear(self) -> dict[str, Any]:
        """The next message, or `{"close": code}`."""
        return self._held.pop(0) if self._held else await self._hear()

    async def _hear(self) -> dict[str, Any]:
        while (message := await self.connection.hear())["type"] == "websocket.accept":
            pass
        if message["type"] == "websocket.close":
            return {"close": message["code"]}
        assert message.get("text") is not None, "browsers read text frames only"
        said: dict[str, Any] = orjson.loads(message["text"])
        return said

    async def greet(self, payload: Any) -> dict[str, Any]:
        await self.say({"type": "connection_init", "payload": payload})
        return await self.hear()

    async def subscribe(self, query: str, id: str = "1", **variables: Any) -> None:
        """Ask, and ask something else of the database after it, so that by then the subscription knows where it begins."""
        said = {name.removesuffix("_"): value for name, value in variables.items()}
        await self.say({"id": id, "type": "subscribe", "payload": {"query": query, "variables": said}})
        for after in (f"{id}-{number}" for number in range(5)):
            await self.say({"id": after, "type": "subscribe", "payload": {"query": "{ plugins { name } }"}})
            while (heard := await self._hear()) != {"id": after, "type": "complete"}:
                if heard["id"] != after:
                    self._held.append(heard)

    async def next(self, id: str = "1") -> Any:
        heard = await self.hear()
        assert (heard.get("type"), heard.get("id")) == ("next", id), heard
        assert "errors" not in heard["payload"], heard
        return heard["payload"]["data"]


@asynccontextmanager
async def socket(
    client: Client, greet: bool = True, protocol: str = "graphql-transport-ws", **headers: str
) -> AsyncIterator[Socket]:
    said = [(b"host", b"test"), *((name.encode(), value.encode()) for name, value in headers.items())]
    opened = Connection(client, {"type": "websocket", "scheme": "ws", "headers": said, "subprotocols": [protocol]})
    await opened.send({"type": "websocket.connect"})
    made = Socket(opened)
    try:
        if greet:
            assert await made.greet({"Authorization": client.http.headers["authorization"]}) == {"type": "connection_ack"}
        yield made
    finally:
        await opened.end({"type": "websocket.disconnect", "code": 1000})


async def test_without_a_key_there_is_nothing(client: Client) -> None:
    for payload in ({}, {"Authorization": "Bearer scrm_wrong"}, {"Authorization": 1}, {"authorization": ""}):
        async with socket(client, greet=False) as stranger:
            assert await stranger.greet(payload) == {"close": 4403}
    async with socket(client, greet=False) as stranger:
        await stranger.say({"id": "1", "type": "subscribe", "payload": {"query": ONE}})
        assert await stranger.hear() == {"close": 4401}
    async with socket(client, greet=False, authorization=client.http.headers["authorization"]) as stranger:
        assert await stranger.greet({}) == {"close": 4403}
    async with socket(client, greet=False, origin="https://elsewhere.example") as stranger:
        assert (await stranger.hear())["close"] in (1008, 4403)
    async with socket(client, greet=False, protocol="graphql-ws") as old:
        assert await old.hear() == {"close": 4406}


async def test_a_key_in_lower_case_is_a_key(client: Client) -> None:
    async with socket(client, greet=False) as made:
        assert await made.greet({"authorization": client.http.headers["authorization"]}) == {"type": "connection_ack"}
        await made.say({"type": "ping"})
        assert await made.hear() == {"type": "pong"}


async def test_events_come_once_and_in_order_and_resume(client: Client) -> None:
    async with socket(client) as first:
        await first.subscribe(ONE, f=SHOP)
        await record(client, *(event(n) for n in (3, 1, 2)))
        await record(client, event(1), event(4, source="web"), event(5))
        seen = [(await first.next())["eventRecorded"] for _ in range(4)]
        assert [each["externalId"] for each in seen] == ["o3", "o1", "o2", "o5"]
        positions = [each["position"] for each in seen]
        assert positions == sorted(set(positions))
        await first.say({"id": "1", "type": "complete"})
        await first.subscribe("{ viewer { kind } }", id="2")
        assert await first.next("2") == {"viewer": {"kind": "KEY"}}
        assert await first.hear() == {"id": "2", "type": "complete"}
    await record(client, event(6), event(7))
    async with socket(client) as again:
        await again.subscribe(ONE, f=SHOP, a=seen[1]["position"])
        await record(client, event(8))
        resumed = [(await again.next())["eventRecorded"]["externalId"] for _ in range(5)]
        assert resumed == ["o2", "o5", "o6", "o7", "o8"]
        await again.subscribe(ONE, id="all", a=str(0))
        everything = [(await again.next("all"))["eventRecorded"] for _ in range(9)]
        assert [each["position"] for each in everything] == list(range(1, 10))


async def test_filters_and_selections_hold_for_every_event(client: Client) -> None:
    async with socket(client) as made:
        query = """subscription($f: EventFilter) { eventRecorded(filter: $f) { ...on Event { kind: type } amount { amountMinor
          zh: formatted(locale: "zh-CN") }
                   channel { key } user @include(if: true) { events(filter: {source: ["shop"]}, first: 1) { totalCount } } } }"""
        await made.subscribe(query, f={"type": ["order.paid"], "properties": [{"key": "store", "string": {"eq": "S1"}}]})
        await record(
            client, event(1), event(2, properties={"orderId": "o2", "store": "S1"}), event(3, type="page.viewed", amount=None)
        )
        await record(client, event(4, properties={"orderId": "o4", "store": "S1"}))
        first, second = (await made.next())["eventRecorded"], (await made.next())["eventRecorded"]
        assert (first["kind"], first["amount"], first["channel"]) == (
            "order.paid",
            {"amountMinor": 200, "zh": "¥2.00"},
            {"key": "oa"},
        )
        assert second["amount"]["amountMinor"] == 400
        assert second["user"] == {"events": {"totalCount": 4}}


async def test_each_event_is_answered_at_its_own_time(client: Client, clock: Clock) -> None:
    await tag(client, "brief")
    await record(client, event(1))
    user = (await client.data("{ users { nodes { id } } }"))["users"]["nodes"][0]["id"]
    given = {"tags": ["brief"], "userIds": [user], "expiresAt": "2026-03-01T04:10:00Z"}
    assert (await do(client, "tagUsers", "TagUsersInput", given, "changed"))["changed"] == 1
    async with socket(client) as made:
        await made.subscribe(ONE, f=SHOP)
        await record(client, event(2))
        assert (await made.next())["eventRecorded"]["user"]["tags"] == [{"tag": {"key": "brief"}}]
        clock.now += timedelta(minutes=11)
        await record(client, event(3))
        assert (await made.next())["eventRecorded"]["user"]["tags"] == []


async def test_a_user_is_followed_through_changes_and_a_merge(client: Client) -> None:
    one, other = (await create(client, displayName="A"))["id"], (await create(client, displayName="B"))["id"]
    await tag(client, "vip")
    await sequence(client.services.db)
    async with socket(client) as made:
        await made.subscribe("subscription($id: ID!) { userChanged(id: $id) { id displayName tags { tag { key } } } }", id="1")
        assert (await made.hear())["type"] in ("error", "next")
        await made.subscribe(
            "subscription($id: ID!) { userChanged(id: $id) { id displayName tags { tag { key } } } }", id="2", id_=one
        )
        await do(client, "updateUser", "UpdateUserInput", {"id": other, "city": "x"})
        await do(client, "updateUser", "UpdateUserInput", {"id": one, "displayName": "A2"})
        await sequence(client.services.db)
        assert await made.next("2") == {"userChanged": {"id": one, "displayName": "A2", "tags": []}}
        await do(client, "tagUsers", "TagUsersInput", {"tags": ["vip"], "userIds": [one]})
        await sequence(client.services.db)
        assert await made.next("2") == {"userChanged": {"id": one, "displayName": "A2", "tags": [{"tag": {"key": "vip"}}]}}
        await do(client, "mergeUsers", "MergeUsersInput", {"keptId": other, "absorbedId": one})
        await sequence(client.services.db)
        merged = (await made.next("2"))["userChanged"]
        assert (merged["id"], merged["tags"]) == (other, [{"tag": {"key": "vip"}}])


async def test_refusals_are_coded(client: Client) -> None:
    async with socket(client) as made:
        for number, (payload, code) in enumerate(
            (
                ({"query": "subscription { nothing }"}, "GRAPHQL_VALIDATION_FAILED"),
                ({"query": 1}, "BAD_REQUEST"),
                ({"query": ONE, "variables": []}, "BAD_REQUEST"),
                ({"query": ONE, "variables": {"f": {"externalId": "a\x00"}}}, "INVALID_TEXT"),
                ({"query": ONE, "variables": {"f": 3}}, "GRAPHQL_VALIDATION_FAILED"),
                ({"query": "{"}, "GRAPHQL_PARSE_FAILED"),
                ({"query": "{ a" + " a" * 2_000 + " }"}, "TOO_MANY_TOKENS"),
                ({"query": "{ " + " ".join(f"a{n}: users {{ totalCount }}" for n in range(31)) + " }"}, "TOO_MANY_ALIASES"),
                ({"query": "{ users(first: 100) { nodes { events(first: 100) { nodes { id } } } } }"}, "TOO_MANY_NODES"),
            )
        ):
            await made.say({"id": str(number), "type": "subscribe", "payload": payload})
            heard = await made.hear()
            assert (heard["type"], heard["id"]) == ("error", str(number))
            assert [error["extensions"]["code"] for error in heard["payload"]] == [code]
        unknown = "subscription($id: ID!) { userChanged(id: $id) { id } }"
        for id, variables, code in (("a", {"id": NOBODY}, "USER_NOT_FOUND"), ("b", {"id": "x"}, "INVALID_ID")):
            await made.say({"id": id, "type": "subscribe", "payload": {"query": unknown, "variables": variables}})
            heard = await made.hear()
            assert [error["extensions"]["code"] for error in heard["payload"]["errors"]] == [code]
            assert await made.hear() == {"id": id, "type": "complete"}
        await made.say({"id": "n", "type": "subscribe", "payload": {"query": ONE, "variables": {"a": -1}}})
        assert (await made.hear())["payload"]["errors"][0]["extensions"]["code"] == "INVALID_POSITION"
        assert (await made.hear())["type"] == "complete"
        await made.say("not json")
        assert await made.hear() == {"close": 4400}


@pytest.mark.parametrize(
    "message", ['"x"', "[]", "3", "[" * 100_000, '{"type": 1}', '{"id": [], "type": "subscribe", "payload": {}}']
)
async def test_what_is_no_message_closes_the_socket(client: Client, message: str) -> None:
    for greet in (False, True):
        async with socket(client, greet) as made:
            await made.say(message)
            assert await made.hear() == {"close": 4400}


async def test_a_key_without_the_scope_hears_nothing(client: Client) -> None:
    other = client.with_key(await client.key("users:read", name="reader"))
    async with socket(other) as made:
        await made.say({"id": "1", "type": "subscribe", "payload": {"query": ONE, "variables": {"a": 0}}})
        heard = await made.hear()
        assert heard["payload"]["data"] is None
        assert [error["extensions"]["code"] for error in heard["payload"]["errors"]] == ["FORBIDDEN"]
        assert await made.hear() == {"id": "1", "type": "complete"}


async def test_a_revoked_key_hears_no_more(client: Client, clock: Clock) -> None:
    other = client.with_key(await client.key("events:read", "users:read", "tags:read", name="reader"))
    services = client.services
    async with socket(other) as made:
        await made.subscribe(ONE, f=SHOP)
        await record(client, event(1))
        assert (await made.next())["eventRecorded"]["externalId"] == "o1"
        await services.db.write(revoke_key, "reader", at=services.db.clock(), zone=services.settings.zone, actor="test")
        client.app.state.keys.forget()
        clock.now += timedelta(seconds=5)
        heard = await made.hear()
        assert heard["payload"]["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        assert await made.hear() == {"id": "1", "type": "complete"}


async def test_our_own_errors_are_masked(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("the password is 12345")

    await record(client, event(1))
    async with socket(client) as made:
        monkeypatch.setattr("scrm.events.following._matching", broken)
        await made.say({"id": "1", "type": "subscribe", "payload": {"query": ONE, "variables": {"a": 0}}})
        heard = await made.hear()
        [error] = heard["payload"]["errors"]
        assert error["extensions"]["code"] == "INTERNAL"
        assert "12345" not in str(heard)
        assert error["extensions"]["errorId"] in caplog.text


@asynccontextmanager
async def stream(client: Client, query: str, key: str | None = None, **variables: Any) -> AsyncIterator[Callable[[], Any]]:
    """A subscription over server-sent events: a function that waits for the next piece."""
    body = orjson.dumps({"query": query, "variables": variables})
    headers = [(b"host", b"test"), (b"content-type", b"application/json"), (b"accept", b"text/event-stream")]
    authorization = client.http.headers.get("authorization")
    if authorization is not None:
        headers.append((b"authorization", authorization.encode()))
    opened = Connection(client, {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "headers": headers})
    await opened.send({"type": "http.request", "body": body, "more_body": False})

    async def hear() -> Any:
        while True:
            message = await opened.hear()
            if message["type"] == "http.response.start":
                return message["status"], dict(message["headers"])[b"content-type"].decode()
            text = message["body"].decode()
            if text.startswith("event: next"):
                return orjson.loads(text.split("data: ", 1)[1].strip())
            if text and not text.startswith(":"):
                return text.strip()

    try:
        yield hear
    finally:
        await opened.end({"type": "http.disconnect"})


async def test_server_sent_events(client: Client) -> None:
    await record(client, event(1))
    async with stream(client, ONE, f=SHOP, a=0) as hear:
        status, kind = await hear()
        assert (status, kind.split(";")[0]) == (200, "text/event-stream")
        assert (await hear())["data"]["eventRecorded"]["externalId"] == "o1"
        await record(client, event(2), event(3))
        seen = [(await hear())["data"]["eventRecorded"] for _ in range(2)]
        assert [each["externalId"] for each in seen] == ["o2", "o3"]
    async with stream(client, ONE, f=SHOP, a=seen[0]["position"]) as hear:
        await hear()
        assert (await hear())["data"]["eventRecorded"]["externalId"] == "o3"
    async with stream(client, "subscription { nothing }") as hear:
        await hear()
        said = await hear()
        assert "data" not in said
        assert said["errors"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
        assert (await hear()).startswith("event: complete")
    narrow = client.with_key(await client.key("users:read", name="narrow"))
    for asker, query, code in (
        (client, "{", "GRAPHQL_PARSE_FAILED"),
        (narrow, "{ __schema { description } }", "FORBIDDEN"),
        (client, "{ users(first: 100) { nodes { events(first: 100) { nodes { id } } } } }", "TOO_MANY_NODES"),
    ):
        async with stream(asker, query) as hear:
            await hear()
            said = await hear()
            assert [error["extensions"]["code"] for error in said["errors"]] == [code]
            assert (await hear()).startswith("event: complete")
    async with stream(client.with_key(None), ONE) as hear:
        assert await hear() == (401, "application/json")


async def test_a_subscription_by_post_says_where_to_go(client: Client) -> None:
    answer = await client.graphql("subscription { eventRecorded { id } }")
    assert answer["errors"][0]["extensions"]["code"] == "BAD_REQUEST"
    assert "data" not in answer


async def test_a_socket_that_does_not_say_who_it_is_is_closed(migrated_url: str) -> None:
    async with (
        serving(migrated_url, server=ServerSettings(init_timeout_seconds=0.01)) as client,
        socket(client, greet=False) as silent,
    ):
        assert await silent.hear() == {"close": 4408}


async def test_a_socket_follows_so_many_things_at_most(migrated_url: str) -> None:
    async with serving(migrated_url, server=ServerSettings(max_operations=2)) as client, socket(client) as made:
        for id in ("1", "2", "3"):
            await made.say({"id": id, "type": "subscribe", "payload": {"query": ONE}})
        heard = await made.hear()
        assert heard["id"] == "3", heard
        assert heard["type"] == "error", heard
        assert heard["payload"][0]["extensions"]["code"]


async def test_a_server_follows_so_many_at_most(migrated_url: str) -> None:
    async with serving(migrated_url, server=ServerSettings(max_streams=1)) as client:
        async with socket(client):
            async with stream(client, ONE) as hear:
                assert await hear() == (503, "application/json")
            refused = Connection(client, {"type": "websocket", "scheme": "ws", "headers": [], "subprotocols": [], **DENIAL})
            await refused.send({"type": "websocket.connect"})
            heard = await refused.hear()
            assert (heard["type"], heard["status"]) == ("websocket.http.response.start", 503)
            await refused.end({"type": "websocket.disconnect", "code": 1000})
            assert "errors" not in await client.graphql("{ users { totalCount } }")
        async with stream(client, ONE) as hear:
            assert (await hear())[0] == 200


DENIAL: dict[str, Any] = {"extensions": {"websocket.http.response": {}}}


async def test_who_does_not_read_is_cut_off(migrated_url: str) -> None:
    async with serving(migrated_url, server=ServerSettings(send_timeout_seconds=0.05)) as client:
        streams = client.app.state.endpoint.streams
        key = client.http.headers["authorization"].encode()
        headers = [(b"host", b"test"), (b"authorization", key), (b"accept", b"text/event-stream")]
        headers.append((b"content-type", b"application/json"))
        body = orjson.dumps({"query": ONE})
        scope = {
            "type": "http", "method": "POST", "scheme": "http", "path": "/graphql", "raw_path": b"/graphql",
            "query_string": b"", "headers": headers, "root_path": "", "asgi": {"version": "3.0"}, "state": {},
        }  # fmt: skip
        asked = iter([{"type": "http.request", "body": body, "more_body": False}])
        forever = asyncio.Event()

        async def receive() -> dict[str, Any]:
            said = next(asked, None)
            if said is None:
                await forever.wait()
            return said or {}

        async def send(message: Any) -> None:
            await forever.wait()

        await asyncio.wait_for(client.app(scope, receive, send), PATIENCE)
        assert streams.open == 0
