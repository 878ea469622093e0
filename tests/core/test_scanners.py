"""What scanners of GraphQL servers look for, asked as they ask it, of a server as it is run in production; and that nothing
personal or internal gets out by the side doors."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from scrm.config import ServerSettings
from scrm.testing.client import Client, drain, serving
from tests.core.asking import channel, create, do, event, record

ATTACKS = {
    "alias overloading": "query { " + " ".join(f"alias{n}: __typename" for n in range(101)) + " }",
    "directive overloading": "query { __typename " + "@include(if: true) " * 100 + "}",
    "unknown directives": "query { __typename" + "@aa" * 100 + " }",
    "field duplication": "query { " + "__typename " * 1_000 + "}",
    "circular introspection": "query { __schema { types { fields { type { fields { type { fields { type { name } } } } } } } } }",
    "circular fragment": "query { ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
}


@pytest.fixture
async def production(migrated_url: str) -> AsyncIterator[Client]:
    async with serving(migrated_url, server=ServerSettings(ide=False)) as client:
        yield client


@pytest.mark.parametrize("attack", ATTACKS)
async def test_overloading_is_refused(production: Client, attack: str) -> None:
    response = await production.http.post("/graphql", json={"query": ATTACKS[attack]})
    assert response.status_code == 400
    assert "data" not in orjson.loads(response.content)


async def test_batches_are_not_taken(production: Client) -> None:
    for batch in ([{"query": "{ __typename }"}] * 10, [{"query": "{ __typename }"}], []):
        response = await production.http.post("/graphql", json=batch)
        assert response.status_code == 400
        assert orjson.loads(response.content)["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_no_page_no_trace_no_suggestion(production: Client) -> None:
    for path in ("/graphql", "/graphiql", "/playground", "/altair", "/voyager", "/console", "/"):
        page = await production.http.get(path, headers={"accept": "text/html"}, follow_redirects=True)
        assert page.status_code in (404, 405), path
        assert "graphiql" not in page.text.lower()
    for query, values in (
        ("{ user { nam } }", {}),
        ("{ users }", {}),
        ("{ systemUpdate }", {}),
        ('{ users(filter: {cty: {eq: "x"}}) { totalCount } }', {}),
        ("query($o: [UserOrder!]) { users(orderBy: $o) { totalCount } }", {"o": [{"createdAt": "UPP"}]}),
        ("{ users { nodes { ... on Usr { id } } } }", {}),
        ("{ users(frst: 1) { totalCount } }", {}),
    ):
        answer = await production.graphql(query, **values)
        assert "did you mean" not in str(answer).lower(), query
        assert not {"tracing", "debug", "stacktrace", "exception"} & set(str(answer.get("extensions", {})).lower().split('"'))


async def test_a_form_a_link_and_another_site_change_nothing(production: Client) -> None:
    mutation = 'mutation { createTag(input: {key: "x", name: "x"}) { tag { id } } }'
    as_form = {"content-type": "application/x-www-form-urlencoded"}
    assert (await production.http.post("/graphql", content=f"query={mutation}", headers=as_form)).status_code == 415
    assert (await production.http.post("/graphql", content=mutation, headers={"content-type": "text/plain"})).status_code == 415
    assert (await production.http.get("/graphql", params={"query": mutation})).status_code == 405
    preflight = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    asked = await production.http.options("/graphql", headers=preflight)
    assert not [name for name in asked.headers if name.startswith("access-control-allow")]
    crossed = await production.http.post("/graphql", json={"query": "{ __typename }"}, headers={"origin": "https://evil.example"})
    assert not [name for name in crossed.headers if name.startswith("access-control-allow")]
    assert await production.data("{ tags { totalCount } }") == {"tags": {"totalCount": 0}}


INJECTIONS = ("' or 1=1 --", '"; drop table users; --', "x' union select 1 --", "%", "_", "\\", "$1", ":now", "{{7*7}}", "${7}")


async def test_injections_are_values(production: Client) -> None:
    await channel(production, "oa")
    await create(production, city="x")
    for said in (
        "' or 1=1 --",
        '"; drop table users; --',
        "x' union select 1 --",
        "%",
        "_",
        "\\",
        "$1",
        ":now",
        "{{7*7}}",
        "${7}",
    ):
        for operator in ("eq", "contains", "startsWith"):
            query = f"query($s: String) {{ users(filter: {{city: {{{operator}: $s}}}}) {{ totalCount }} }}"
            assert await production.data(query, s=said) == {"users": {"totalCount": 0}}, said
        made = await do(production, "createTag", "CreateTagInput", {"key": f"k{abs(hash(said))}", "name": said}, "tag { name }")
        assert made["tag"]["name"] == said.strip()
    assert await production.data("{ users { totalCount } }") == {"users": {"totalCount": 1}}


CANARIES = (
    "canary-name",
    "+8613912345678",
    "canary@example.com",
    "canary-openid",
    "canary-unionid",
    "canary-attribute",
    "canary-property",
)
EVERYTHING = """{ users { nodes { displayName phone email attributes identities { externalId unionId }
  events { nodes { properties } } } } }"""


async def test_personal_values_are_in_no_log_and_no_error(
    migrated_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    name, phone, mail, openid, unionid, attribute, prop = CANARIES
    async with serving(migrated_url, personal_attributes=["secret"]) as client:
        await channel(client, "oa")
        identity = {"channel": "oa", "externalId": openid, "unionId": unionid}
        person: dict[str, Any] = {
            "displayName": name,
            "phone": phone,
            "email": mail,
            "attributes": {"secret": attribute},
            "identities": [identity],
        }
        user = (await create(client, **person))["id"]
        sent = event(1, identity={"channel": "oa", "externalId": openid}, properties={"orderId": "o", "phone": prop})
        await record(client, sent, sent, {**sent, "externalId": "2", "occurredAt": "2999-01-01T00:00:00Z"})
        await do(client, "updateUser", "UpdateUserInput", {"id": user, "phone": phone, "email": "not-" + mail[:3]})
        await client.graphql("query($s: String) { users(filter: {displayName: {eq: $s}}) { nodes { id } } }", s=name)
        reader = client.with_key(await client.key("users:read", "events:read", name="reader"))
        shown = str(await reader.graphql(EVERYTHING))
        forbidden = await reader.graphql("query($s: String) { users(filter: {phone: {eq: $s}}) { totalCount } }", s=phone)
        sorted_ = await reader.graphql("{ users(orderBy: [{displayName: ASC}]) { totalCount } }")
        backend: Any = client.services.db._backend

        async def broken(*_: Any) -> Any:
            raise RuntimeError("broken")

        monkeypatch.setattr(backend, "fetch", broken)
        failed = await client.graphql("query($s: String) { users(filter: {displayName: {eq: $s}}) { nodes { phone } } }", s=name)
        monkeypatch.undo()
        assert failed["errors"][0]["extensions"]["code"] == "INTERNAL"
        with pytest.raises(sa.exc.DBAPIError):
            await client.services.db.write(lambda tx: tx.execute(sa.text("insert into nowhere values (1)")))
        await drain(client)
        await do(client, "eraseUser", "EraseUserInput", {"id": user})
        await drain(client)
    for canary in CANARIES:
        assert canary not in shown
        assert canary not in str((forbidden, sorted_, failed))
        assert canary not in caplog.text
    for answer in (forbidden, sorted_):
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
