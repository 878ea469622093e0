"""What a key may not see is not in its answers; what one plugin breaks stays its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from scrm.loader import load_plugins
from tests.contract import broken_plugin, plugin_for_reads
from tests.contract.differential import simple
from tests.contract.world import START, World, opened, settings

ANN = "User_02000000000000000000000000000001"
SECRETS = ("李雷", "O'Brien", "13800000001", "1990", "open-", "union-", "s'1", '"x"', "e@x.cn", "1992-")


async def ask(world: World, query: str, scopes: tuple[str, ...] | None = None, **variables: Any) -> tuple[Any, str]:
    """Data and errors of an answer, and its text; by a key with these scopes, or the one that sees no personal values."""
    client = (
        world.careful if scopes is None else world.client.with_key(await world.client.key(*scopes, name=f"key {next(NUMBERS)}"))
    )
    response = await client.http.post("/graphql", json={"query": query, "variables": variables})
    return simple(orjson.loads(response.content)), response.text


NUMBERS = iter(range(10_000))


async def test_personal_values_are_masked(few: World) -> None:
    query = """{ users { nodes { displayName phone email birthday city attributes
                   identities { externalId unionId channel { key } } } }
                 user(id: "%s") { displayName } node(id: "%s") { ... on User { phone } }
                 events(first: 2) { nodes { user { displayName } } } }"""
    answer, text = await ask(few, query % (ANN, ANN))
    assert answer["errors"] == []
    assert not [secret for secret in SECRETS if secret in text]
    smiling, nameless, brian, ann = answer["data"]["users"]["nodes"]
    assert ann == {
        "displayName": "李***", "phone": "+***", "email": None, "birthday": None, "city": "上海",
        "attributes": {"vip": True, "n": 10, "secret": "***"},
        "identities": [
            {"externalId": "o***", "unionId": "u***", "channel": {"key": "oa"}},
            {"externalId": "s***", "unionId": None, "channel": {"key": "store"}},
        ],
    }  # fmt: skip
    assert (smiling["displayName"], nameless["displayName"], brian["displayName"]) == ("😀***", None, "O***")
    assert smiling["attributes"] == {"n": 1.5, "day": "2026-03-01T10:00:00Z", "deep": {"a": [1, None, "\"'"]}}
    assert answer["data"]["user"] == {"displayName": "李***"}
    assert answer["data"]["node"] == {"phone": "+***"}


@pytest.mark.parametrize(
    "arguments",
    [
        'filter: {displayName: {startsWith: "李"}}',
        'filter: {phone: {eq: "1"}}',
        "filter: {email: {isNull: true}}",
        'filter: {birthday: {gt: "1990-01-01"}}',
        "filter: {birthdayWithinDays: 3}",
        'filter: {attributes: [{key: "secret", string: {eq: "x"}}]}',
        "filter: {attributes: [{key: $key, string: {isNull: false}}]}",
        "filter: {attributes: $filters}",
        'filter: {and: [{not: [{attributes: [{key: "n", number: {gt: 0}}, {key: "secret", boolean: true}]}]}]}',
        'filter: {event: {properties: [{key: "whisper", string: {isNull: false}}]}}',
        "filter: {or: [{displayName: {isNull: true}}]}",
        "orderBy: [{createdAt: ASC}, {displayName: ASC}]",
    ],
)
async def test_personal_values_cannot_be_asked_for_by_filter_or_order(few: World, arguments: str) -> None:
    declared = "($key: String!)" if "$key" in arguments else "($filters: [AttributeFilter!])" if "$filters" in arguments else ""
    query = f"query{declared} {{ users({arguments}) {{ totalCount nodes {{ id }} }} }}"
    answer, text = await ask(few, query, key="secret", filters=[{"key": "secret", "string": {"isNull": False}}])
    assert answer == {"data": {"users": None}, "errors": [[["users"], "FORBIDDEN"]]}, text
    allowed, _ = await ask(few, query, ("*",), key="secret", filters=[{"key": "secret", "string": {"isNull": False}}])
    assert allowed["errors"] == []


async def test_a_plan_for_one_key_is_not_used_for_another(few: World) -> None:
    query = (
        "query($key: String!) { users(filter: {attributes: [{key: $key, string: {isNull: false}}]}) { nodes { displayName } } }"
    )
    answer, _ = await ask(few, query, key="vip")
    assert answer == {"data": {"users": {"nodes": [{"displayName": None}]}}, "errors": []}
    answer, _ = await ask(few, query, key="secret")
    assert answer["errors"] == [[["users"], "FORBIDDEN"]]
    answer, _ = await ask(few, query, ("*",), key="secret")
    assert answer == {"data": {"users": {"nodes": [{"displayName": "李雷"}]}}, "errors": []}
    query = "{ users(last: 1) { nodes { displayName } } }"
    shown = [
        (await ask(few, query, scopes))[0]["data"]["users"]["nodes"][0]["displayName"] for scopes in [("*",), None, ("*",), None]
    ]
    assert shown == ["李雷", "李***", "李雷", "李***"]


@pytest.mark.parametrize(
    ("scope", "root", "query"),
    [
        ("users:read", "users", "{ users { totalCount } }"),
        ("users:read", "users", "{ users { __typename } }"),
        ("users:read", "user", '{ user(id: "%s") { id } }'),
        ("users:read", "node", '{ node(id: "%s") { id } }'),
        ("users:read", "events", "{ events { nodes { type user { id } } } }"),
        ("tags:read", "users", "{ users { nodes { id tags { source } } } }"),
        ("tags:read", "users", '{ users(filter: {tag: {keys: ["gold"]}}) { nodes { id } } }'),
        ("tags:read", "users", '{ users(filter: {or: [{not: [{tag: {keys: ["gold"]}}]}]}) { totalCount } }'),
        ("tags:read", "node", '{ node(id: "Tag_05000000000000000000000000000001") { id } }'),
        ("events:read", "users", "{ users { nodes { events { totalCount } } } }"),
        ("events:read", "users", '{ users(filter: {event: {type: ["order.paid"]}}) { nodes { id } } }'),
        ("channels:read", "users", "{ users { nodes { identities { channel { key } } } } }"),
        ("channels:read", "user", '{ user(id: "%s") { acquisitionChannel { key } } }'),
        ("reads:read", "users", "{ users { nodes { noteScore } } }"),
        ("reads:read", "users", "{ users { nodes { nickname } } }"),
        ("reads:read", "users", "{ users { nodes { noteBook { size } } } }"),
        ("reads:read", "users", "{ users(filter: {noteScore: {gt: 0}}) { totalCount } }"),
        ("reads:read", "users", "{ users(orderBy: [{noteScore: ASC}]) { nodes { id } } }"),
        ("reads:read", "notes", "{ notes { nodes { id } } }"),
        ("imports:read", "imports", "{ imports { totalCount } }"),
    ],
)
async def test_nothing_is_shown_without_its_scope(few: World, scope: str, root: str, query: str) -> None:
    everything = ("users:read", "tags:read", "events:read", "channels:read", "reads:read", "imports:read", "pii:read")
    query = query.replace("%s", ANN)
    answer, text = await ask(few, query, tuple(each for each in everything if each != scope))
    [[path, code]] = answer["errors"]
    assert (path[0], code) == (root, "FORBIDDEN"), text
    assert set(at(answer["data"], path)) == {None}
    assert scope in text
    allowed, _ = await ask(few, query, everything)
    assert allowed["errors"] == []


def at(value: Any, path: list[str]) -> list[Any]:
    """What stands at a path, in every item of the lists on the way."""
    if isinstance(value, list):
        return [found for each in value for found in at(each, path)]
    return at(value[path[0]], path[1:]) if path else [value]


async def test_a_forbidden_field_leaves_the_others(few: World) -> None:
    query = """{ users(last: 1) { nodes { city noteScore
        deep: events(first: 1) { nodes { type channel { key stats(from: "2026-01-01", to: "2026-02-01") { orders } } } } } } }"""
    answer, _ = await ask(few, query, ("users:read", "events:read"))
    [user] = answer["data"]["users"]["nodes"]
    assert (user["city"], user["noteScore"]) == ("上海", None)
    assert user["deep"]["nodes"][0]["type"]
    assert user["deep"]["nodes"][0]["channel"] is None
    assert answer["errors"] == [
        [["users", "nodes", "deep", "nodes", "channel"], "FORBIDDEN"],
        [["users", "nodes", "noteScore"], "FORBIDDEN"],
    ]


async def test_a_forbidden_root_leaves_the_others(few: World) -> None:
    answer, _ = await ask(few, "{ users { totalCount } tags { totalCount } }", ("tags:read",))
    assert answer == {"data": {"users": None, "tags": {"totalCount": 2}}, "errors": [[["users"], "FORBIDDEN"]]}


@pytest.fixture(scope="session")
async def broken(anyio_backend: str, small_url: str) -> AsyncIterator[World]:
    """The few rows with a plugin whose fields fail beside one that is well."""
    extra = {"reads": plugin_for_reads.plugin, "broken": broken_plugin.plugin}
    async with opened(small_url, load_plugins(settings(small_url), extra=extra, at=START)) as world:
        yield world


def failures(answer: dict[str, Any], text: str) -> list[str]:
    """The last step of the paths of fields that failed, and whose they are."""
    errors = orjson.loads(text).get("errors", [])
    assert {each["extensions"]["code"] for each in errors} <= {"PLUGIN_FIELD_FAILED"}
    assert {each["extensions"]["plugin"] for each in errors} <= {"broken"}
    assert "cannot count" not in text
    return sorted(each["path"][-1] for each in errors)


@pytest.mark.parametrize("name", ["brokenSql", "brokenSource", "brokenBatch", "brokenType", "brokenSize", "brokenAnswer"])
@pytest.mark.parametrize(
    ("query", "place"),
    [
        ('{ user(id: "%s") { city noteScore a: FIELD } }', ("user",)),
        ("{ users(last: 1) { nodes { city noteScore a: FIELD } totalCount } }", ("users", "nodes", 0)),
        ("{ events(first: 1) { edges { node { user { city noteScore a: FIELD } } } } }", ("events", "edges", 0, "node", "user")),
        ('{ node(id: "%s") { ... on User { city noteScore a: FIELD } } }', ("node",)),
    ],
)
async def test_a_plugins_failing_field_is_null_and_the_rest_is_there(broken: World, name: str, query: str, place: Any) -> None:
    answer, text = await ask(broken, query.replace("%s", ANN).replace("FIELD", name), ("*",))
    assert failures(answer, text) == ["a"]
    found = answer["data"]
    for step in place:
        found = found[step]
    assert found == {"city": "上海", "noteScore": "18014398509481978", "a": None}


async def test_a_failure_leaves_other_roots_and_other_fields(broken: World) -> None:
    query = """{ a: users(last: 1) { nodes { brokenSql brokenNot nickname(prefix: "n") } }
                 b: users(last: 1) { nodes { noteScore brokenNot } }
                 c: user(id: "%s") { brokenBatch brokenType brokenNot } d: tags { totalCount } }"""
    answer, text = await ask(broken, query.replace("%s", ANN), ("*",))
    assert failures(answer, text) == ["brokenBatch", "brokenSql", "brokenType"]
    assert answer["data"] == {
        "a": {"nodes": [{"brokenSql": None, "brokenNot": 12, "nickname": "n-0001"}]},
        "b": {"nodes": [{"noteScore": "18014398509481978", "brokenNot": 12}]},
        "c": {"brokenBatch": None, "brokenType": None, "brokenNot": 12},
        "d": {"totalCount": 2},
    }
