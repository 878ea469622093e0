"""Channels through GraphQL: results and refusals, on both engines."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from scrm.testing.client import Client, serving
from tests.core.asking import NOBODY, Clock, channel, do, event, only, record

NO_CHANNEL = "Channel_" + "0" * 32


@pytest.fixture
async def client(migrated_url: str) -> AsyncIterator[Client]:
    async with serving(migrated_url, clock=Clock()) as client:
        yield client


async def test_channels_are_made_and_changed(client: Client) -> None:
    shown = "channel { id key name kind role enabled config userCount parent { key } children { nodes { key } } }"
    made = await do(
        client,
        "createChannel",
        "CreateChannelInput",
        {"key": "wecom", "name": "企业微信", "kind": "WECOM", "config": {"corp": "c"}},
        shown,
    )
    assert made["errors"] == []
    root = made["channel"].pop("id")
    assert re.fullmatch("Channel_[0-9a-f]{32}", root)
    assert made["channel"] == {
        "key": "wecom",
        "name": "企业微信",
        "kind": "WECOM",
        "role": "MAIN",
        "enabled": True,
        "config": {"corp": "c"},
        "userCount": 0,
        "parent": None,
        "children": {"nodes": []},
    }
    child = {"key": "code-1", "name": "活码一", "kind": "WECOM", "role": "AUXILIARY", "enabled": False, "parent": "wecom"}
    below = await do(client, "createChannel", "CreateChannelInput", child, "channel { id parent { key } role enabled }")
    assert below["channel"] | {"id": ""} == {"id": "", "parent": {"key": "wecom"}, "role": "AUXILIARY", "enabled": False}
    id = below["channel"]["id"]
    changed = await do(
        client,
        "updateChannel",
        "UpdateChannelInput",
        {"id": id, "name": "N", "enabled": True},
        "channel { name enabled role parent { key } }",
    )
    assert changed == {"channel": {"name": "N", "enabled": True, "role": "AUXILIARY", "parent": {"key": "wecom"}}, "errors": []}
    free = await do(
        client,
        "updateChannel",
        "UpdateChannelInput",
        {"id": id, "parent": None, "config": None},
        "channel { parent { key } config }",
    )
    assert free == {"channel": {"parent": None, "config": {}}, "errors": []}
    node = await client.data("query($id: ID!) { node(id: $id) { __typename id ... on Channel { key } } }", id=root)
    assert node == {"node": {"__typename": "Channel", "id": root, "key": "wecom"}}


async def test_channels_that_cannot_be_are_refused(client: Client) -> None:
    await channel(client, "top")
    await channel(client, "below", parent="top")
    top = (await client.data('{ channels(filter: {search: "top"}) { nodes { id } } }'))["channels"]["nodes"][0]["id"]
    new = {"key": "x", "name": "x", "kind": "APP"}
    cases: list[tuple[str, str, dict[str, Any], tuple[str, list[str]]]] = [
        ("createChannel", "CreateChannelInput", {**new, "key": "top"}, ("CHANNEL_KEY_TAKEN", ["key"])),
        ("createChannel", "CreateChannelInput", {**new, "key": "a b"}, ("INVALID_KEY", ["key"])),
        ("createChannel", "CreateChannelInput", {**new, "name": ""}, ("INVALID_TEXT", ["name"])),
        ("createChannel", "CreateChannelInput", {**new, "config": [1]}, ("INVALID_JSON", ["config"])),
        ("createChannel", "CreateChannelInput", {**new, "parent": "none"}, ("UNKNOWN_CHANNEL", ["parent"])),
        ("updateChannel", "UpdateChannelInput", {"id": NO_CHANNEL, "name": "x"}, ("CHANNEL_NOT_FOUND", ["id"])),
        ("updateChannel", "UpdateChannelInput", {"id": NOBODY, "name": "x"}, ("INVALID_ID", ["id"])),
        ("updateChannel", "UpdateChannelInput", {"id": top, "parent": "below"}, ("CHANNEL_CYCLE", ["parent"])),
        *[
            ("updateChannel", "UpdateChannelInput", {"id": top, name: None}, ("INVALID_INPUT", [name]))
            for name in ("name", "kind", "role", "enabled")
        ],
    ]
    for name, type, input, expected in cases:
        assert only(await do(client, name, type, input)) == expected, (name, input)
    listed = await client.data("{ channels { nodes { key name enabled } } }")
    assert [each["key"] for each in listed["channels"]["nodes"]] == ["below", "top"]


async def test_channels_are_filtered_ordered_and_counted(client: Client) -> None:
    await channel(client, "oa", kind="WECHAT_OA")
    await channel(client, "wecom")
    await channel(client, "code", parent="wecom", role="AUXILIARY")
    await channel(client, "old", enabled=False)
    await record(
        client,
        event(1, identity={"channel": "code", "externalId": "a"}),
        event(2, identity={"channel": "wecom", "externalId": "b"}, type="user.followed", amount=None),
        event(
            3,
            identity={"channel": "code", "externalId": "a"},
            type="order.refunded",
            properties={"orderId": "o1"},
            amount={"amountMinor": 40, "currency": "CNY"},
        ),
        event(4, identity={"channel": "oa", "externalId": "c"}, amount={"amountMinor": 7, "currency": "USD"}),
        event(5, identity={"channel": "wecom", "externalId": "b"}, type="user.unfollowed", amount=None),
    )

    async def keys(filter: Any, order: Any = None) -> list[str]:
        data = await client.data(
            "query($f: ChannelFilter, $o: [ChannelOrder!]) { channels(filter: $f, orderBy: $o) { nodes { key } } }",
            f=filter,
            o=order,
        )
        return [each["key"] for each in data["channels"]["nodes"]]

    assert await keys(None) == ["code", "oa", "old", "wecom"]
    assert await keys({"kind": ["WECHAT_OA"]}) == ["oa"]
    assert await keys({"parent": ["wecom"]}) == ["code"]
    assert await keys({"role": "AUXILIARY"}) == ["code"]
    assert await keys({"enabled": False}) == ["old"]
    assert await keys({"search": "o"}) == ["code", "oa", "old", "wecom"]
    assert await keys(None, [{"key": "DESC"}]) == ["wecom", "old", "oa", "code"]
    assert (await keys(None, [{"userCount": "DESC"}, {"key": "ASC"}]))[0] == "wecom"
    stats = "newUsers lostUsers activeUsers buyers orders revenue { amountMinor currency }"
    data = await client.data(
        f"""{{ channels {{ nodes {{ key userCount stats(from: "2026-02-01", to: "2026-02-02") {{ {stats} }}
              none: stats(from: "2026-01-01", to: "2026-02-01") {{ buyers revenue {{ amountMinor }} }} }} }} }}"""
    )
    found = {each["key"]: each for each in data["channels"]["nodes"]}
    assert found["wecom"]["userCount"] == 2
    assert found["wecom"]["stats"] == {
        "newUsers": 2,
        "lostUsers": 1,
        "activeUsers": 2,
        "buyers": 1,
        "orders": 1,
        "revenue": {"amountMinor": 60, "currency": "CNY"},
    }
    assert found["wecom"]["none"] == {"buyers": 0, "revenue": {"amountMinor": 0}}
    assert found["oa"]["stats"]["revenue"] == {"amountMinor": 0, "currency": "CNY"}
    far = """a: stats(from: "0001-01-01", to: "9999-12-31") { buyers newUsers }
             b: stats(from: "2026-02-01", to: "9999-12-30") { buyers }"""
    data = await client.data(f'{{ channels(filter: {{search: "wecom"}}) {{ nodes {{ {far} }} }} }}')
    assert data["channels"]["nodes"] == [{"a": {"buyers": 1, "newUsers": 2}, "b": {"buyers": 1}}]


@pytest.mark.parametrize("given", [("2026-02-02", "2026-02-01"), ("2026-02-02", "2026-02-02"), ("9999-12-31", "0001-01-01")])
async def test_days_that_hold_nothing_are_refused(client: Client, given: tuple[str, str]) -> None:
    await channel(client, "wecom")
    first, last = given
    written = await client.graphql(f'{{ channels {{ nodes {{ stats(from: "{first}", to: "{last}") {{ orders }} }} }} }}')
    query = "query($from: Date!, $to: Date!) { channels { nodes { key stats(from: $from, to: $to) { orders } } } }"
    fine = await client.data(query, **{"from": "2026-02-01", "to": "2026-02-02"})
    assert fine["channels"]["nodes"] == [{"key": "wecom", "stats": {"orders": 0}}]
    asked = await client.graphql(query, **{"from": first, "to": last})
    for answer in (written, asked):
        assert answer["data"] == {"channels": None}
        [error] = answer["errors"]
        assert (error["extensions"]["code"], error["path"]) == ("INVALID_RANGE", ["channels"])
        assert error["message"] == f"the range from {first} to {last} is empty; `to` is the day after the last one"
