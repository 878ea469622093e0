"""Asking the API in tests: a clock to move, mutations by name, the one error of a payload."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from scrm.testing.client import Client

NOBODY = "User_" + "0" * 32
NOW = datetime(2026, 3, 1, 4, 0, tzinfo=UTC)
ERRORS = "errors { code message path params }"


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


async def do(client: Client, name: str, type: str, input: dict[str, Any], shown: str = "") -> dict[str, Any]:
    """The payload of a mutation."""
    data = await client.data(f"mutation M($input: {type}!) {{ {name}(input: $input) {{ {shown} {ERRORS} }} }}", input=input)
    payload: dict[str, Any] = data[name]
    return payload


async def create(client: Client, shown: str = "id", **input: Any) -> dict[str, Any]:
    """A new user."""
    made = await do(client, "createUser", "CreateUserInput", input, f"user {{ {shown} }}")
    assert made["errors"] == []
    user: dict[str, Any] = made["user"]
    return user


async def channel(client: Client, key: str, **input: Any) -> None:
    """A new channel."""
    said = {"key": key, "name": key, "kind": "WECOM", **input}
    assert (await do(client, "createChannel", "CreateChannelInput", said))["errors"] == []


async def tag(client: Client, key: str, **input: Any) -> str:
    """A new tag's id."""
    made = await do(client, "createTag", "CreateTagInput", {"key": key, "name": key, **input}, "tag { id }")
    assert made["errors"] == []
    found: str = made["tag"]["id"]
    return found


def event(number: int, **more: Any) -> dict[str, Any]:
    """An EventInput: a paid order of `number` yuan by the person `p1` on the channel `oa`, unless said otherwise."""
    return {
        "type": "order.paid",
        "identity": {"channel": "oa", "externalId": "p1"},
        "occurredAt": f"2026-02-01T00:00:{number % 60:02}Z",
        "amount": {"amountMinor": 100 * number, "currency": "CNY"},
        "properties": {"orderId": f"o{number}"},
        "source": "shop",
        "externalId": f"o{number}",
    } | more


async def record(client: Client, *events: dict[str, Any], **input: Any) -> dict[str, Any]:
    """The payload of recordEvents."""
    shown = "accepted duplicates rejected caughtUp results { index status event { id externalId } errors { code path params } }"
    return await do(client, "recordEvents", "RecordEventsInput", {"events": list(events), **input}, shown)


async def caller(client: Client) -> str:
    """The name of the client's key."""
    name: str = (await client.data("{ viewer { name } }"))["viewer"]["name"]
    return name


def only(payload: dict[str, Any]) -> tuple[str, list[str] | None]:
    """The code and the path of a payload's one error."""
    [error] = payload["errors"]
    return error["code"], error["path"]
