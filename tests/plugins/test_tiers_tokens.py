"""What of levels a token that names a user may see: its own."""

from __future__ import annotations

from typing import Any

import pytest

from scrm.testing.following import following
from scrm.testing.issuer import Issuer
from tests.plugins.club import CLEAR, GRANT, REVIEW, SET, opened

SCOPE = "users:read tiers:read tiers:write"
SEEN = """{ tiers { key } users { nodes { id membership { tier { key } history { totalCount nodes { user { id } } } } } } }"""
CHANGED = "subscription($id: ID) { tierChanged(userId: $id) { to { key } user { id } } }"


def codes(answer: dict[str, Any]) -> list[str]:
    return [error["extensions"]["code"] for error in answer.get("errors", [])]


async def test_a_token_sees_its_own_level_and_changes_none(migrated_url: str) -> None:
    issuer = Issuer()
    serve = {"jwt": issuer.settings(user_claim="uid"), "transport": issuer.transport}
    async with opened(migrated_url, serve=serve) as club:
        mine, other = [await club.member() for _ in range(2)]
        for user in (mine, other):
            await club.pay(user, "o", 1_000)
        client = club.client.with_key(issuer.token(club.now, scope=SCOPE, uid=mine))
        data = await client.data(SEEN)
        assert [tier["key"] for tier in data["tiers"]] == ["bronze", "silver", "gold"]
        own = {"tier": {"key": "silver"}, "history": {"totalCount": 1, "nodes": [{"user": {"id": mine}}]}}
        assert data["users"]["nodes"] == [{"id": mine, "membership": own}]
        transition = (await club.membership(other, "history { nodes { id } }"))["history"]["nodes"][0]["id"]
        assert (await client.data("query($id: ID!) { node(id: $id) { id } }", id=transition))["node"] is None
        said = {"userId": mine, "idempotencyKey": "k"}
        for document, input in (
            (SET, {**said, "tier": "gold", "until": "2027-01-01T00:00:00Z"}),
            (CLEAR, said),
            (GRANT, {**said, "growth": 1}),
            (REVIEW, {"idempotencyKey": "k"}),
        ):
            assert codes(await client.graphql(document, input=input)) == ["FORBIDDEN"]
        assert codes(await client.graphql("{ simulateTiers(scheme: {}) { people } }")) == ["FORBIDDEN"]
        async with following(client, CHANGED, id=None) as followed:
            await club.pay(other, "p", 2_000)
            await club.pay(mine, "p", 2_000)
            assert await followed.next() == {"tierChanged": {"to": {"key": "gold"}, "user": {"id": mine}}}
        async with following(client, CHANGED, id=other) as followed:
            with pytest.raises(AssertionError, match="USER_NOT_FOUND"):
                await followed.next()
