"""A token that names a user sees that user and nobody else, wherever it asks, and changes nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest

from scrm.auth import CORE_SCOPES
from scrm.config import Limits, ServerSettings
from scrm.events.sequencer import sequence
from scrm.testing.client import Client, serving
from scrm.testing.issuer import Issuer
from tests.core.asking import NOBODY, NOW, Clock, channel, create, do, event, record, tag
from tests.core.test_contract import document, frozen, roots, rows
from tests.core.test_subscriptions import ONE, SHOP, socket

WIDE = ServerSettings(limits=Limits(nodes=100_000))

ALL = " ".join(scope.name for scope in CORE_SCOPES)
MINE = "{ viewer { name kind user { id displayName } } users { totalCount nodes { id } } }"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def client(migrated_url: str, clock: Clock, issuer: Issuer) -> AsyncIterator[Client]:
    """Ann and Bob, each with an identity, a tag and two orders; their tokens say `uid`."""
    jwt = issuer.settings(user_claim="uid")
    async with serving(migrated_url, clock=clock, jwt=jwt, server=WIDE, transport=issuer.transport) as client:
        await channel(client, "oa")
        await tag(client, "vip")
        for number, name in enumerate(("ann", "bob")):
            made = await create(client, displayName=name, identities=[{"channel": "oa", "externalId": f"open-{name}"}])
            who = {"channel": "oa", "externalId": f"open-{name}"}
            await record(client, *(event(10 * number + n, identity=who, properties={"orderId": f"{name}-{n}"}) for n in (1, 2)))
            given = {"tags": ["vip"], "userIds": [made["id"]], "reason": f"likes {name}"}
            assert (await do(client, "tagUsers", "TagUsersInput", given, "changed"))["changed"] == 1
        yield client


async def person(client: Client, name: str) -> str:
    """A user's global id."""
    data = await client.data(
        "query($i: IdentityInput!) { user(identity: $i) { id } }", i={"channel": "oa", "externalId": f"open-{name}"}
    )
    found: str = data["user"]["id"]
    return found


async def token_of(client: Client, issuer: Issuer, name: str, scope: str = ALL, **claims: Any) -> Client:
    """The same app asked with a person's token."""
    return client.with_key(issuer.token(NOW, scope=scope, uid=await person(client, name), **claims))


async def refused(client: Client) -> bool:
    response = await client.http.post("/graphql", json={"query": MINE})
    return response.status_code == 401 and response.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


SEEN = """{
  users(first: 100) { totalCount nodes { ...all } edges { cursor node { ...all } } }
  events(first: 100) { totalCount edges { node { id externalId properties user { ...all } channel { key } } } }
  tags { nodes { key } }
  orders: events(filter: {type: ["order.paid"]}, orderBy: [{position: ASC}]) { totalCount nodes { properties } }
  others: users(filter: {not: [{displayName: {eq: "ann"}}]}) { totalCount nodes { id } }
  tagged: users(filter: {or: [{tag: {keys: ["vip"]}}, {event: {type: ["order.paid"]}}]}) { totalCount nodes { id } }
  last: users(last: 1) { nodes { id } }
}
fragment all on User {
  id displayName identities { externalId } tags { reason tag { key } } events(first: 100) { totalCount nodes { id externalId } }
}"""


async def test_lists_edges_and_counts_are_of_oneself(client: Client, issuer: Issuer) -> None:
    ann, bob = await person(client, "ann"), await person(client, "bob")
    answer = await (await token_of(client, issuer, "ann")).graphql(SEEN)
    assert "errors" not in answer, answer
    data = answer["data"]
    [node] = data["users"]["nodes"]
    assert (node["id"], node["displayName"], node["identities"]) == (ann, "ann", [{"externalId": "open-ann"}])
    assert [each["reason"] for each in node["tags"]] == ["likes ann"]
    assert data["users"]["totalCount"] == len(data["users"]["edges"]) == 1
    assert [each["properties"]["orderId"] for each in data["orders"]["nodes"]] == ["ann-1", "ann-2"]
    assert (data["orders"]["totalCount"], data["others"]["totalCount"], data["others"]["nodes"]) == (2, 0, [])
    assert (data["tagged"]["nodes"], data["last"]["nodes"]) == ([{"id": ann}], [{"id": ann}])
    assert data["events"]["totalCount"] == node["events"]["totalCount"] == len(data["events"]["edges"])
    assert "bob" not in str(answer)
    assert bob.removeprefix("User_") not in str(answer)
    everything = await client.data(SEEN)
    assert everything["users"]["totalCount"] == 2
    assert everything["events"]["totalCount"] > data["events"]["totalCount"]


async def test_nobody_else_is_there_by_id_or_identity(client: Client, issuer: Issuer) -> None:
    ann, bob = await person(client, "ann"), await person(client, "bob")
    mine = await token_of(client, issuer, "ann")
    all_events = (await client.data("{ events(first: 100) { nodes { id user { id } } } }"))["events"]["nodes"]
    for user, shown in ((ann, {"id": ann}), (bob, None), (NOBODY, None)):
        query = "query($id: ID!) { user(id: $id) { id } node(id: $id) { id } nodes(ids: [$id]) { id } }"
        assert await mine.data(query, id=user) == {"user": shown, "node": shown, "nodes": [shown]}, user
    for name, shown in (("ann", {"id": ann}), ("bob", None)):
        query = "query($i: IdentityInput!) { user(identity: $i) { id } }"
        assert await mine.data(query, i={"channel": "oa", "externalId": f"open-{name}"}) == {"user": shown}
    ids = [each["id"] for each in all_events]
    seen = (await mine.data("query($ids: [ID!]!) { nodes(ids: $ids) { id } }", ids=ids))["nodes"]
    assert [each is not None for each in seen] == [each["user"] is not None and each["user"]["id"] == ann for each in all_events]


OPEN = {"channels", "eventTypes", "events", "imports", "node", "nodes", "tagGroups", "tags", "user", "users", "viewer"}
"""What a person's token may ask, where its scopes allow it: rows of oneself, and what is nobody's. Of Mutation there is none."""


async def test_no_root_field_shows_anybody_else_and_no_mutation_is_open(client: Client, issuer: Issuer) -> None:
    core = frozen()
    mine = await token_of(client, issuer, "ann")
    before = await rows(client)
    open_: set[str] = set()
    for kind, name, _ in roots(core.model):
        text = document(core, kind, name)
        answer = await mine.graphql(re.sub(r"User_0{32}", await person(client, "bob"), text))
        codes = [error["extensions"]["code"] for error in answer.get("errors", [])]
        if codes == ["FORBIDDEN"]:
            assert answer["data"] == {name: None}, name
            assert "is not for a token that names a user" in answer["errors"][0]["message"]
        else:
            open_.add(name)
            assert kind == "Query", name
    assert await rows(client) == before
    assert open_ == OPEN


async def test_the_other_doors_are_closed(client: Client, issuer: Issuer) -> None:
    mine = await token_of(client, issuer, "ann")
    before = await rows(client)
    response = await mine.http.post("/events", json=[event(99)])
    assert (response.status_code, response.json()["errors"][0]["code"]) == (403, "FORBIDDEN")
    assert await rows(client) == before


async def test_a_subscription_hears_of_oneself_only(client: Client, issuer: Issuer, clock: Clock) -> None:
    mine = await token_of(client, issuer, "ann", exp=int(NOW.timestamp()) + 60)
    bob = await person(client, "bob")
    async with socket(mine) as made:
        await made.subscribe(ONE, f=SHOP, a=0)
        assert [(await made.next())["eventRecorded"]["externalId"] for _ in range(2)] == ["o1", "o2"]
        await record(client, event(21, identity={"channel": "oa", "externalId": "open-bob"}))
        await record(client, event(22, identity={"channel": "oa", "externalId": "open-ann"}))
        heard = (await made.next())["eventRecorded"]
        assert (heard["externalId"], heard["user"]) == ("o22", {"tags": [{"tag": {"key": "vip"}}]})
        await made.say(
            {"id": "2", "type": "subscribe", "payload": {"query": f'subscription {{ userChanged(id: "{bob}") {{ id }} }}'}}
        )
        [error] = (await made.hear())["payload"]["errors"]
        assert error["extensions"]["code"] == "USER_NOT_FOUND"
        assert await made.hear() == {"id": "2", "type": "complete"}
        clock.now += timedelta(seconds=60 + 30)
        heard = await made.hear()
        assert heard["payload"]["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        assert await made.hear() == {"id": "1", "type": "complete"}
        await made.say({"id": "3", "type": "subscribe", "payload": {"query": "{ viewer { name } }"}})
        heard = await made.hear()
        assert (heard["id"], heard["type"], heard["payload"][0]["extensions"]["code"]) == ("3", "error", "UNAUTHENTICATED")


async def test_a_token_ends_in_the_middle_of_what_it_hears(client: Client, issuer: Issuer, clock: Clock) -> None:
    ann = await person(client, "ann")
    mine = await token_of(client, issuer, "ann", exp=int(NOW.timestamp()) + 60)
    async with socket(mine) as made:
        await made.subscribe(f'subscription {{ userChanged(id: "{ann}") {{ city }} }}')
        await do(client, "updateUser", "UpdateUserInput", {"id": ann, "city": "上海"})
        await sequence(client.services.db)
        assert await made.next() == {"userChanged": {"city": "上海"}}
        clock.now += timedelta(seconds=89)
        await do(client, "updateUser", "UpdateUserInput", {"id": ann, "city": "苏州"})
        await sequence(client.services.db)
        assert await made.next() == {"userChanged": {"city": "苏州"}}
        clock.now += timedelta(seconds=1)
        await do(client, "updateUser", "UpdateUserInput", {"id": ann, "city": "杭州"})
        heard = await made.hear()
        assert heard["payload"]["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


# ---- whom a token names


async def test_who_was_merged_is_the_survivor_and_who_was_erased_nobody(client: Client, issuer: Issuer, clock: Clock) -> None:
    ann, bob = await person(client, "ann"), await person(client, "bob")
    old = await token_of(client, issuer, "bob")
    await do(client, "mergeUsers", "MergeUsersInput", {"keptId": ann, "absorbedId": bob})
    clock.now += timedelta(seconds=5)
    data = await old.data(MINE)
    assert data["viewer"] == {"name": ann, "kind": "TOKEN", "user": {"id": ann, "displayName": "ann"}}
    assert data["users"] == {"totalCount": 1, "nodes": [{"id": ann}]}
    assert (await old.data(f'{{ node(id: "{bob}") {{ id }} }}'))["node"] == {"id": ann}
    await do(client, "eraseUser", "EraseUserInput", {"id": ann})
    clock.now += timedelta(seconds=5)
    assert await refused(old)


async def test_a_token_that_names_nobody_opens_nothing(client: Client, issuer: Issuer) -> None:
    assert not await refused(await token_of(client, issuer, "ann"))
    others = ("", NOBODY, "bob", "open-ann", "User_" + "X" * 32, "x\x00", "\ud800", 1, True, ["User_" + "1" * 32], {"id": NOBODY})
    for said in (None, *others):
        assert await refused(client.with_key(issuer.token(NOW, scope=ALL, uid=said))), repr(said)
    missing = {**issuer.claims(NOW, scope=ALL), "uid": None}
    assert await refused(client.with_key(issuer.sign(orjson.dumps(missing))))


async def test_a_token_may_name_a_user_as_a_channel_does(migrated_url: str, issuer: Issuer) -> None:
    jwt = issuer.settings(user_claim="openid", user_channel="oa", user_required=False)
    async with serving(migrated_url, clock=Clock(), jwt=jwt, transport=issuer.transport) as client:
        await channel(client, "oa")
        ids = [
            (await create(client, displayName=name, identities=[{"channel": "oa", "externalId": f"open-{name}"}]))["id"]
            for name in ("ann", "bob")
        ]
        mine = client.with_key(issuer.token(NOW, scope="users:read", openid="open-bob"))
        data = await mine.data(MINE)
        assert (data["viewer"]["name"], data["users"]["nodes"]) == (ids[1], [{"id": ids[1]}])
        assert data["viewer"]["user"]["displayName"] == "b***"
        for nobody in ("open-carl", ids[1], "", None, 1):
            claims = {**issuer.claims(NOW, scope="users:read"), "openid": nobody}
            assert (await refused(client.with_key(issuer.sign(orjson.dumps(claims))))) is True
        staff = client.with_key(issuer.token(NOW, scope="users:read", sub="clerk"))
        data = await staff.data(MINE)
        assert (data["viewer"]["name"], data["viewer"]["user"], data["users"]["totalCount"]) == ("token:clerk", None, 2)
