"""A plugin that uses all of what a plugin may bring: each contribution and each hook does what it is for."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import hmac
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.api import Contribution
from scrm.testing.client import Client, drain, replayed, run_jobs, serving
from scrm.testing.following import following
from tests.plugins.conftest import EVERYTHING, Commands

NOON = datetime(2026, 3, 1, 4, tzinfo=UTC)
SECRET = "a secret between us"
CREATE_CHANNEL = 'mutation { createChannel(input: {key: "store", name: "门店", kind: STORE}) { errors { code } } }'
PEOPLE = "{ users { nodes { id markWeight identities { externalId } } } }"
SPEND = """mutation($user: ID!, $weight: Int!, $key: String!) {
  spendMarks(input: {userId: $user, weight: $weight, idempotencyKey: $key}) {
  mark { weight medal user { id markWeight } } errors { code path params } } }"""


def happened(kind: str, number: int, person: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "identity": {"channel": "store", "externalId": person},
        "occurredAt": (NOON + timedelta(minutes=number)).isoformat(),
        "properties": properties,
        "source": "till",
        "externalId": f"{kind}-{number}",
        **({"amount": {"amountMinor": 1000, "currency": "CNY"}} if kind == "order.paid" else {}),
    }


ORDERS = [happened("order.paid", n, "ann" if n < 3 else "bob", orderId=f"o{n}") for n in range(4)]
WHISPER = happened("everything.marked", 9, "bob", weight=12, whisper="has a cold")


def told(book: Path) -> dict[str, Any]:
    return {"everything": {"enabled": True, "per_order": 2, "book": str(book), "secret": SECRET}}


def lines_of(book: Path) -> list[str]:
    return book.read_text(encoding="utf-8").splitlines()


def shut(book: Path) -> None:
    book.unlink()


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return tmp_path / "book.txt"


@pytest.fixture
async def client(everything: Path, migrated_url: str, book: Path) -> AsyncIterator[Client]:
    """Serves with the plugin; Ann has three orders, Bob has one and a whisper; nothing of it was read yet."""
    async with serving(migrated_url, modules={}, sections=told(book), clock=lambda: NOON + timedelta(days=1)) as client:
        assert (await client.data(CREATE_CHANNEL))["createChannel"]["errors"] == []
        assert (await client.events([*ORDERS, WHISPER]))["accepted"] == 5
        yield client


@pytest.fixture
async def read(client: Client) -> Client:
    """The same, with everything read."""
    await drain(client)
    return client


async def with_scopes(client: Client, *scopes: str) -> Client:
    return client.with_key(await client.key(*scopes, name=" ".join(scopes)))


async def people(client: Client) -> dict[str, dict[str, Any]]:
    nodes = (await client.data(PEOPLE))["users"]["nodes"]
    return {node["identities"][0]["externalId"]: node for node in nodes if node["identities"]}


async def weights(client: Client) -> dict[str, int]:
    return {name: person["markWeight"] for name, person in (await people(client)).items()}


# ---- what it is


def hooks_of_the_docs() -> set[str]:
    """The hooks that the page for plugin authors lists, which its own test holds to the code."""
    page = (EVERYTHING.parents[2] / "docs" / "plugin-authors.md").read_text(encoding="utf-8")
    section = page.split("## Hooks\n")[1].split("\n## ")[0]
    return {name for row in re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


async def test_it_uses_every_contribution_and_every_hook(client: Client) -> None:
    [plugin] = client.services.plugins
    unused = [
        one.name
        for one in dataclasses.fields(Contribution)
        if one.name != "requires" and not getattr(plugin.contribution, one.name)
    ]
    assert unused == []
    assert set(vars(plugin.hooks)) == hooks_of_the_docs()


def test_it_imports_nothing_of_scrm_but_the_api() -> None:
    found = set()
    for file in EVERYTHING.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {module for module in modules if module.split(".")[0] == "scrm"}
    assert found == {"scrm.api"}


# ---- contributions


async def test_types_extends_and_query(read: Client) -> None:
    data = await read.data(
        """{ marks(first: 2) { totalCount nodes { id weight note day madeAt medal user { identities { externalId } } } }
          users(filter: {markWeight: {gt: 10}}) {
            nodes { markWeight later: markWeight(since: "2026-03-02") marks { nodes { weight } } } } markPerOrder }"""
    )
    assert data["marks"]["totalCount"] == 5
    [newest, _] = data["marks"]["nodes"]
    mark = newest.pop("id")
    assert newest == {
        "weight": 12,
        "note": "has a cold",
        "day": "2026-03-01",
        "madeAt": "2026-03-01T04:09:00.000000Z",
        "medal": "gold",
        "user": {"identities": [{"externalId": "bob"}]},
    }
    assert data["users"]["nodes"] == [{"markWeight": 14, "later": 0, "marks": {"nodes": [{"weight": 12}, {"weight": 2}]}}]
    assert data["markPerOrder"] == 2
    node = await read.data("query($id: ID!) { node(id: $id) { __typename ... on Mark { weight } } }", id=mark)
    assert node == {"node": {"__typename": "Mark", "weight": 12}}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("filter: {markWeight: {lte: 6}}", ["ann"]),
        ("filter: {not: [{markWeight: {lte: 6}}]}", ["bob"]),
        ("orderBy: [{markWeight: ASC}]", ["ann", "bob"]),
        ("orderBy: [{markWeight: DESC}]", ["bob", "ann"]),
    ],
)
async def test_filters_and_orderings(read: Client, asked: str, names: list[str]) -> None:
    data = await read.data(f"{{ users({asked}) {{ nodes {{ identities {{ externalId }} }} }} }}")
    assert [user["identities"][0]["externalId"] for user in data["users"]["nodes"]] == names


async def test_mutation_and_decision(read: Client) -> None:
    ann = (await people(read))["ann"]["id"]
    done = await read.data(SPEND, user=ann, weight=4, key="k1")
    assert done["spendMarks"] == {"mark": {"weight": -4, "medal": None, "user": {"id": ann, "markWeight": 2}}, "errors": []}
    assert await read.data(SPEND, user=ann, weight=4, key="k1") == done
    refused = await read.data(SPEND, user=ann, weight=4, key="k2")
    assert refused["spendMarks"] == {
        "mark": None,
        "errors": [{"code": "NOT_ENOUGH_MARKS", "path": ["weight"], "params": {"have": 2}}],
    }
    conflict = await read.data(SPEND, user=ann, weight=1, key="k1")
    assert [error["code"] for error in conflict["spendMarks"]["errors"]] == ["IDEMPOTENCY_CONFLICT"]
    await drain(read)
    assert await weights(read) == {"ann": 2, "bob": 14}


async def test_subscription(read: Client) -> None:
    bob = (await people(read))["bob"]["id"]
    async with following(
        read, "subscription($id: ID!) { markMade(userId: $id) { weight user { markWeight } } }", id=bob
    ) as marks:
        await read.events(
            [
                happened("order.paid", 20, "ann", orderId="o20"),
                happened("order.paid", 21, "bob", orderId="o21"),
                happened("everything.marked", 22, "bob", weight=1),
            ]
        )
        await drain(read)
        assert await marks.next() == {"markMade": {"weight": 2, "user": {"markWeight": 17}}}
        assert await marks.next() == {"markMade": {"weight": 1, "user": {"markWeight": 17}}}


async def test_event_types(read: Client) -> None:
    wrong = await read.events(
        [happened("everything.marked", 30, "bob", weight=0), happened("everything.marked", 31, "bob", whisper="x")]
    )
    problems = [[error["path"] for error in result["errors"]] for result in wrong["results"]]
    assert problems == [[["properties", "weight"]], [["properties", "weight"]]]
    types = {one["name"]: one["owner"] for one in (await read.data("{ eventTypes { name owner } }"))["eventTypes"]}
    mine = {name for name, owner in types.items() if owner == "everything"}
    assert mine == {"everything.marked", "everything.spent", "everything.reviewed", "everything.noticed"}


MARKED = '{ events(filter: {type: ["everything.marked"]}) { nodes { properties } } marks(first: 1) { nodes { note } } }'


async def test_personal_properties_are_masked(read: Client) -> None:
    blind = await with_scopes(read, "events:read", "marks:read")
    assert (await blind.data(MARKED))["events"]["nodes"] == [{"properties": {"weight": 12, "whisper": "***"}}]
    assert (await blind.data(MARKED))["marks"]["nodes"] == [{"note": "h***"}]
    assert (await read.data(MARKED))["events"]["nodes"] == [{"properties": {"weight": 12, "whisper": "has a cold"}}]


async def test_handlers_announce(read: Client) -> None:
    data = await read.data(
        '{ events(filter: {type: ["everything.noticed"]}) { nodes { properties user { identities { externalId } } } } }'
    )
    names = sorted(event["user"]["identities"][0]["externalId"] for event in data["events"]["nodes"])
    assert names == ["ann", "ann", "ann", "bob"]
    assert data["events"]["nodes"][0]["properties"] == {"weight": 2}


async def test_deliverers_with_wiring(read: Client, book: Path) -> None:
    ann = (await people(read))["ann"]["id"].removeprefix("User_")
    signed = hmac.new(SECRET.encode(), ann.encode(), hashlib.sha256).hexdigest()
    lines = lines_of(book)
    assert lines[0] == "open"
    assert len(lines) == 5
    assert lines.count(f"{ann} 2 {signed}") == 3
    await drain(read)
    assert lines_of(book) == lines


async def test_jobs(read: Client) -> None:
    evening = datetime(2026, 3, 1, 15, tzinfo=UTC)
    assert await run_jobs(read, evening) == 0
    assert await run_jobs(read, evening + timedelta(hours=2)) == 1
    assert await run_jobs(read, evening + timedelta(hours=3)) == 0
    await drain(read)
    assert (await read.data("{ markReviews { day people } }"))["markReviews"] == [{"day": "2026-03-01", "people": 2}]


async def test_scopes(read: Client) -> None:
    narrow = await with_scopes(read, "users:read")
    answer = await narrow.graphql("{ users(first: 1) { nodes { id markWeight } } }")
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["FORBIDDEN"]
    assert (await narrow.graphql("{ markPerOrder }"))["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    answer = await narrow.graphql("{ users(filter: {markWeight: {gt: 1}}) { nodes { id } } }")
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    reader = await with_scopes(read, "users:read", "marks:read")
    assert "errors" not in await reader.graphql(PEOPLE)
    ann = (await people(read))["ann"]["id"]
    assert (await reader.graphql(SPEND, user=ann, weight=1, key="k"))["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_indicators(read: Client) -> None:
    data = await read.data(
        """{ indicators(keys: ["everything_weight"]) { key name owner unit definition higherIsBetter
             series(from: "2026-03-01", to: "2026-03-03") { start value numerator denominator complete } } }"""
    )
    [found] = data["indicators"]
    days = found.pop("series")
    assert found == {
        "key": "everything_weight",
        "name": "Weight of marks",
        "owner": "everything",
        "unit": "POINTS",
        "definition": "Sum of the weights of marks, by their day.",
        "higherIsBetter": True,
    }
    point = {"denominator": None}
    assert days == [
        {**point, "start": "2026-03-01", "value": 20.0, "numerator": 20, "complete": True},
        {**point, "start": "2026-03-02", "value": 0.0, "numerator": 0, "complete": False},
    ]


async def test_public_routes_get_the_raw_body_and_record(read: Client) -> None:
    stranger = read.with_key(None).http
    body = b"<mark>k1|store|bob|3</mark>"
    signed = {"x-signature": hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}
    answer = await stranger.post("/plugins/everything/hook", content=body, headers=signed)
    assert (answer.status_code, answer.headers["content-type"], answer.text) == (200, "text/xml; charset=utf-8", "<accepted/>")
    assert (await stranger.post("/plugins/everything/hook", content=body, headers=signed)).text == "<duplicate/>"
    await drain(read)
    assert await weights(read) == {"ann": 6, "bob": 17}
    refused = await stranger.post("/plugins/everything/hook", content=body)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "BAD_SIGNATURE")
    large = await stranger.post("/plugins/everything/hook", content=b"x" * 1_048_577, headers=signed)
    assert (large.status_code, large.json()["errors"][0]["code"]) == (413, "TOO_LARGE")
    broken = b"<mark></mark>"
    signed = {"x-signature": hmac.new(SECRET.encode(), broken, hashlib.sha256).hexdigest()}
    failed = await stranger.post("/plugins/everything/hook", content=broken, headers=signed)
    assert (failed.status_code, failed.json()["errors"][0]["code"]) == (500, "PLUGIN_FAILED")
    assert (await stranger.get("/plugins/everything/hello?to=Ann")).json() == {"hello": "Ann"}


async def test_scoped_routes(read: Client) -> None:
    path = "/plugins/everything/count"
    assert (await read.http.get(path)).text == "5"
    nobody = await read.with_key(None).http.get(path)
    assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, 'Bearer realm="scrm"')
    assert (await (await with_scopes(read, "users:read")).http.get(path)).status_code == 403
    assert (await (await with_scopes(read, "marks:read")).http.get(path)).status_code == 200
    assert (await read.http.post(path)).status_code == 405


async def test_a_route_decides(read: Client) -> None:
    path, bob = "/plugins/everything/till", (await people(read))["bob"]["id"].removeprefix("User_")
    said = {"user": bob, "weight": 4, "receipt": "r-1"}
    assert (await read.http.post(path, json=said)).json() == {"again": False, "perOrder": 2}
    assert (await read.http.post(path, json=said)).json() == {"again": True, "perOrder": 2}
    assert await weights(read) == {"ann": 6, "bob": 10}
    refused = await read.http.post(path, json={**said, "weight": 99, "receipt": "r-2"})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "NOT_ENOUGH_MARKS")
    assert await weights(read) == {"ann": 6, "bob": 10}


async def test_rules_count_from_their_change_on_and_secrets_are_not_shown(read: Client, migrated_url: str, book: Path) -> None:
    sections = {"everything": {**told(book)["everything"], "per_order": 5}}
    async with serving(migrated_url, modules={}, sections=sections) as changed:
        assert await changed.data("{ markPerOrder }") == {"markPerOrder": 5}
    await read.events([happened("order.paid", 40, "ann", orderId="o40")])
    await drain(read)
    assert await weights(read) == {"ann": 11, "bob": 14}
    data = await read.data("{ plugins { name settings settingsSchema } }")
    [mine] = [plugin for plugin in data["plugins"] if plugin["name"] == "everything"]
    assert mine["settings"] == {"currency": "CNY", "timezone": "Asia/Shanghai", "per_order": 5}
    assert "secret" not in str(mine)
    assert (await replayed(read, "everything")).equal


async def test_tables_are_rebuilt_from_the_log(read: Client) -> None:
    assert sorted((await replayed(read, "everything")).tables) == [
        "announcements",
        "everything_marks",
        "everything_moves",
        "everything_reviews",
    ]
    ann = (await people(read))["ann"]["id"]
    await read.data(SPEND, user=ann, weight=4, key="k1")
    assert (await replayed(read, "everything")).equal
    await read.services.db.write(lambda tx: tx.execute(sa.text("update everything_marks set weight = 1 where weight = 12")))
    assert not (await replayed(read, "everything")).equal


def test_commands(everything: Path, migrated_url: str, scrm_here: Commands, tmp_path: Path) -> None:
    (tmp_path / "scrm.toml").write_text('[plugins.everything]\nenabled = true\nbook = "mine.txt"\n')

    lines = [
        "db upgrade",
        "everything tell --least 3",
        "everything add nowhere ann 2 k",
        "everything --help",
        "everything tell --last 3",
    ]
    _, told, added, helped, wrong = scrm_here(*lines, SCRM_DATABASE_URL=migrated_url)
    assert (told.code, told.out) == (0, "0 marks of 3 or more; the book is mine.txt\n")
    assert (added.code, added.out) == (0, "REJECTED\n")
    assert "nowhere" in added.err[0]
    assert helped.code == 0
    assert "Say how many marks there are." in helped.out
    assert (wrong.code, len(wrong.err)) == (2, 1)


async def test_history_is_filled_in_without_a_word(everything: Path, migrated_url: str, book: Path) -> None:
    clock = lambda: NOON + timedelta(days=1)  # noqa: E731
    async with serving(migrated_url, clock=clock) as before:
        await before.data(CREATE_CHANNEL)
        assert (await before.events(ORDERS))["accepted"] == 4
    async with serving(migrated_url, modules={}, sections=told(book), clock=clock) as client:
        await drain(client)
        assert await weights(client) == {"ann": 6, "bob": 2}
        assert lines_of(book) == ["open"]
        await client.events([WHISPER])
        await drain(client)
        heard: list[str] = []
        async with following(client, "subscription { eventRecorded(after: 0) { type } }") as recorded:
            while not heard or heard[-1] != "everything.marked":
                heard.append((await recorded.next())["eventRecorded"]["type"])
        assert heard.count("order.paid") == 4
        assert "everything.noticed" not in heard
        noticed = await client.data('{ events(filter: {type: ["everything.noticed"]}) { totalCount } }')
        assert noticed["events"]["totalCount"] == 4


# ---- hooks


async def test_merge_and_unmerge(read: Client) -> None:
    found = await people(read)
    ann, bob = found["ann"]["id"], found["bob"]["id"]
    pair = """mutation($a: ID!, $b: ID!, $dry: Boolean!) {
      mergeUsers(input: {keptId: $a, absorbedId: $b, dryRun: $dry}) { mergeId moved { owner count } errors { code } } }"""
    plan = (await read.data(pair, a=ann, b=bob, dry=True))["mergeUsers"]
    assert {"owner": "everything", "count": 2} in plan["moved"]
    merged = (await read.data(pair, a=ann, b=bob, dry=False))["mergeUsers"]
    await drain(read)
    weight = "query($id: ID!) { user(id: $id) { markWeight marks { totalCount } } }"
    assert (await read.data(weight, id=ann))["user"] == {"markWeight": 20, "marks": {"totalCount": 5}}
    await read.events([happened("everything.marked", 50, "bob", weight=1)])
    await read.data("mutation($m: ID!) { unmergeUsers(input: {mergeId: $m}) { errors { code } } }", m=merged["mergeId"])
    await drain(read)
    assert (await read.data(weight, id=ann))["user"]["markWeight"] == 7
    assert (await read.data(weight, id=bob))["user"]["markWeight"] == 14
    assert (await replayed(read, "everything")).equal


async def test_export(read: Client) -> None:
    bob = (await people(read))["bob"]["id"]
    data = await read.data("mutation($id: ID!) { exportUser(input: {id: $id}) { export errors { code } } }", id=bob)
    marks = [{"day": "2026-03-01", "weight": 2, "note": None}, {"day": "2026-03-01", "weight": 12, "note": "has a cold"}]
    assert sorted(data["exportUser"]["export"]["plugins"]["everything"]["marks"], key=lambda one: one["weight"]) == marks


async def test_erase(read: Client) -> None:
    bob = (await people(read))["bob"]["id"]
    done = await read.data("mutation($id: ID!) { eraseUser(input: {id: $id}) { errors { code } } }", id=bob)
    assert done["eraseUser"]["errors"] == []
    await drain(read)
    data = await read.data(f'{MARKED[:-1]} user(id: "{bob}") {{ markWeight }} all: marks {{ totalCount }} }}')
    assert data["events"]["nodes"] == [{"properties": {"weight": 12}}]
    assert data["marks"]["nodes"] == [{"note": None}]
    assert data["user"] == {"markWeight": 0}
    assert data["all"] == {"totalCount": 5}
    assert (await replayed(read, "everything")).equal


async def test_lifespan_and_health(everything: Path, migrated_url: str, book: Path) -> None:
    async with serving(migrated_url, modules={}, sections=told(book)) as client:
        assert lines_of(book) == ["open"]
        status = "{ systemStatus { health { plugin ok detail } } }"
        assert (await client.data(status))["systemStatus"]["health"] == [
            {"plugin": "everything", "ok": True, "detail": "0 marks"}
        ]
        stranger = client.with_key(None).http
        ready = await stranger.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"ok": True})
        shut(book)
        assert (await client.data(status))["systemStatus"]["health"] == [
            {"plugin": "everything", "ok": False, "detail": "0 marks"}
        ]
        ready = await stranger.get("/readyz")
        why = {"everything": "it is not well; systemStatus says more"}
        assert (ready.status_code, ready.json()) == (503, {"ok": False, "notReady": ["everything"], "why": why})
        assert (await stranger.get("/livez")).status_code == 200
    assert lines_of(book) == ["closed"]
