"""What of a plugin a token that names a user may see and do: its own rows, and what says that it is for oneself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scrm.testing.client import Client, drain, serving
from scrm.testing.following import following
from scrm.testing.issuer import Issuer
from tests.plugins.test_everything import CREATE_CHANNEL, NOON, ORDERS, PEOPLE, SPEND, WHISPER, told

NOW = NOON + timedelta(days=1)
SCOPE = "users:read users:write events:read events:write marks:read marks:write pii:read plugins:read indicators:read"
MARKS = "{ marks(first: 100) { totalCount nodes { weight user { identities { externalId } } } } users { nodes { markWeight } } }"
MADE = "subscription($id: ID!) { markMade(userId: $id) { weight } }"


@pytest.fixture
async def client(everything: Path, migrated_url: str, tmp_path: Path) -> AsyncIterator[Client]:
    """Ann has three orders, Bob has one and a whisper; all of it was read. Tokens say `uid`."""
    issuer = Issuer()
    jwt, sections = issuer.settings(user_claim="uid"), told(tmp_path / "book.txt")
    async with serving(
        migrated_url, modules={}, sections=sections, clock=lambda: NOW, jwt=jwt, transport=issuer.transport
    ) as client:
        client.app.state.issuer = issuer
        assert (await client.data(CREATE_CHANNEL))["createChannel"]["errors"] == []
        assert (await client.events([*ORDERS, WHISPER]))["accepted"] == 5
        await drain(client)
        yield client


async def ids(client: Client) -> dict[str, str]:
    """Everybody's global id by their card."""
    return {each["identities"][0]["externalId"]: each["id"] for each in (await client.data(PEOPLE))["users"]["nodes"]}


async def as_ann(client: Client) -> Client:
    token = client.app.state.issuer.token(NOW, scope=SCOPE, uid=(await ids(client))["ann"])
    return client.with_key(token)


def codes(answer: dict[str, Any]) -> list[str]:
    return [error["extensions"]["code"] for error in answer.get("errors", [])]


async def test_rows_and_filters_are_of_oneself(client: Client) -> None:
    ann = await as_ann(client)
    data = await ann.data(MARKS)
    assert data["marks"]["totalCount"] == len(data["marks"]["nodes"]) == 3
    assert {each["user"]["identities"][0]["externalId"] for each in data["marks"]["nodes"]} == {"ann"}
    assert data["users"]["nodes"] == [{"markWeight": 6}]
    assert (await client.data(MARKS))["marks"]["totalCount"] == 5


async def test_a_mutation_for_oneself_is_for_oneself_alone(client: Client) -> None:
    people, ann = await ids(client), await as_ann(client)
    refused = await ann.data(SPEND, user=people["bob"], weight=1, key="k1")
    [error] = refused["spendMarks"]["errors"]
    assert (error["code"], error["path"], refused["spendMarks"]["mark"]) == ("USER_NOT_FOUND", ["userId"], None)
    weights = {each["id"]: each["markWeight"] for each in (await client.data(PEOPLE))["users"]["nodes"]}
    assert weights[people["bob"]] == 14
    spent = await ann.data(SPEND, user=people["ann"], weight=1, key="k1")
    assert spent["spendMarks"]["mark"]["user"] == {"id": people["ann"], "markWeight": 5}
    reader = client.with_key(client.app.state.issuer.token(NOW, scope="marks:read users:read", uid=people["ann"]))
    assert codes(await reader.graphql(SPEND, user=people["ann"], weight=1, key="k2")) == ["FORBIDDEN"]


async def test_what_does_not_say_so_is_closed(client: Client) -> None:
    ann = await as_ann(client)
    assert await ann.data("{ markPerOrder }") == {"markPerOrder": 2}
    for query in ("{ plugins { name } }", "{ systemStatus { version } }", "{ indicators { key } }"):
        assert codes(await ann.graphql(query)) == ["FORBIDDEN"], query
    for method, path in (("GET", "count"), ("POST", "till")):
        response = await ann.http.request(method, f"/plugins/everything/{path}", json={})
        assert (response.status_code, response.json()["errors"][0]["code"]) == (403, "FORBIDDEN"), path
    assert (await client.http.get("/plugins/everything/count")).text == "5"


async def test_a_subscription_that_does_not_say_so_is_closed(client: Client) -> None:
    people, ann = await ids(client), await as_ann(client)
    async with following(ann, MADE, id=people["ann"]) as marks:
        with pytest.raises(AssertionError, match="'code': 'FORBIDDEN'"):
            await marks.next()
