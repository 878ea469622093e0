"""The GraphQL endpoint as HTTP: who gets in, what is read, and how errors look, on both engines."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from scrm.app import create_app
from scrm.auth import revoke_key
from scrm.config import ANONYMOUS, ServerSettings, Settings
from scrm.errors import StartupError
from scrm.plugin_set import PluginSet
from scrm.testing.client import Client, serving
from tests.core.asking import Clock, channel, event, record

JSON = {"content-type": "application/json"}


@pytest.fixture
async def client(migrated_url: str) -> AsyncIterator[Client]:
    async with serving(migrated_url, clock=Clock()) as client:
        yield client


async def post(client: Client, content: bytes, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """The status and the answer to a body as it stands."""
    response = await client.http.post("/graphql", content=content, headers={**JSON, **(headers or {})})
    answer: dict[str, Any] = orjson.loads(response.content)
    return response.status_code, answer


def code(answer: dict[str, Any]) -> str:
    """The code of an answer's one error, of which nothing was executed."""
    assert "data" not in answer
    [error] = answer["errors"]
    assert error["message"]
    found: str = error["extensions"]["code"]
    return found


async def test_nothing_answers_without_a_key(client: Client) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer scrm_wrong"},
        {"Authorization": "Basic c2NybTo="},
        {"Authorization": client.http.headers["authorization"].removeprefix("Bearer ")},
    ):
        stranger = client.with_key(None)
        response = await stranger.http.post("/graphql", json={"query": "{ __typename }"}, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert response.headers["content-type"] == "application/json"
        assert code(orjson.loads(response.content)) == "UNAUTHENTICATED"
        events = await stranger.http.post("/events", json=[event(1)], headers=headers)
        assert events.status_code == 401
        assert orjson.loads(events.content)["errors"][0]["code"] == "UNAUTHENTICATED"


async def test_a_revoked_key_opens_nothing(client: Client) -> None:
    other = client.with_key(await client.key("users:read", name="short-lived"))
    assert (await other.data("{ users { totalCount } }"))["users"] == {"totalCount": 0}
    services = client.services
    await services.db.write(revoke_key, "short-lived", at=services.db.clock(), zone=services.settings.zone, actor="test")
    client.app.state.keys.forget()
    assert code(await other.graphql("{ users { totalCount } }")) == "UNAUTHENTICATED"


async def test_only_frightening_words_open_the_server(migrated_url: str) -> None:
    with pytest.raises(ValueError, match="everyone who reaches this server may read and change everything"):
        ServerSettings(allow_anonymous="yes")
    async with serving(migrated_url, server=ServerSettings(allow_anonymous=ANONYMOUS)) as client:
        stranger = client.with_key(None)
        assert (await stranger.data("{ viewer { name scopes pii } }"))["viewer"] == {
            "name": "anonymous",
            "scopes": ["*"],
            "pii": True,
        }
        wrong = client.with_key("scrm_wrong")
        assert code(await wrong.graphql("{ viewer { name } }")) == "UNAUTHENTICATED"


async def test_get_shows_the_page_and_changes_nothing(client: Client) -> None:
    page = await client.http.get("/graphql", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")
    for query, name in (
        ('mutation { createTag(input: {key: "x", name: "x"}) { tag { id } } }', None),
        ("mutation B { nothing } query A { viewer { name } }", "B"),
        ("subscription { eventRecorded { id } }", None),
        ('fragment T on TagPayload { tag { id } } mutation { createTag(input: {key: "x", name: "x"}) { ...T } }', None),
    ):
        for accept in ("application/json", "text/event-stream", "*/*", "text/html"):
            said = {"query": query} | ({"operationName": name} if name else {})
            response = await client.http.get("/graphql", params=said, headers={"accept": accept})
            assert (response.status_code, response.headers["allow"]) == (405, "POST")
            assert code(orjson.loads(response.content)) == "METHOD_NOT_ALLOWED"
    assert (await client.http.get("/graphql", headers={"accept": "application/json"})).status_code == 405
    for method in ("PUT", "DELETE", "PATCH"):
        response = await client.http.request(method, "/graphql", json={"query": "{ viewer { name } }"})
        assert (response.status_code, code(orjson.loads(response.content))) == (405, "METHOD_NOT_ALLOWED")
    assert (await client.data("{ tags { totalCount } }"))["tags"] == {"totalCount": 0}


async def test_a_query_may_be_got(client: Client) -> None:
    await channel(client, "oa")
    query = "query A($n: Int) { channels(first: $n) { nodes { key } } } query B { viewer { kind } }"
    answers = []
    for said in ({"query": query, "operationName": "A", "variables": '{"n": 1}'}, {"query": query, "operationName": "B"}):
        response = await client.http.get("/graphql", params=said)
        assert response.status_code == 200
        answers.append(orjson.loads(response.content)["data"])
    assert answers == [{"channels": {"nodes": [{"key": "oa"}]}}, {"viewer": {"kind": "KEY"}}]
    for wrong, expected in (
        ({"query": query, "operationName": "A", "variables": "{"}, "BAD_REQUEST"),
        ({"query": query, "operationName": "A", "variables": "[1]"}, "BAD_REQUEST"),
        ({"query": query}, "BAD_REQUEST"),
        ({"query": "{ a\x00 }"}, "INVALID_TEXT"),
        ({"query": "{"}, "GRAPHQL_PARSE_FAILED"),
    ):
        response = await client.http.get("/graphql", params=wrong)
        assert (response.status_code, code(orjson.loads(response.content))) == (400, expected)
    stranger = await client.with_key(None).http.get("/graphql", params={"query": "{ viewer { name } }"})
    assert stranger.status_code == 401


async def test_an_error_of_the_document_has_the_status_that_its_reader_expects(client: Client) -> None:
    for query, values in (("{", {}), ("{ nothing }", {}), ("query($n: Int) { users(first: $n) { totalCount } }", {"n": "x"})):
        for accept, status in (("application/json", 200), ("application/graphql-response+json", 400), ("*/*", 400)):
            body = {"query": query, "variables": values}
            response = await client.http.post("/graphql", json=body, headers={"accept": accept})
            assert response.status_code == status
            assert "data" not in orjson.loads(response.content)
    response = await client.http.post("/graphql", json={"query": "{a" * 70}, headers={"accept": "application/json"})
    assert response.status_code == 400


async def test_the_content_type_is_what_was_asked_for(client: Client) -> None:
    async def kind(accept: str | None, query: str = "{ viewer { name } }") -> str:
        headers = {"accept": accept} if accept else {}
        response = await client.http.post("/graphql", json={"query": query}, headers=headers)
        found: str = response.headers["content-type"]
        return found

    assert await kind(None) == await kind("*/*") == await kind("application/json") == "application/json"
    assert await kind("application/graphql-response+json, application/json") == "application/graphql-response+json"
    assert await kind("application/graphql-response+json", "{ nothing }") == "application/graphql-response+json"
    for wrong in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "multipart/form-data; boundary=x",
    ):
        status, answer = await post(client, b'{"query": "{ viewer { name } }"}', {"content-type": wrong})
        assert (status, code(answer)) == (415, "UNSUPPORTED_MEDIA_TYPE"), wrong


async def test_a_packed_body_is_refused_by_name(client: Client) -> None:
    asked = b'{"query": "{ viewer { name } }"}'
    for encoding in ("gzip", "br", "gzip, identity"):
        status, answer = await post(client, gzip.compress(asked), {"content-encoding": encoding})
        assert (status, code(answer)) == (415, "UNSUPPORTED_ENCODING"), encoding
    assert (await post(client, asked, {"content-encoding": "Identity"}))[0] == 200


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "BAD_REQUEST"),
        (b"{", "BAD_REQUEST"),
        (b'"query"', "BAD_REQUEST"),
        (b"[]", "BAD_REQUEST"),
        (b'[{"query": "{ viewer { name } }"}]', "BAD_REQUEST"),
        (b"{}", "BAD_REQUEST"),
        (b'{"query": null}', "BAD_REQUEST"),
        (b'{"query": 1}', "BAD_REQUEST"),
        (b'{"query": "{ viewer { name } }", "variables": []}', "BAD_REQUEST"),
        (b'{"query": "{ viewer { name } }", "operationName": 1}', "BAD_REQUEST"),
        (b'{"query": "{ viewer { name } }", "extensions": "x"}', "BAD_REQUEST"),
        (b'{"query": "{ viewer { name } \xff }"}', "BAD_REQUEST"),
        (
            b'{"query": "query($s: String!) { users(filter: {city: {eq: $s}}) { totalCount } }", "variables": {"s": "\\ud800"}}',
            "BAD_REQUEST",
        ),
        (b'{"query": "{ viewer { name } }", "operationName": "Other"}', "BAD_REQUEST"),
        (b'{"query": "query A { viewer { name } } query B { viewer { name } }"}', "BAD_REQUEST"),
        (b'{"query": "{ viewer { name }"}', "GRAPHQL_PARSE_FAILED"),
        (b'{"query": "{ users(filter: {city: {eq: \\"\\\\uD800\\"}}) { totalCount } }"}', "GRAPHQL_PARSE_FAILED"),
        (b'{"query": "{ nothing }"}', "GRAPHQL_VALIDATION_FAILED"),
        (b'{"query": "query($n: Int!) { users(first: $n) { totalCount } }"}', "GRAPHQL_VALIDATION_FAILED"),
        (
            b'{"query": "query($n: Int!) { users(first: $n) { totalCount } }", "variables": {"n": "x"}}',
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            (
                b'{"query": "query($n: BigInt) { events(filter: {properties: [{key: \\"a\\", number: {eq: $n}}]}) { totalCount } '
                b'}", "variables": {"n": 99999999999999999999}}'
            ),
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (b'{"query": "{ viewer { name } }", "variables": {"a": ' + b"[" * 2000 + b"]" * 2000 + b"}}", "BAD_REQUEST"),
        (b'{"query": "{ viewer { name } }", "variables": {"a": ' + b"[" * 100 + b"]" * 100 + b"}}", "TOO_DEEP"),
        (b'{"query": "' + b"{a" * 5000 + b'"}', "TOO_DEEP"),
    ],
)
async def test_a_request_that_cannot_be_read_is_refused_in_words(client: Client, body: bytes, expected: str) -> None:
    status, answer = await post(client, body)
    assert (status, code(answer)) == (400, expected), answer


async def test_the_right_operation_is_executed(client: Client) -> None:
    document = "query A { viewer { name } } query B { users { totalCount } }"
    status, answer = await post(client, orjson.dumps({"query": document, "operationName": "B"}))
    assert (status, answer["data"]) == (200, {"users": {"totalCount": 0}})


async def test_a_body_has_a_limit(migrated_url: str) -> None:
    async with serving(migrated_url, server=ServerSettings(max_body_bytes=1000)) as client:
        status, answer = await post(client, orjson.dumps({"query": "{ viewer { name } } #" + "x" * 1000}))
        assert (status, code(answer)) == (413, "TOO_LARGE")
        assert (await post(client, orjson.dumps({"query": "{ viewer { name } } #" + "x" * 900})))[0] == 200


async def test_text_that_is_no_text_is_refused_everywhere(client: Client) -> None:
    await channel(client, "oa")
    filtered = "query($s: String) { users(filter: {city: {eq: $s}}) { totalCount } }"
    literal = r'{ users(filter: {city: {eq: "a%sb"}}) { totalCount } }'
    created = "mutation($i: CreateUserInput!) { createUser(input: $i) { user { id } } }"
    for query, variables in (
        (filtered, {"s": "a\x00b"}),
        (filtered, {"\x00": 1}),
        (created, {"i": {"city": "a\x00"}}),
        (created, {"i": {"attributes": {"deep": [{"a\x00": 1}]}}}),
        ("query($id: ID!) { node(id: $id) { id } }", {"id": "User_\x00"}),
        (literal % r"\u0000", {}),
        (literal % r"\u{0}", {}),
        ('{ users(filter: {city: {eq: """a\x00b"""}}) { totalCount } }', {}),
        ("{ users { totalCount } } # \x00", {}),
        (r'mutation { createUser(input: {attributes: {a: "\u0000"}}) { user { id } } }', {}),
    ):
        status, answer = await post(client, orjson.dumps({"query": query, "variables": variables}))
        assert (status, code(answer)) == (400, "INVALID_TEXT"), query
    for harmless in (r"\\u0000", "𝄞", r"\uD834\uDD1E"):
        assert (await client.data(literal % harmless))["users"] == {"totalCount": 0}
    assert (await client.data("{ users { totalCount } }"))["users"] == {"totalCount": 0}
    answer = await client.events([event(1, properties={"orderId": "a\x00"}), event(2)])
    assert [each["status"] for each in answer["results"]] == ["REJECTED", "ACCEPTED"]


async def test_an_event_with_nul_is_refused_alone(client: Client) -> None:
    await channel(client, "oa")
    ask = """mutation($i: RecordEventsInput!) { recordEvents(input: $i) {
      results { status errors { code path } } errors { code } } }"""
    somebody = {"identity": {"channel": "oa", "externalId": "a"}}
    one = {"type": "shop.visited", "source": "web", "occurredAt": "2026-01-01T00:00:00Z"}
    bad: list[dict[str, Any]] = [
        {"externalId": "1", "properties": {"a\x00": 1}, **somebody},
        {"externalId": "\x00", **somebody},
        {"externalId": "2", "userId": "User_\x00"},
        {"externalId": "3", "identity": {"channel": "oa", "externalId": "a\x00"}},
    ]
    good: dict[str, Any] = {"externalId": "4", **somebody}
    for query, values in (
        (ask, {"i": {"events": [{**one, **each} for each in (*bad, good)]}}),
        (
            ask.replace("$i: RecordEventsInput!", "$e: [EventInput!]!").replace("input: $i", "input: {events: $e}"),
            {"e": [{**one, **each} for each in (*bad, good)]},
        ),
    ):
        answer = (await client.data(query, **values))["recordEvents"]
        assert answer["errors"] == []
        assert [each["status"] for each in answer["results"][:4]] == ["REJECTED"] * 4
        assert answer["results"][4]["status"] in ("ACCEPTED", "DUPLICATE")
        said = [each["errors"][0]["path"][0] for each in answer["results"][:4]]
        assert said == ["properties", "externalId", "userId", "identity"]
    status, refused = await post(client, orjson.dumps({"query": ask, "variables": {"i": {"waitFor": ["\x00"], "events": []}}}))
    assert (status, code(refused)) == (400, "INVALID_TEXT")


async def test_one_failing_field_leaves_the_others(client: Client) -> None:
    answer = await client.graphql("{ user { id } users { totalCount } viewer { kind } }")
    assert answer["data"] == {"user": None, "users": {"totalCount": 0}, "viewer": {"kind": "KEY"}}
    [error] = answer["errors"]
    assert (error["path"], error["extensions"]["code"]) == (["user"], "INVALID_INPUT")
    assert error["locations"] == [{"line": 1, "column": 3}]


async def test_our_own_errors_are_masked(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the password is 12345")

    monkeypatch.setattr("scrm.system.service.known_plugins", broken)
    response = await client.http.post("/graphql", json={"query": "{ plugins { name } viewer { kind } }"})
    answer = orjson.loads(response.content)
    assert response.status_code == 200
    assert answer["data"] == {"plugins": None, "viewer": {"kind": "KEY"}}
    [error] = answer["errors"]
    assert error["extensions"]["code"] == "INTERNAL"
    assert re.fullmatch("[0-9a-f]{32}", error["extensions"]["errorId"])
    assert "12345" not in response.text
    assert error["extensions"]["errorId"] in caplog.text
    assert "12345" in caplog.text


async def test_words_follow_the_callers_language(migrated_url: str) -> None:
    async with serving(migrated_url, language="en") as client:
        await channel(client, "oa")
        await record(client, event(1))
        query = {
            "query": '{ events(filter: {source: ["shop"]}) { nodes { amount { formatted zh: formatted(locale: "zh-CN") } } } }'
        }
        for header, expected in (
            (None, "CN¥1.00"),
            ("zh-CN,zh;q=0.9,en;q=0.8", "¥1.00"),
            ("en-US,en", "CN¥1.00"),
            ("en;q=0.5, zh;q=0.9", "¥1.00"),
            ("fr", "CN¥1.00"),
            ("zh;q=0", "CN¥1.00"),
            (";;q=x", "CN¥1.00"),
        ):
            response = await client.http.post("/graphql", json=query, headers={"accept-language": header} if header else {})
            [node] = orjson.loads(response.content)["data"]["events"]["nodes"]
            assert node["amount"] == {"formatted": expected, "zh": "¥1.00"}, header


async def test_introspection_answers(client: Client) -> None:
    data = await client.data(
        '{ __schema { queryType { name } } __type(name: "User") { fields { name description } } __typename }'
    )
    assert data["__typename"] == "Query"
    assert all(each["description"] for each in data["__type"]["fields"])


def test_an_app_that_cannot_be_says_why(tmp_path: Any) -> None:
    with pytest.raises((StartupError, ValueError)):
        create_app(Settings(database_url="mysql://x"), plugins=PluginSet())


async def test_an_answer_that_takes_too_long_is_given_up_with_a_code(migrated_url: str) -> None:
    async with serving(migrated_url, server=ServerSettings(timeout_seconds=1e-9)) as client:
        response = await client.http.post("/graphql", json={"query": "{ users { nodes { id } } }"})
        assert response.status_code == 503
        assert orjson.loads(response.content)["errors"][0]["extensions"]["code"] == "TIMEOUT"
