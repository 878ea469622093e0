"""Events and the system through GraphQL: results and refusals, on both engines."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.db import new_id
from scrm.models import audit_log, imports
from scrm.testing.client import Client, drain, serving
from tests.core.asking import NOBODY, NOW, Clock, caller, channel, create, do, event, only, record


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(migrated_url: str, clock: Clock) -> AsyncIterator[Client]:
    async with serving(migrated_url, clock=clock) as client:
        yield client


# ---- events


async def test_events_are_recorded_once(client: Client, clock: Clock) -> None:
    await channel(client, "oa")
    clock.now += timedelta(days=1)
    bad = event(3, type="order.paid", properties={})
    answer = await record(client, event(1), event(2, occurredAt="2025-01-01T00:00:00Z"), bad, event(1))
    assert (answer["accepted"], answer["duplicates"], answer["rejected"], answer["caughtUp"]) == (2, 1, 1, True)
    assert [(each["index"], each["status"]) for each in answer["results"]] == [
        (0, "ACCEPTED"),
        (1, "ACCEPTED"),
        (2, "REJECTED"),
        (3, "DUPLICATE"),
    ]
    assert answer["results"][3]["event"] == answer["results"][0]["event"]
    assert re.fullmatch("Event_[0-9a-f]{32}", answer["results"][0]["event"]["id"])
    assert answer["results"][2]["event"] is None
    assert [error["code"] for error in answer["results"][2]["errors"]] == ["INVALID_PROPERTIES"]
    again = await record(client, event(1))
    assert (again["duplicates"], again["results"][0]["event"]) == (1, answer["results"][0]["event"])
    conflict = await record(client, event(1, amount={"amountMinor": 1, "currency": "CNY"}))
    assert (conflict["rejected"], conflict["results"][0]["errors"][0]["code"]) == (1, "IDEMPOTENCY_CONFLICT")
    data = await client.data(
        """{ events(filter: {source: ["shop"]}, orderBy: [{occurredAt: DESC}]) { totalCount nodes { type late occurredAt
          receivedAt source externalId
             properties amount { amountMinor currency en: formatted(locale: "en") zh: formatted } channel { key } user {
             identities { externalId } } } } }"""
    )
    assert data["events"]["totalCount"] == 2
    first, late = data["events"]["nodes"]
    assert first == {
        "type": "order.paid",
        "late": False,
        "occurredAt": "2026-02-01T00:00:01.000000Z",
        "receivedAt": "2026-03-02T04:00:00.000000Z",
        "source": "shop",
        "externalId": "o1",
        "properties": {"orderId": "o1"},
        "amount": {"amountMinor": 100, "currency": "CNY", "en": "CN¥1.00", "zh": "¥1.00"},
        "channel": {"key": "oa"},
        "user": {"identities": [{"externalId": "p1"}]},
    }
    assert (late["late"], late["externalId"]) == (True, "o2")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"identity": {"channel": "nowhere", "externalId": "a"}}, "UNKNOWN_CHANNEL"),
        ({"identity": {"channel": "oa", "externalId": "null"}}, "INVALID_IDENTITY"),
        ({"identity": None, "userId": NOBODY}, "UNKNOWN_USER"),
        ({"identity": None, "userId": "User_x"}, "INVALID_ID"),
        ({"channel": "nowhere"}, "UNKNOWN_CHANNEL"),
        ({"type": "Order Paid"}, "INVALID_TYPE"),
        ({"type": "user.merged"}, "RESERVED_TYPE"),
        ({"occurredAt": "2026-03-03T04:00:01Z"}, "TOO_FAR_AHEAD"),
        ({"properties": [1]}, "INVALID_PROPERTIES"),
        ({"amount": {"amountMinor": 1, "currency": "yuan"}}, "INVALID_CURRENCY"),
        ({"source": "mutation:tagUsers"}, "RESERVED_SOURCE"),
    ],
)
async def test_bad_events_are_refused_alone(client: Client, more: dict[str, Any], code: str) -> None:
    await channel(client, "oa")
    answer = await record(client, event(1, **more), event(2))
    assert [each["status"] for each in answer["results"]] == ["REJECTED", "ACCEPTED"]
    assert [error["code"] for error in answer["results"][0]["errors"]] == [code]
    assert answer["results"][0]["errors"][0]["path"]
    nothing = await record(client, event(1, **more), event(3), errorPolicy="REJECT_EVERYTHING")
    assert [each["errors"][0]["code"] for each in nothing["results"]] == [code, "BATCH_REJECTED"]
    assert (await client.data('{ events(filter: {source: ["shop"]}) { totalCount } }'))["events"]["totalCount"] == 1


async def test_batches_are_bounded_and_defaults_may_be_null(client: Client) -> None:
    await channel(client, "oa")
    assert only(await record(client)) == ("INVALID_BATCH", ["events"])
    many = "mutation($i: RecordEventsInput!) { recordEvents(input: $i) { accepted } }"
    too_many = await client.graphql(many, i={"events": [event(1)] * 501})
    assert [each["extensions"]["code"] for each in too_many["errors"]] == ["LIST_TOO_LONG"]
    assert only(await record(client, event(1), waitFor=["nobody"])) == ("UNKNOWN_PLUGIN", ["waitFor"])
    assert only(await record(client, event(1), waitSeconds=31)) == ("INVALID_INPUT", ["waitSeconds"])
    answer = await record(client, event(1), errorPolicy=None, createUsers=None, waitSeconds=None, waitFor=None)
    assert answer["accepted"] == 1
    unknown = await record(client, event(2, identity={"channel": "oa", "externalId": "new"}), createUsers=False)
    assert unknown["results"][0]["errors"][0]["code"] == "UNKNOWN_IDENTITY"
    big = event(4, type="note.made", amount=None, properties={"n": 2**53 + 1, "f": 0.5, "t": True, "l": [None, "\u2028"]})
    assert (await record(client, big))["accepted"] == 1
    data = await client.data('{ events(filter: {type: ["note.made"]}) { nodes { properties amount { currency } } } }')
    assert data["events"]["nodes"] == [{"properties": big["properties"], "amount": None}]


async def test_waiting_says_whether_it_was_enough(client: Client) -> None:
    await channel(client, "oa")
    behind = await record(client, event(1), waitFor=["core"], waitSeconds=0)
    assert (behind["accepted"], behind["caughtUp"]) == (1, False)
    await drain(client)
    seen = await record(client, event(1), waitFor=["core"], waitSeconds=0)
    assert (seen["duplicates"], seen["caughtUp"]) == (1, True)


async def test_events_are_filtered_ordered_and_paged(client: Client) -> None:
    await channel(client, "oa")
    await channel(client, "wecom")
    await channel(client, "code", parent="wecom")
    await record(
        client,
        event(1, properties={"orderId": "o1", "store": "S1", "n": 5}),
        event(2, identity={"channel": "code", "externalId": "b"}),
        event(3, type="page.viewed", amount=None, properties={"page": "/", "ok": True}, source="web"),
    )
    await drain(client)
    p1 = (await client.data('{ user(identity: {channel: "oa", externalId: "p1"}) { id } }'))["user"]["id"]

    async def ids(filter: dict[str, Any], **more: Any) -> list[str]:
        data = await client.data(
            (
                "query($f: EventFilter, $o: [EventOrder!], $n: Int) { events(filter: $f, orderBy: $o, first: $n) { nodes { "
                "externalId position } } }"
            ),
            f={"source": ["shop", "web"]} | filter,
            o=more.get("order", [{"position": "ASC"}]),
            n=more.get("first"),
        )
        return [each["externalId"] for each in data["events"]["nodes"]]

    assert await ids({}) == ["o1", "o2", "o3"]
    assert await ids({}, order=[{"position": "DESC"}], first=2) == ["o3", "o2"]
    assert await ids({}, order=None) == ["o3", "o2", "o1"]
    assert await ids({"type": ["page.viewed"]}) == ["o3"]
    assert await ids({"source": ["web"]}) == ["o3"]
    assert await ids({"externalId": "o2"}) == ["o2"]
    assert await ids({"user": p1}) == ["o1", "o3"]
    assert await ids({"channel": ["wecom"]}) == ["o2"]
    assert await ids({"channel": ["code"]}) == ["o2"]
    assert await ids({"late": True}) == []
    assert await ids({"occurredAt": {"gte": "2026-02-01T08:00:02+08:00"}}) == ["o2", "o3"]
    assert await ids({"properties": [{"key": "store", "string": {"eq": "S1"}}]}) == ["o1"]
    assert await ids({"properties": [{"key": "n", "number": {"gt": 4}}, {"key": "store", "string": {"in": ["S1"]}}]}) == ["o1"]
    assert await ids({"properties": [{"key": "ok", "boolean": True}]}) == ["o3"]
    user = await client.data(
        """query($id: ID!) { user(id: $id) { firstSeenAt lastSeenAt acquisitionChannel { key }
             events(filter: {source: ["shop", "web"]}, first: 1) { totalCount nodes { externalId } pageInfo { hasNextPage
             endCursor } } } }""",
        id=p1,
    )
    assert user["user"]["events"]["totalCount"] == 2
    assert user["user"]["events"]["nodes"] == [{"externalId": "o3"}]
    assert (user["user"]["firstSeenAt"], user["user"]["lastSeenAt"]) == (
        "2026-02-01T00:00:01.000000Z",
        "2026-02-01T00:00:03.000000Z",
    )
    more = await client.data(
        (
            'query($id: ID!, $c: String) { user(id: $id) { events(filter: {source: ["shop", "web"]}, first: 1, after: $c) { '
            "nodes { externalId } } } }"
        ),
        id=p1,
        c=user["user"]["events"]["pageInfo"]["endCursor"],
    )
    assert more["user"]["events"]["nodes"] == [{"externalId": "o1"}]

    async def matched(match: dict[str, Any]) -> int:
        data = await client.data("query($e: EventMatch) { users(filter: {event: $e}) { totalCount } }", e=match)
        count: int = data["users"]["totalCount"]
        return count

    assert await matched({"type": ["order.paid"]}) == 2
    assert await matched({"type": ["order.paid"], "count": {"eq": 0}}) == 0
    assert await matched({"type": ["page.viewed"], "count": {"eq": 0}}) == 1
    assert await matched({"type": ["order.paid"], "withinDays": 3}) == 0
    assert await matched({"type": ["order.paid"], "withinDays": 40, "amount": {"gte": 200}}) == 1
    assert await matched({"type": ["order.paid"], "latest": {"gte": "2026-02-01T00:00:02Z"}}) == 1
    assert (
        await matched({"since": "2026-02-01T00:00:02Z", "until": "2026-02-01T00:00:03Z", "type": ["order.paid", "page.viewed"]})
        == 1
    )


# ---- nodes and the system


async def test_nodes_are_found_or_not_one_by_one(client: Client) -> None:
    user = (await create(client))["id"]
    query = "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }"
    answer = await client.graphql(
        query, ids=[user, NOBODY, "Nothing_" + "0" * 32, "User_1", "PluginFailure_" + "0" * 32, "", user.upper()]
    )
    assert answer["data"] == {"nodes": [{"__typename": "User", "id": user}, *[None] * 6]}
    assert [(error["path"], error["extensions"]["code"]) for error in answer["errors"]] == [
        (["nodes", number], "INVALID_ID") for number in (2, 3, 4, 5, 6)
    ]
    for id in ("Nothing_" + "0" * 32, "User_1"):
        answer = await client.graphql("query($id: ID!) { node(id: $id) { id } }", id=id)
        assert answer["data"] == {"node": None}
        assert answer["errors"][0]["extensions"]["code"] == "INVALID_ID"
    for name in ("User", "Channel", "Tag", "TagGroup", "Event", "Import"):
        assert (await client.data("query($id: ID!) { node(id: $id) { id } }", id=f"{name}_{'0' * 32}")) == {"node": None}
    too_many = await client.graphql(query, ids=[user] * 101)
    assert too_many["errors"][0]["extensions"]["code"] == "INVALID_INPUT"


async def test_the_system_says_how_it_does(client: Client) -> None:
    await channel(client, "oa")
    await record(client, event(1))
    await drain(client)
    data = await client.data(
        "{ systemStatus { version database headPosition consumers { plugin state cursor lag lagSeconds backfill } workers "
        "currency timezone } plugins { name } }"
    )
    status = data["systemStatus"]
    assert data["plugins"] == []
    assert status["database"] == client.services.db.dialect
    assert (status["currency"], status["timezone"], status["workers"]) == ("CNY", "Asia/Shanghai", 0)
    [core] = status["consumers"]
    assert core == {
        "plugin": "core",
        "state": "ACTIVE",
        "cursor": status["headPosition"],
        "lag": 0,
        "lagSeconds": None,
        "backfill": None,
    }
    types = {
        each["name"]: each for each in (await client.data("{ eventTypes { name owner description payload } }"))["eventTypes"]
    }
    assert types["order.paid"]["owner"] == "core"
    assert types["order.paid"]["payload"]["required"] == ["orderId"]
    assert list(types) == sorted(types)
    unknown = await do(client, "retryPluginFailures", "RetryPluginFailuresInput", {"plugin": "none"}, "count plugin { name }")
    assert only(unknown) == ("UNKNOWN_PLUGIN", ["plugin"])
    skip = {"plugin": "core", "skip": True}
    assert only(await do(client, "retryPluginFailures", "RetryPluginFailuresInput", skip)) == ("INVALID_INPUT", ["eventIds"])
    missing = {**skip, "eventIds": ["Event_" + "0" * 32]}
    assert (await do(client, "retryPluginFailures", "RetryPluginFailuresInput", missing))["errors"][0]["code"] == "NOT_PARKED"
    wrong = {"plugin": "core", "eventIds": ["x"]}
    assert only(await do(client, "retryPluginFailures", "RetryPluginFailuresInput", wrong)) == ("INVALID_ID", ["eventIds", "0"])
    assert await do(client, "retryPluginFailures", "RetryPluginFailuresInput", {"plugin": "core"}, "count") == {
        "count": 0,
        "errors": [],
    }
    rows = await client.services.db.read(lambda tx: tx.rows(sa.select(audit_log.c.actor, audit_log.c.action, audit_log.c.detail)))
    assert (await caller(client), "events.recorded", {"accepted": 1}) in [tuple(row) for row in rows]
    assert (await caller(client), "plugin.retried", {"plugin": "core", "count": 0}) in [tuple(row) for row in rows]


async def test_failures_of_a_disabled_plugin_are_not_tried_again(migrated_url: str) -> None:
    async with serving(migrated_url, modules={}, sections={"loyalty": {"enabled": False}}) as client:
        assert {"name": "loyalty", "state": "DISABLED"} in (await client.data("{ plugins { name state } }"))["plugins"]
        refused = await do(client, "retryPluginFailures", "RetryPluginFailuresInput", {"plugin": "loyalty"})
        assert only(refused) == ("UNKNOWN_PLUGIN", ["plugin"])


async def test_imports_are_listed(client: Client) -> None:
    common = {"fingerprint": "f", "accepted": 3, "duplicates": 1, "rejected": 1, "started_at": NOW}
    rows: list[dict[str, Any]] = [
        {
            "id": new_id(),
            "name": "a.csv",
            "kind": "EVENTS",
            "state": "DONE",
            "rows_read": 5,
            "rows_total": 5,
            "finished_at": NOW,
            "error": None,
            **common,
        },
        {
            "id": new_id(),
            "name": "b.csv",
            "kind": "USERS",
            "state": "FAILED",
            "rows_read": 2**40,
            "rows_total": None,
            "finished_at": None,
            "error": "no",
            **common,
        },
    ]
    await client.services.db.write(lambda tx: tx.execute(imports.insert(), rows))
    data = await client.data(
        """{ imports { totalCount nodes { id name kind state rowsRead rowsTotal accepted duplicates rejected startedAt
          finishedAt error } }
             failed: imports(filter: {state: [FAILED], kind: USERS}) { nodes { name } } none: imports(filter: {state:
             [RUNNING]}) { nodes { name } } }"""
    )
    at = "2026-03-01T04:00:00.000000Z"
    newest = data["imports"]["nodes"][0]
    assert newest == {
        "id": f"Import_{rows[1]['id'].hex}",
        "name": "b.csv",
        "kind": "USERS",
        "state": "FAILED",
        "rowsRead": 2**40,
        "rowsTotal": None,
        "accepted": 3,
        "duplicates": 1,
        "rejected": 1,
        "startedAt": at,
        "finishedAt": None,
        "error": "no",
    }
    assert (data["failed"], data["none"]) == ({"nodes": [{"name": "b.csv"}]}, {"nodes": []})
    found = await client.data("query($id: ID!) { node(id: $id) { __typename id } }", id=newest["id"])
    assert found["node"] == {"__typename": "Import", "id": newest["id"]}


async def test_indicators_have_series_and_changes(client: Client) -> None:
    await channel(client, "oa")
    await channel(client, "wecom")
    await record(
        client,
        event(1),
        event(2, identity={"channel": "wecom", "externalId": "b"}),
        event(3, occurredAt="2026-02-03T00:00:00Z", amount={"amountMinor": 50, "currency": "CNY"}),
    )
    data = await client.data(
        """{ indicators(keys: ["revenue"]) { key name owner unit definition higherIsBetter
             series(from: "2026-02-01", to: "2026-02-04") { start end value numerator denominator complete computedAt }
             oa: series(from: "2026-02-01", to: "2026-02-03", channel: "oa") { value }
             change(period: DAY, asOf: "2026-02-04T00:00:00+08:00") { current { start value } previous { start value }
             changePct changePp } } }"""
    )
    [revenue] = data["indicators"]
    assert (revenue["owner"], revenue["unit"], revenue["higherIsBetter"]) == ("core", "MONEY", True)
    assert [(each["start"], each["end"], each["value"], each["denominator"]) for each in revenue["series"]] == [
        ("2026-02-01", "2026-02-02", 300.0, None),
        ("2026-02-02", "2026-02-03", 0.0, None),
        ("2026-02-03", "2026-02-04", 50.0, None),
    ]
    assert [each["value"] for each in revenue["oa"]] == [100.0, 0.0]
    assert revenue["change"] == {
        "current": {"start": "2026-02-03", "value": 50.0},
        "previous": {"start": "2026-02-02", "value": 0.0},
        "changePct": None,
        "changePp": None,
    }
    everything = await client.data("{ indicators { key owner } }")
    assert {
        "new_users",
        "growth_rate",
        "active_users",
        "interaction_rate",
        "unfollow_rate",
        "churn_rate",
        "conversion_rate",
        "repurchase_rate",
        "refund_user_rate",
        "dispute_rate",
        "complaints",
        "revenue",
        "content_interaction_rate",
    } <= {each["key"] for each in everything["indicators"]}
    for query, code in (
        ('{ indicators(keys: ["none"]) { key } }', "UNKNOWN_INDICATOR"),
        ('{ indicators(keys: ["revenue"]) { series(from: "2026-02-02", to: "2026-02-02") { value } } }', "INVALID_RANGE"),
        (
            '{ indicators(keys: ["revenue"]) { series(from: "9999-12-01", to: "9999-12-31", period: MONTH) { value } } }',
            "INVALID_RANGE",
        ),
        ('{ indicators(keys: ["revenue"]) { change(asOf: "0001-01-05T00:00:00Z") { changePct } } }', "INVALID_RANGE"),
        ('{ indicators(keys: ["revenue"]) { change(asOf: "9999-12-31T23:00:00Z") { changePct } } }', "INVALID_RANGE"),
        (
            '{ indicators(keys: ["revenue"]) { series(from: "2026-02-01", to: "2026-02-02", channel: "none") { value } } }',
            "UNKNOWN_CHANNEL",
        ),
    ):
        answer = await client.graphql(query)
        assert [error["extensions"]["code"] for error in answer["errors"]] == [code], query
