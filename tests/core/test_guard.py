"""What one request may ask at most, what it costs, and that bombs are refused before anything slow looks at them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from graphql import get_introspection_query

from scrm.config import CostSettings, Limits, ServerSettings
from scrm.graphql.cost import Buckets
from scrm.testing.client import Client, serving
from tests.core.asking import channel, event, record


@pytest.fixture
async def client(migrated_url: str) -> AsyncIterator[Client]:
    async with serving(migrated_url) as client:
        yield client


async def refused(client: Client, query: str, **variables: Any) -> str:
    """The one code that a request is refused with; nothing of it was executed."""
    response = await client.http.post("/graphql", json={"query": query, "variables": variables})
    answer = orjson.loads(response.content)
    assert response.status_code == 400, answer
    assert "data" not in answer
    [error] = answer["errors"]
    code: str = error["extensions"]["code"]
    return code


def doubling(levels: int, innermost: str) -> str:
    """Fragments of which each spreads the next one twice."""
    parts = [f"fragment F{n} on User {{ ...F{n + 1} ...F{n + 1} }}" for n in range(levels)]
    return "{ users { nodes { ...F0 } } } " + " ".join(parts) + f" fragment F{levels} on User {{ {innermost} }}"


INTROSPECTION = "{ __schema { types { fields { type { fields { type { fields { type { fields { name } } } } } } } } } }"
OFTYPES = "{ __schema { types { " + "fields { type { " + "ofType { " * 25 + "name" + " }" * 25 + " } } } } }"
EACH = "type { ofType { name } }"
BOMBS = {
    "deep": ("{ users { nodes { " + "events { nodes { user { " * 5 + "id" + " } } }" * 5 + " } } }", "TOO_DEEP"),
    "brackets": ("{a" * 5_000, "TOO_DEEP"),
    "deep in fragments": (
        "{ users { nodes { ...A } } } fragment A on User { events { nodes { user { ...B } } } } "
        "fragment B on User { events { nodes { user { ...C } } } } "
        "fragment C on User { events { nodes { user { id tags { tag { key } } } } } }",
        "TOO_DEEP",
    ),
    "fragments": (doubling(30, "id city"), "TOO_MANY_FIELDS"),
    "many fragments": (doubling(150, "id"), "TOO_MANY_FIELDS"),
    "fields": ("{ users { nodes { " + "id city " * 501 + " } } }", "TOO_MANY_FIELDS"),
    "the same field": ("{ users { nodes { " + "id " * 900 + " } } }", "TOO_MANY_FIELDS"),
    "the same object": ("{ users { nodes { " + "points: events { a: nodes { id } } " * 120 + " } } }", "TOO_MANY_ALIASES"),
    "the same list": ("{ users { nodes { " + "events { nodes { id } } " * 200 + " } } }", "TOO_MANY_FIELDS"),
    "aliases": ("{ " + " ".join(f"a{n}: users {{ totalCount }}" for n in range(31)) + " }", "TOO_MANY_ALIASES"),
    "directives": ("{ users { nodes { id " + "@include(if: true) " * 51 + "} } }", "TOO_MANY_DIRECTIVES"),
    "tokens": ("{ users { nodes { id } } } # " + "#\n" * 2_001, "TOO_MANY_TOKENS"),
    "introspection": (INTROSPECTION, "GRAPHQL_VALIDATION_FAILED"),
    "types of types": (OFTYPES, "TOO_DEEP"),
    "itself": ("{ users { nodes { ...A } } } fragment A on User { id ...A }", "GRAPHQL_VALIDATION_FAILED"),
    "itself, deeper": (
        "{ users { nodes { ...A } } } fragment A on User { events { nodes { user { ...A } } } }",
        "GRAPHQL_VALIDATION_FAILED",
    ),
    "one long document": ("{ users { totalCount } }" + " " * 100_000, "TOO_LARGE"),
    "half of block strings": ("{ users { totalCount } }\n" + '\\"""\n' * 15_000, "GRAPHQL_PARSE_FAILED"),
    "half of strings": ("{ users { totalCount } }" + '\\"' * 45_000, "GRAPHQL_PARSE_FAILED"),
    "an escape and tokens": ("# \\u0000\n{" + "a " * 45_000, "TOO_MANY_TOKENS"),
    "digits": ("{ users(first: " + "1" * 4_301 + ") { totalCount } }", "BAD_REQUEST"),
    "digits of a default": ("query($n: Int = " + "1" * 4_301 + ") { users(first: $n) { totalCount } }", "BAD_REQUEST"),
    "fragments beside each other": (
        "{ viewer { name "
        + " ".join(f"...F{n}" for n in range(61))
        + " } } "
        + " ".join(f"fragment F{n} on Viewer {{ name }}" for n in range(61)),
        "TOO_MANY_FIELDS",
    ),
    "the schema over and over": (
        "{"
        + " ".join(f"a{n}: __schema {{ types {{ fields {{ args {{ type {{ ofType {{ name }} }} }} }} }} }}" for n in range(30))
        + "}",
        "TOO_MANY_NODES",
    ),
    "nodes": ("{ users(first: 100) { nodes { events(first: 100) { nodes { id } } } } }", "TOO_MANY_NODES"),
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_bomb_is_refused_at_once(client: Client, bomb: str) -> None:
    query, expected = BOMBS[bomb]
    start = time.process_time()
    assert await refused(client, query) == expected
    assert time.process_time() - start < 1.0  # its own work is some milliseconds; a fall into exponential work never ends
    assert (await client.data("{ users { totalCount } }"))["users"] == {"totalCount": 0}


async def test_a_limit_is_the_last_that_is_answered(migrated_url: str) -> None:
    limits = Limits(depth=3, fields=6, aliases=1, directives=2, tokens=30, list_items=2, nodes=40)
    async with serving(migrated_url, server=ServerSettings(limits=limits)) as client:
        answered = [
            "{ users { nodes { id } } }",
            "{ users { nodes { id city country language } } }",
            "{ a: users { totalCount } }",
            "{ users @include(if: true) { totalCount @skip(if: false) } }",
            "{ users(first: 40) { nodes { id } } }",
            "{ __schema { types { fields { name } } } }",
        ]
        for query in answered:
            await client.data(query)
        await client.data("query($ids: [ID!]) { users(filter: {ids: $ids}) { totalCount } }", ids=["User_" + "0" * 32] * 2)
        over = {
            "{ users { nodes { tags { source } } } }": "TOO_DEEP",
            "{ users { nodes { id city country language birthday } } }": "TOO_MANY_FIELDS",
            "{ a: users { b: totalCount } }": "TOO_MANY_ALIASES",
            "{ users @include(if: true) { totalCount @skip(if: false) @include(if: true) } }": "TOO_MANY_DIRECTIVES",
            "{ users { nodes { id city } } } " + "# a\n" * 31: "TOO_MANY_TOKENS",
            "{ users(first: 41) { nodes { id } } }": "TOO_MANY_NODES",
        }
        for query, code in over.items():
            assert await refused(client, query) == code, query
        asked = "query($ids: [ID!]) { users(filter: {ids: $ids}) { totalCount } }"
        assert await refused(client, asked, ids=["User_" + "0" * 32] * 3) == "LIST_TOO_LONG"


async def test_an_answer_says_what_it_cost(client: Client) -> None:
    async def cost(query: str, **variables: Any) -> int:
        response = await client.http.post("/graphql", json={"query": query, "variables": variables})
        said = orjson.loads(response.content)["extensions"]["cost"]
        assert said["throttleStatus"]["maximumAvailable"] == 2_000_000
        assert said["throttleStatus"]["restoreRate"] == 1_000_000
        assert said["throttleStatus"]["currentlyAvailable"] <= 2_000_000 - said["requestedQueryCost"]
        found: int = said["requestedQueryCost"]
        return found

    assert await cost("{ users(first: 7) { nodes { id } } }") == 1 + 7
    assert await cost("{ users { nodes { id city } } }") == 1 + 20
    assert await cost("query($n: Int) { users(first: $n) { nodes { id } } }", n=30) == 1 + 30
    assert await cost("query($n: Int) { users(first: $n) { nodes { id } } }", n=5) == 1 + 5
    assert await cost("query($n: Int = 9) { users(last: $n) { nodes { id } } }") == 1 + 9
    assert await cost("{ users(first: 10) { nodes { events(first: 3) { nodes { id } } } } }") == 1 + 10 * (1 + 1 + 3)
    assert (
        await cost("{ users(first: 2) { ...P } } fragment P on UserConnection { nodes { ...U } } fragment U on User { id }") == 3
    )
    assert await cost("{ users(first: 1) { totalCount } }") == 1 + 5
    assert await cost("{ viewer { name } }") > 0
    assert await cost('mutation { createTag(input: {key: "a", name: "a"}) { tag { key } } }') > 10


async def test_a_variable_does_not_open_a_way_round_the_limit_on_tokens(client: Client) -> None:
    start = time.process_time()
    query = "query($id: ID!) { user(id: $id) { id } }" + " a" * 30_000
    assert await refused(client, query, id="a\x00") == "INVALID_TEXT"
    assert time.process_time() - start < 1.0


async def test_graphiql_may_ask_for_all_of_the_schema(client: Client) -> None:
    every = get_introspection_query(input_value_deprecation=True, directive_is_repeatable=True, schema_description=True)
    answer = await client.graphql(every)
    assert "errors" not in answer
    assert answer["extensions"]["cost"]["requestedQueryCost"] > 10_000


async def test_who_asks_too_much_waits_and_others_do_not(migrated_url: str) -> None:
    settings = ServerSettings(cost=CostSettings(maximum=60, restore_per_second=1))
    async with serving(migrated_url, server=settings) as client:
        ask = {"query": "{ users(first: 49) { nodes { id } } }"}
        assert (await client.http.post("/graphql", json=ask)).status_code == 200
        response = await client.http.post("/graphql", json=ask)
        [error] = orjson.loads(response.content)["errors"]
        assert (response.status_code, error["extensions"]["code"]) == (429, "THROTTLED")
        seconds = error["extensions"]["params"]["retryAfterSeconds"]
        assert 30 < seconds <= 40
        assert int(response.headers["retry-after"]) >= seconds
        other = client.with_key(await client.key("users:read", name="other"))
        assert (await other.http.post("/graphql", json=ask)).status_code == 200
        dear = await client.graphql("{ users(first: 60) { nodes { id } } }")
        assert dear["errors"][0]["extensions"]["code"] == "QUERY_TOO_EXPENSIVE"


def test_a_bucket_fills_again() -> None:
    now = 0.0
    buckets = Buckets(CostSettings(maximum=100, restore_per_second=10), clock=lambda: now)
    assert buckets.charge("a", 100).left == 0
    assert buckets.charge("b", 30).left == 70
    now = 5.0
    assert buckets.charge("a", 30).left == 20
    now = 1_000.0
    assert buckets.charge("a", 1).left == 99


async def test_the_schema_is_shown_to_who_may_see_it(migrated_url: str) -> None:
    for ide in (True, False):
        async with serving(migrated_url, server=ServerSettings(ide=ide)) as client:
            other = client.with_key(await client.key("users:read", name=f"other {ide}"))
            for query in ("{ __schema { queryType { name } } }", '{ users { totalCount } __type(name: "User") { name } }'):
                assert "errors" not in await client.graphql(query)
                assert await refused(other, query) == "FORBIDDEN"
                assert "errors" not in await other.graphql("{ __typename users { __typename totalCount } }")
            answer = await client.graphql("{ userz { totalCount } }")
            assert ("Did you mean" in answer["errors"][0]["message"]) is ide
            answer = await client.graphql(
                "query($o: [UserOrder!]) { users(orderBy: $o) { totalCount } }", o=[{"createdAtt": "ASC"}]
            )
            assert ("Did you mean" in answer["errors"][0]["message"]) is ide


async def test_an_error_is_said_by_the_long_way_and_paid_once(client: Client) -> None:
    await channel(client, "oa")
    await record(client, event(1))
    shortcut = client.app.state.endpoint.shortcut
    before = shortcut.taken
    await client.data("query($n: Int!) { users(first: $n) { nodes { id } } channels { nodes { key } } }", n=3)
    assert shortcut.taken == before + 1
    answer = await client.graphql('{ users(after: "x") { nodes { id } } channels { nodes { key } } }')
    assert shortcut.taken == before + 1
    assert answer["data"] == {"users": None, "channels": {"nodes": [{"key": "oa"}]}}
    assert answer["errors"][0]["path"] == ["users"]
    left = answer["extensions"]["cost"]["throttleStatus"]["currentlyAvailable"]
    assert left >= 2_000_000 - 2 * answer["extensions"]["cost"]["requestedQueryCost"]
