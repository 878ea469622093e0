"""Tags through GraphQL: results and refusals, on both engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.events.models import events
from scrm.models import audit_log
from scrm.testing.client import Client, serving
from tests.contract.plugin_for_reads import plugin as plugin_for_reads
from tests.core.asking import NOBODY, Clock, caller, channel, create, do, event, only, record, tag

NO_TAG = "Tag_" + "0" * 32


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(migrated_url: str, clock: Clock) -> AsyncIterator[Client]:
    async with serving(migrated_url, clock=clock) as client:
        yield client


async def give(client: Client, **input: Any) -> dict[str, Any]:
    return await do(client, "tagUsers", "TagUsersInput", input, "matched changed")


async def take(client: Client, **input: Any) -> dict[str, Any]:
    return await do(client, "untagUsers", "UntagUsersInput", input, "matched changed")


async def tags_of(client: Client, user: str, filter: str = "") -> list[str]:
    data = await client.data(f"query($id: ID!) {{ user(id: $id) {{ tags{filter} {{ tag {{ key }} }} }} }}", id=user)
    return [each["tag"]["key"] for each in data["user"]["tags"]]


async def test_tags_and_groups_are_made_and_changed(client: Client) -> None:
    group = {"key": "value", "name": "价值", "exclusive": True}
    saved = await do(client, "saveTagGroup", "SaveTagGroupInput", group, "tagGroup { id key name exclusive tags { key } }")
    assert saved["errors"] == []
    group_id = saved["tagGroup"].pop("id")
    assert group_id.startswith("TagGroup_")
    assert saved["tagGroup"] == {**group, "tags": []}
    again = await do(client, "saveTagGroup", "SaveTagGroupInput", {"key": "value", "name": "V"}, "tagGroup { id name exclusive }")
    assert again["tagGroup"] == {"id": group_id, "name": "V", "exclusive": True}

    made = await do(
        client,
        "createTag",
        "CreateTagInput",
        {"key": "vip", "name": "贵宾", "kind": "INTENT", "group": "value"},
        "tag { id key name kind group { key } rule archived userCount }",
    )
    assert made["errors"] == []
    tag_id = made["tag"].pop("id")
    assert made["tag"] == {
        "key": "vip",
        "name": "贵宾",
        "kind": "INTENT",
        "group": {"key": "value"},
        "rule": None,
        "archived": False,
        "userCount": 0,
    }
    shown = "tag { key name kind group { key } archived }"
    changed = await do(client, "updateTag", "UpdateTagInput", {"id": tag_id, "name": "V", "group": None}, shown)
    assert changed["tag"] == {"key": "vip", "name": "V", "kind": "INTENT", "group": None, "archived": False}
    for name in ("name", "kind", "archived"):
        assert only(await do(client, "updateTag", "UpdateTagInput", {"id": tag_id, name: None})) == ("INVALID_INPUT", [name])
    found = await client.data(
        "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id ... on Tag { key } } tagGroups { key } }", ids=[tag_id, group_id]
    )
    assert found == {
        "nodes": [{"__typename": "Tag", "id": tag_id, "key": "vip"}, {"__typename": "TagGroup", "id": group_id}],
        "tagGroups": [{"key": "value"}],
    }
    gone = await do(client, "deleteTag", "DeleteTagInput", {"id": tag_id}, "deletedId")
    assert gone == {"deletedId": tag_id, "errors": []}
    assert (await client.data("query($id: ID!) { node(id: $id) { id } }", id=tag_id)) == {"node": None}


async def test_what_cannot_be_is_refused(client: Client) -> None:
    vip = await tag(client, "vip")
    cases: list[tuple[str, str, dict[str, Any], tuple[str, list[str]]]] = [
        ("createTag", "CreateTagInput", {"key": "vip", "name": "x"}, ("TAG_KEY_TAKEN", ["key"])),
        ("createTag", "CreateTagInput", {"key": "a b", "name": "x"}, ("INVALID_KEY", ["key"])),
        ("createTag", "CreateTagInput", {"key": "x", "name": " "}, ("INVALID_TEXT", ["name"])),
        ("createTag", "CreateTagInput", {"key": "x", "name": "x", "group": "none"}, ("UNKNOWN_TAG_GROUP", ["group"])),
        ("updateTag", "UpdateTagInput", {"id": NO_TAG, "name": "x"}, ("TAG_NOT_FOUND", ["id"])),
        ("updateTag", "UpdateTagInput", {"id": NOBODY, "name": "x"}, ("INVALID_ID", ["id"])),
        ("deleteTag", "DeleteTagInput", {"id": NO_TAG}, ("TAG_NOT_FOUND", ["id"])),
        ("saveTagGroup", "SaveTagGroupInput", {"key": "a,b", "name": "x"}, ("INVALID_KEY", ["key"])),
    ]
    for name, type, input, expected in cases:
        assert only(await do(client, name, type, input)) == expected, (name, input)
    refused = await do(client, "createTag", "CreateTagInput", {"key": "r", "name": "r", "rule": {"type": 1}})
    assert refused["errors"][0]["code"] == "INVALID_RULE"
    assert (await client.data("{ tags { nodes { id } } tagGroups { key } }")) == {
        "tags": {"nodes": [{"id": vip}]},
        "tagGroups": [],
    }


async def test_archived_tags_are_listed_only_when_asked_for(client: Client) -> None:
    old = await tag(client, "old")
    await tag(client, "new", kind="BEHAVIOR")
    user = await create(client)
    assert (await give(client, tags=["old"], userIds=[user["id"]]))["changed"] == 1
    refused = await do(client, "deleteTag", "DeleteTagInput", {"id": old}, "deletedId")
    assert (refused["deletedId"], only(refused)) == (None, ("TAG_IN_USE", ["id"]))
    archived = await do(client, "updateTag", "UpdateTagInput", {"id": old, "archived": True}, "tag { archived userCount }")
    assert archived["tag"] == {"archived": True, "userCount": 1}
    query = "query($f: TagFilter) { tags(filter: $f) { totalCount nodes { key } } }"

    async def keys(**variables: Any) -> list[str]:
        found = (await client.data(query, **variables))["tags"]
        assert found["totalCount"] == len(found["nodes"])
        return [each["key"] for each in found["nodes"]]

    assert await keys() == ["new"]
    assert await keys(f={}) == ["new"]
    assert await keys(f={"archived": True}) == ["old"]
    assert await keys(f={"archived": None}) == ["new", "old"]
    assert await keys(f=None) == ["new", "old"]
    assert await keys(f={"kind": ["BEHAVIOR"]}) == ["new"]
    assert await keys(f={"search": "ol"}) == []
    assert await keys(f={"search": "ol", "archived": None}) == ["old"]
    assert (await client.data("{ tags { nodes { key } } }"))["tags"]["nodes"] == [{"key": "new"}]
    assert only(await give(client, tags=["old"], userIds=[user["id"]])) == ("TAG_ARCHIVED", ["tags"])


async def test_users_are_tagged_by_id_and_by_filter(client: Client) -> None:
    for key in ("a", "b"):
        await tag(client, key)
    one, other = await create(client, city="上海"), await create(client, city="北京")
    assert await give(client, tags=["a", "b"], userIds=[one["id"]], reason="test") == {"matched": 1, "changed": 1, "errors": []}
    assert await give(client, tags=["a"], everybody=True) == {"matched": 2, "changed": 1, "errors": []}
    assert await give(client, tags=["a"], filter={"city": {"eq": "无"}}) == {"matched": 0, "changed": 0, "errors": []}
    data = await client.data(
        (
            "query($id: ID!) { user(id: $id) { tags(filter: {source: [MANUAL]}) { tag { key } source actor reason taggedAt "
            "expiresAt } } }"
        ),
        id=one["id"],
    )
    given = {
        "source": "MANUAL",
        "actor": await caller(client),
        "reason": "test",
        "taggedAt": "2026-03-01T04:00:00.000000Z",
        "expiresAt": None,
    }
    assert sorted(data["user"]["tags"], key=lambda each: str(each["tag"])) == [
        {"tag": {"key": key}, **given} for key in ("a", "b")
    ]

    async def match(keys: list[str], mode: str | None) -> int:
        data = await client.data(
            "query($t: TagMatch) { users(filter: {tag: $t}) { totalCount } }", t={"keys": keys, "mode": mode}
        )
        count: int = data["users"]["totalCount"]
        return count

    assert [await match(["a", "b"], mode) for mode in ("ANY", "ALL", "NONE", None)] == [2, 1, 0, 2]
    assert [await match(["b"], mode) for mode in ("ANY", "ALL", "NONE")] == [1, 1, 1]
    assert await take(client, tags=["a"], filter={"tag": {"keys": ["b"]}}) == {"matched": 1, "changed": 1, "errors": []}
    assert (await tags_of(client, one["id"]), await tags_of(client, other["id"])) == (["b"], ["a"])
    both = await client.data("{ tags { nodes { key userCount } } }")
    assert both["tags"]["nodes"] == [{"key": "a", "userCount": 1}, {"key": "b", "userCount": 1}]


async def test_a_bad_row_and_the_policy(client: Client) -> None:
    await tag(client, "a")
    user = await create(client)
    mixed = {"tags": ["a"], "userIds": [user["id"], NOBODY]}
    refused = await give(client, **mixed, errorPolicy="REJECT_EVERYTHING")
    assert (refused["changed"], only(refused)) == (0, ("USER_NOT_FOUND", ["userIds"]))
    assert await tags_of(client, user["id"]) == []
    done = await give(client, **mixed)
    assert (done["matched"], done["changed"]) == (1, 1)
    [error] = done["errors"]
    assert (error["code"], error["params"]) == ("USER_NOT_FOUND", {"id": NOBODY})
    assert await tags_of(client, user["id"]) == ["a"]
    for input, expected in (
        ({"tags": ["a"]}, ("INVALID_INPUT", ["userIds"])),
        ({"tags": ["a"], "userIds": [], "filter": {}}, ("INVALID_INPUT", ["userIds"])),
        ({"tags": ["none"], "userIds": [user["id"]]}, ("TAG_NOT_FOUND", ["tags"])),
        ({"tags": ["a"], "userIds": [user["id"], "x"]}, ("INVALID_ID", ["userIds", "1"])),
        ({"tags": ["a"], "userIds": [user["id"]], "expiresAt": "2026-03-01T04:00:00Z"}, ("INVALID_EXPIRY", ["expiresAt"])),
    ):
        assert only(await give(client, **input)) == expected, input
    none = await take(client, tags=["none"], userIds=[user["id"]])
    assert only(none) == ("TAG_NOT_FOUND", ["tags"])


async def test_siblings_of_an_exclusive_group_give_way(client: Client) -> None:
    await do(client, "saveTagGroup", "SaveTagGroupInput", {"key": "value", "name": "V", "exclusive": True})
    for key in ("high", "low"):
        await tag(client, key, group="value")
    await tag(client, "other")
    user = await create(client)
    for key in ("other", "high", "low"):
        assert (await give(client, tags=[key], userIds=[user["id"]]))["changed"] == 1
    assert sorted(await tags_of(client, user["id"])) == ["low", "other"]
    assert await tags_of(client, user["id"], '(filter: {group: ["value"]})') == ["low"]
    assert only(await give(client, tags=["high", "low"], userIds=[user["id"]])) == ("TAGS_EXCLUDE_EACH_OTHER", ["tags"])


async def test_an_expired_tag_is_not_there(client: Client, clock: Clock) -> None:
    await tag(client, "a")
    user = await create(client)
    ends = "2026-03-01T05:00:00Z"
    assert (await give(client, tags=["a"], userIds=[user["id"]], expiresAt=ends))["changed"] == 1
    query = """{ users(filter: {tag: {keys: ["a"]}}) { totalCount } without: users(filter: {tag: {keys: ["a"], mode: NONE}}) {
      totalCount }
                 tags { nodes { userCount } } }"""
    clock.now += timedelta(minutes=59)
    before = await client.data(query)
    assert [before["users"]["totalCount"], before["without"]["totalCount"], before["tags"]["nodes"][0]["userCount"]] == [1, 0, 1]
    assert await tags_of(client, user["id"]) == ["a"]
    clock.now += timedelta(minutes=1)
    after = await client.data(query)
    assert [after["users"]["totalCount"], after["without"]["totalCount"], after["tags"]["nodes"][0]["userCount"]] == [0, 1, 0]
    assert await tags_of(client, user["id"]) == []


async def test_a_key_makes_it_happen_once(client: Client, clock: Clock) -> None:
    for key in ("a", "b"):
        await tag(client, key)
    user = await create(client, city="上海")
    said = {
        "tags": ["a"],
        "filter": {"city": {"eq": "上海"}, "createdAt": {"gte": "2026-01-01T00:00:00Z"}},
        "idempotencyKey": "k1",
    }
    first = await give(client, **said)
    assert first == {"matched": 1, "changed": 1, "errors": []}
    assert (await take(client, tags=["a"], userIds=[user["id"]]))["changed"] == 1
    await create(client, city="上海")
    assert await give(client, **said) == first
    assert await tags_of(client, user["id"]) == []
    same = {
        **said,
        "filter": {"createdAt": {"gte": "2026-01-01T08:00:00+08:00"}, "city": {"eq": "上海"}},
        "errorPolicy": "REJECT_FAILED_ROWS",
    }
    assert await give(client, **same) == first
    for other in ({"tags": ["b"]}, {"filter": {"city": {"eq": "北京"}}}, {"reason": "x"}, {"expiresAt": "2027-01-01T00:00:00Z"}):
        assert only(await give(client, **{**said, **other})) == ("IDEMPOTENCY_CONFLICT", ["idempotencyKey"]), other
    assert await tags_of(client, user["id"]) == []
    assert await take(client, tags=["a"], userIds=[user["id"]], idempotencyKey="k1") == {"matched": 1, "changed": 0, "errors": []}
    for key in ("", "x" * 201):
        assert only(await give(client, **{**said, "idempotencyKey": key})) == ("INVALID_TEXT", ["idempotencyKey"])
    mixed = {"tags": ["a"], "userIds": [NOBODY], "idempotencyKey": "k2"}
    assert await give(client, **mixed) == await give(client, **mixed)
    refused = {"tags": ["a"], "userIds": [NOBODY], "errorPolicy": "REJECT_EVERYTHING", "idempotencyKey": "k3"}
    assert only(await give(client, **refused)) == ("USER_NOT_FOUND", ["userIds"])
    assert (await give(client, tags=["a"], userIds=[user["id"]], idempotencyKey="k3"))["changed"] == 1
    known = {each["name"] for each in (await client.data("{ eventTypes { name } }"))["eventTypes"]}
    kept = await client.services.db.read(lambda tx: {row.type for row in tx.rows(sa.select(events.c.type))})
    assert kept <= known


async def test_a_rule_tag_is_computed_for_everybody(client: Client) -> None:
    await channel(client, "oa")
    await record(client, *(event(n, type="page.viewed", amount=None, properties={"category": "shoes"}) for n in (1, 2, 3)))
    rule = {"eventType": "page.viewed", "sameProperty": "category", "count": 3, "withinDays": 60}
    shown = "tag { key rule userCount }"
    made = await do(client, "createTag", "CreateTagInput", {"key": "keen", "name": "高意向", "rule": rule}, shown)
    if made["errors"]:
        pytest.fail(str(made["errors"]))
    assert made["tag"]["userCount"] == 1
    data = await client.data("{ users { nodes { tags { tag { key } source actor } } } }")
    assert data["users"]["nodes"] == [{"tags": [{"tag": {"key": "keen"}, "source": "RULE", "actor": None}]}]


async def test_every_change_has_an_audit_line(client: Client) -> None:
    a = await tag(client, "a")
    user = await create(client)
    await do(client, "saveTagGroup", "SaveTagGroupInput", {"key": "g", "name": "g"})
    await do(client, "updateTag", "UpdateTagInput", {"id": a, "group": "g"})
    await give(client, tags=["a"], userIds=[user["id"]])
    await take(client, tags=["a"], userIds=[user["id"]])
    await do(client, "deleteTag", "DeleteTagInput", {"id": a})
    rows = await client.services.db.read(lambda tx: tx.rows(sa.select(audit_log).order_by(audit_log.c.id)))
    name = await caller(client)
    assert [(row.actor, row.action) for row in rows if row.action != "key.created"] == [
        (name, action)
        for action in (
            "tag.created",
            "user.created",
            "tagGroup.saved",
            "tag.updated",
            "users.tagged",
            "users.untagged",
            "tag.deleted",
        )
    ]
    assert [row.subject for row in rows if row.action.startswith("tag.")] == [a, a, a]


async def test_a_plugins_filter_is_heeded(migrated_url: str) -> None:
    """A filter that somebody else added to the type is as good as the core's: what it does not mean is not touched."""
    async with serving(migrated_url, modules={"reads": plugin_for_reads}) as client:
        await tag(client, "a")
        user = await create(client)
        for filter in (
            {"noteCount": {"gt": 0}},
            {"not": [{"noteCount": {"eq": 0}}]},
            {"tag": {"keys": ["none"]}},
            {"event": {"type": ["order.paid"]}},
        ):
            assert await give(client, tags=["a"], filter=filter) == {"matched": 0, "changed": 0, "errors": []}, filter
        said = {"tags": ["a"], "filter": {"noteCount": {"eq": 0}}, "idempotencyKey": "k"}
        assert (await give(client, **said))["changed"] == 1
        assert only(await give(client, **{**said, "filter": {"noteCount": {"eq": 1}}})) == (
            "IDEMPOTENCY_CONFLICT",
            ["idempotencyKey"],
        )
        assert await tags_of(client, user["id"]) == ["a"]


@pytest.mark.parametrize(
    "filter",
    [
        {},
        {"city": None},
        {"city": {}},
        {"city": {"isNull": None}},
        {"and": []},
        {"and": [{}, {"city": {}}]},
        {"or": [{}]},
        {"not": []},
        {"noteCount": {}},
    ],
)
async def test_a_filter_that_names_nothing_is_not_everybody(migrated_url: str, filter: dict[str, Any]) -> None:
    async with serving(migrated_url, modules={"reads": plugin_for_reads}) as client:
        await tag(client, "a")
        user = await create(client, city="上海")
        for change in (give, take):
            assert only(await change(client, tags=["a"], filter=filter)) == ("INVALID_INPUT", ["filter"])
            both = await change(client, tags=["a"], filter=filter, everybody=True)
            assert only(both) == ("INVALID_INPUT", ["userIds"])
        assert await tags_of(client, user["id"]) == []


async def test_everybody_is_said(client: Client) -> None:
    await tag(client, "a")
    here, there = await create(client, city="上海"), await create(client)
    absorbed = await create(client)
    merge = {"keptId": here["id"], "absorbedId": absorbed["id"]}
    assert (await do(client, "mergeUsers", "MergeUsersInput", merge))["errors"] == []
    for said in ({}, {"everybody": False}, {"everybody": True, "userIds": [here["id"]]}, {"everybody": True, "filter": {}}):
        assert only(await give(client, tags=["a"], **said)) == ("INVALID_INPUT", ["userIds"]), said
    assert await give(client, tags=["a"], filter={"event": {}}) == {"matched": 2, "changed": 2, "errors": []}
    assert await take(client, tags=["a"], everybody=True) == {"matched": 2, "changed": 2, "errors": []}
    once = {"tags": ["a"], "everybody": True, "idempotencyKey": "k"}
    assert await give(client, **once) == await give(client, **once) == {"matched": 2, "changed": 2, "errors": []}
    assert await tags_of(client, there["id"]) == ["a"]


async def test_no_tags_are_no_change(client: Client) -> None:
    user = await create(client)
    for change in (give, take):
        for policy in ("REJECT_FAILED_ROWS", "REJECT_EVERYTHING"):
            refused = await change(client, tags=[], userIds=[user["id"]], errorPolicy=policy)
            assert (only(refused), refused["matched"]) == (("INVALID_INPUT", ["tags"]), 0)


async def test_many_users_are_tagged_a_few_at_a_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await channel(client, "oa")
    await tag(client, "vip")
    for start in (0, 300):
        people = [{"channel": "oa", "externalId": f"p{n}"} for n in range(start, start + 300)]
        await record(client, *(event(n, identity=who) for n, who in enumerate(people, start)))
    db, kept = client.services.db, client.services.db.write
    sizes: list[int] = []

    async def cut_off(function: Any, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], list):
            sizes.append(len(args[0]))
        if len(sizes) == 2:
            raise RuntimeError("cut off")
        return await kept(function, *args, **kwargs)

    asked: dict[str, Any] = {"tags": ["vip"], "filter": {"createdAt": {"isNull": False}}, "idempotencyKey": "k"}
    monkeypatch.setattr(db, "write", cut_off)
    assert "errors" in await client.graphql("mutation($i: TagUsersInput!) { tagUsers(input: $i) { matched } }", i=asked)
    assert sizes == [250, 250]
    monkeypatch.undo()
    holders = '{ users(filter: {tag: {keys: ["vip"]}}) { totalCount } }'
    assert await client.data(holders) == {"users": {"totalCount": 250}}

    first = await give(client, **asked)
    assert (first["matched"], first["changed"]) == (600, 350)
    assert await client.data(holders) == {"users": {"totalCount": 600}}
    await create(client)
    assert await give(client, **asked) == first
    assert await client.data(holders) == {"users": {"totalCount": 600}}
    other = await give(client, **{**asked, "filter": None, "everybody": True})
    assert only(other)[0] == "IDEMPOTENCY_CONFLICT"
    taken = await take(client, tags=["vip"], filter={"createdAt": {"isNull": False}}, errorPolicy="REJECT_EVERYTHING")
    assert (taken["matched"], taken["changed"]) == (601, 600)
