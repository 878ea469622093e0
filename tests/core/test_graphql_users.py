"""People through GraphQL: results and refusals, on both engines."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from scrm.testing.client import Client, serving
from tests.core.asking import NOBODY, Clock, create, do, event, only, record

PROFILE = """id displayName phone email gender birthday country region city language attributes acquisitionChannel { key }
  createdAt updatedAt firstSeenAt lastSeenAt identities { channel { key } externalId unionId linkedAt }"""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(migrated_url: str, clock: Clock) -> AsyncIterator[Client]:
    async with serving(migrated_url, clock=clock, personal_attributes=["idCard"]) as client:
        for key, parent in (("wecom", None), ("oa", None), ("wecom-1", "wecom")):
            made = await do(
                client, "createChannel", "CreateChannelInput", {"key": key, "name": key, "kind": "WECOM", "parent": parent}
            )
            assert made["errors"] == []
        yield client


async def test_a_user_is_created_with_everything(client: Client) -> None:
    user = await create(
        client,
        PROFILE,
        displayName=" 王芳 ",
        phone="+86 138 0000 0000",
        email="fang@example.com",
        gender="FEMALE",
        birthday="1990-02-28",
        country="CN",
        region="上海",
        city="上海",
        language="zh-CN",
        attributes={"size": "M", "n": 3},
        identities=[{"channel": "wecom-1", "externalId": "wx1", "unionId": "u1"}],
        channel="oa",
    )
    assert re.fullmatch("User_[0-9a-f]{32}", user.pop("id"))
    at = "2026-03-01T04:00:00.000000Z"
    assert user == {
        "displayName": "王芳",
        "phone": "+86 138 0000 0000",
        "email": "fang@example.com",
        "gender": "FEMALE",
        "birthday": "1990-02-28",
        "country": "CN",
        "region": "上海",
        "city": "上海",
        "language": "zh-CN",
        "attributes": {"size": "M", "n": 3},
        "acquisitionChannel": {"key": "oa"},
        "createdAt": at,
        "updatedAt": at,
        "firstSeenAt": None,
        "lastSeenAt": None,
        "identities": [{"channel": {"key": "wecom"}, "externalId": "wx1", "unionId": "u1", "linkedAt": at}],
    }


@pytest.mark.parametrize(
    ("input", "code", "path"),
    [
        ({"phone": "call me"}, "INVALID_PHONE", ["phone"]),
        ({"email": "nowhere"}, "INVALID_EMAIL", ["email"]),
        ({"birthday": "2026-03-02"}, "INVALID_BIRTHDAY", ["birthday"]),
        ({"language": "?"}, "INVALID_LANGUAGE", ["language"]),
        ({"attributes": [1]}, "INVALID_ATTRIBUTES", ["attributes"]),
        ({"city": "x" * 3000}, "INVALID_TEXT", ["city"]),
        ({"channel": "nowhere"}, "UNKNOWN_CHANNEL", ["channel"]),
        ({"identities": [{"channel": "nowhere", "externalId": "a"}]}, "UNKNOWN_CHANNEL", ["identities", "0", "channel"]),
        ({"identities": [{"channel": "oa", "externalId": "undefined"}]}, "INVALID_IDENTITY", ["identities", "0", "externalId"]),
        ({"identities": [{"channel": "oa", "externalId": "taken"}]}, "IDENTITY_TAKEN", ["identities", "0", "externalId"]),
        (
            {"identities": [{"channel": "wecom", "externalId": "b", "unionId": "u"}]},
            "IDENTITY_TAKEN",
            ["identities", "0", "unionId"],
        ),
    ],
)
async def test_a_user_that_cannot_be_is_refused_and_nothing_changes(
    client: Client, input: dict[str, Any], code: str, path: list[str]
) -> None:
    await create(client, identities=[{"channel": "oa", "externalId": "taken", "unionId": "u"}])
    refused = await do(client, "createUser", "CreateUserInput", input, "user { id }")
    assert refused["user"] is None
    assert only(refused) == (code, path)
    assert (await client.data("{ users { totalCount } }"))["users"] == {"totalCount": 1}


async def test_absent_stays_and_null_clears(client: Client, clock: Clock) -> None:
    user = await create(client, displayName="A", city="上海", phone="1", attributes={"a": 1})
    clock.now += timedelta(hours=1)
    shown = "user { displayName city phone attributes updatedAt }"
    changed = await do(client, "updateUser", "UpdateUserInput", {"id": user["id"], "city": None, "phone": "2"}, shown)
    assert changed == {
        "user": {
            "displayName": "A",
            "city": None,
            "phone": "2",
            "attributes": {"a": 1},
            "updatedAt": "2026-03-01T05:00:00.000000Z",
        },
        "errors": [],
    }
    cleared = await do(client, "updateUser", "UpdateUserInput", {"id": user["id"], "attributes": None}, "user { attributes }")
    assert cleared == {"user": {"attributes": {}}, "errors": []}
    literal = await client.data(
        'mutation {{ updateUser(input: {{id: "{}", displayName: null}}) {{ user {{ displayName phone }} }} }}'.format(user["id"])
    )
    assert literal["updateUser"]["user"] == {"displayName": None, "phone": "2"}
    variable = "mutation($id: ID!, $p: String) { updateUser(input: {id: $id, phone: $p}) { user { phone } } }"
    assert (await client.data(variable, id=user["id"]))["updateUser"]["user"] == {"phone": "2"}
    assert (await client.data(variable, id=user["id"], p=None))["updateUser"]["user"] == {"phone": None}


async def test_updates_of_nobody_are_refused(client: Client) -> None:
    assert only(await do(client, "updateUser", "UpdateUserInput", {"id": NOBODY, "city": "x"})) == ("USER_NOT_FOUND", ["id"])
    for wrong in ("Tag_" + "0" * 32, "User_1", "x", "User_" + "g" * 32, "User_{" + "0" * 31):
        assert only(await do(client, "updateUser", "UpdateUserInput", {"id": wrong, "city": "x"})) == ("INVALID_ID", ["id"])


async def test_a_user_is_found_by_id_and_by_identity(client: Client) -> None:
    user = await create(client, displayName="A", identities=[{"channel": "wecom", "externalId": "wx1"}])
    by_id = "query($id: ID) { user(id: $id) { id } }"
    by_identity = "query($i: IdentityInput) { user(identity: $i) { id displayName } }"
    assert (await client.data(by_id, id=user["id"]))["user"] == user
    for channel in ("wecom", "wecom-1"):
        found = await client.data(by_identity, i={"channel": channel, "externalId": "wx1"})
        assert found["user"] == {"id": user["id"], "displayName": "A"}
    for channel, external in (("oa", "wx1"), ("nowhere", "wx1"), ("wecom", "wx2")):
        assert (await client.data(by_identity, i={"channel": channel, "externalId": external}))["user"] is None
    assert (await client.data(by_id, id=NOBODY))["user"] is None
    for query, variables in ((by_id, {"id": "User_1"}), (by_id, {}), ("{ user { id } }", {})):
        answer = await client.graphql(query, **variables)
        assert answer["data"] == {"user": None}
        [error] = answer["errors"]
        assert error["path"] == ["user"]
        assert error["extensions"]["code"] == ("INVALID_ID" if variables else "INVALID_INPUT")


async def test_identities_are_linked_and_unlinked(client: Client) -> None:
    one, other = (
        await create(client),
        await create(client, identities=[{"channel": "oa", "externalId": "theirs", "unionId": "u"}]),
    )
    shown = "user { id identities { channel { key } externalId unionId } }"

    async def link(user: str, **identity: str) -> dict[str, Any]:
        return await do(client, "linkIdentity", "LinkIdentityInput", {"userId": user, "identity": identity}, shown)

    linked = await link(one["id"], channel="wecom-1", externalId="wx1")
    assert linked["user"] == {
        "id": one["id"],
        "identities": [{"channel": {"key": "wecom"}, "externalId": "wx1", "unionId": None}],
    }
    again = await link(one["id"], channel="wecom", externalId="wx1", unionId="mine")
    assert again["user"]["identities"] == [{"channel": {"key": "wecom"}, "externalId": "wx1", "unionId": "mine"}]
    assert only(await link(one["id"], channel="oa", externalId="theirs")) == ("IDENTITY_TAKEN", ["identity", "externalId"])
    assert only(await link(one["id"], channel="oa", externalId="new", unionId="u")) == ("IDENTITY_TAKEN", ["identity", "unionId"])
    assert only(await link(one["id"], channel="nowhere", externalId="x")) == ("UNKNOWN_CHANNEL", ["identity", "channel"])
    assert only(await link(NOBODY, channel="oa", externalId="x")) == ("USER_NOT_FOUND", ["userId"])
    assert only(await link("x", channel="oa", externalId="x"))[0] == "INVALID_ID"
    unlink = {"identity": {"channel": "oa", "externalId": "theirs"}}
    gone = await do(client, "unlinkIdentity", "UnlinkIdentityInput", unlink, shown)
    assert gone == {"user": {"id": other["id"], "identities": []}, "errors": []}
    assert only(await do(client, "unlinkIdentity", "UnlinkIdentityInput", unlink)) == (
        "IDENTITY_NOT_FOUND",
        ["identity", "externalId"],
    )


async def test_two_become_one_and_two_again(client: Client) -> None:
    kept = await create(client, displayName="A", identities=[{"channel": "wecom", "externalId": "w"}])
    other = await create(client, displayName="B", city="上海", identities=[{"channel": "oa", "externalId": "o"}])
    pair = {"keptId": kept["id"], "absorbedId": other["id"]}
    shown = "mergeId kept { id city identities { externalId } } absorbed { id } moved { owner count }"
    before = {"id": kept["id"], "city": None, "identities": [{"externalId": "w"}]}
    planned = await do(client, "mergeUsers", "MergeUsersInput", {**pair, "dryRun": True}, shown)
    assert planned["mergeId"] is None
    assert planned["kept"] == before
    assert planned["absorbed"] == {"id": other["id"]}
    [moved] = planned["moved"]
    assert moved["owner"] == "core"
    assert moved["count"] >= 1
    assert (await client.data("{ users { totalCount } }"))["users"]["totalCount"] == 2

    merged = await do(client, "mergeUsers", "MergeUsersInput", pair, shown)
    assert merged["errors"] == []
    assert re.fullmatch("Merge_[0-9a-f]{32}", merged["mergeId"])
    assert merged["kept"] == {"id": kept["id"], "city": "上海", "identities": [{"externalId": "w"}, {"externalId": "o"}]}
    assert merged["absorbed"] == {"id": other["id"]}
    assert merged["moved"] == planned["moved"]
    assert (await client.data("{ users { nodes { id } } }"))["users"]["nodes"] == [kept]
    lookups = await client.data(
        """query($id: ID!) { user(id: $id) { id } node(id: $id) { __typename id } nodes(ids: [$id]) { id }
           byIdentity: user(identity: {channel: "oa", externalId: "o"}) { id } }""",
        id=other["id"],
    )
    assert lookups == {"user": kept, "node": {"__typename": "User", **kept}, "nodes": [kept], "byIdentity": kept}

    assert only(await do(client, "mergeUsers", "MergeUsersInput", pair)) == ("USER_ALREADY_MERGED", ["absorbedId"])
    same = {"keptId": kept["id"], "absorbedId": kept["id"]}
    assert only(await do(client, "mergeUsers", "MergeUsersInput", same)) == ("MERGE_WITH_ITSELF", ["absorbedId"])
    nobody = {"keptId": NOBODY, "absorbedId": kept["id"], "dryRun": True}
    assert only(await do(client, "mergeUsers", "MergeUsersInput", nobody)) == ("USER_NOT_FOUND", ["keptId"])

    undone = await do(client, "unmergeUsers", "UnmergeUsersInput", {"mergeId": merged["mergeId"], "reason": "two people"}, shown)
    assert undone["errors"] == []
    assert undone["kept"] == before
    assert undone["absorbed"] == {"id": other["id"]}
    found = await client.data("query($id: ID!) { user(id: $id) { id city identities { externalId } } }", id=other["id"])
    assert found["user"] == {"id": other["id"], "city": "上海", "identities": [{"externalId": "o"}]}
    assert only(await do(client, "unmergeUsers", "UnmergeUsersInput", {"mergeId": merged["mergeId"]})) == (
        "MERGE_ALREADY_UNDONE",
        ["mergeId"],
    )
    unknown = {"mergeId": "Merge_" + "0" * 32}
    assert only(await do(client, "unmergeUsers", "UnmergeUsersInput", unknown)) == ("MERGE_NOT_FOUND", ["mergeId"])
    assert only(await do(client, "unmergeUsers", "UnmergeUsersInput", {"mergeId": kept["id"]}))[0] == "INVALID_ID"


async def test_a_person_is_exported_and_erased(client: Client) -> None:
    user = await create(client, displayName="王芳", phone="13800000000", identities=[{"channel": "oa", "externalId": "o1"}])
    said = await do(client, "exportUser", "ExportUserInput", {"id": user["id"]}, "export")
    assert said["errors"] == []
    assert said["export"]["profile"]["phone"] == "13800000000"
    assert said["export"]["identities"][0]["externalId"] == "o1"
    gone = await do(client, "eraseUser", "EraseUserInput", {"id": user["id"]}, "erasedId pseudonym")
    assert gone["errors"] == []
    assert gone["erasedId"] == user["id"]
    assert re.fullmatch("[0-9a-f]{32}", gone["pseudonym"])
    assert (await client.data("{ users { totalCount nodes { id } } }"))["users"] == {"totalCount": 0, "nodes": []}
    shell = await client.data("query($id: ID!) { user(id: $id) { displayName phone identities { externalId } } }", id=user["id"])
    assert shell["user"]["displayName"] is None
    assert shell["user"]["phone"] is None
    assert shell["user"]["identities"][0]["externalId"] != "o1"
    for name, type in (("eraseUser", "EraseUserInput"), ("updateUser", "UpdateUserInput")):
        assert only(await do(client, name, type, {"id": user["id"]})) == ("USER_ERASED", ["id"])
    assert only(await do(client, "eraseUser", "EraseUserInput", {"id": NOBODY})) == ("USER_NOT_FOUND", ["id"])
    assert only(await do(client, "exportUser", "ExportUserInput", {"id": NOBODY})) == ("USER_NOT_FOUND", ["id"])


async def test_who_is_erased_by_a_merged_id_is_the_survivor(client: Client) -> None:
    kept = await create(client, displayName="王芳")
    absorbed = await create(client, displayName="小王")
    merge = {"keptId": kept["id"], "absorbedId": absorbed["id"], "reason": "the same"}
    assert (await do(client, "mergeUsers", "MergeUsersInput", merge))["errors"] == []
    gone = await do(client, "eraseUser", "EraseUserInput", {"id": absorbed["id"]}, "erasedId")
    assert (gone["errors"], gone["erasedId"]) == ([], kept["id"])
    for user in (kept, absorbed):
        said = {**event(1, identity=None), "userId": user["id"]}
        [result] = (await record(client, said))["results"]
        assert [(error["code"], error["path"][-1]) for error in result["errors"]] == [("USER_ERASED", "userId")]
    assert (await client.data('{ events(filter: {type: ["order.paid"]}) { totalCount } }'))["events"]["totalCount"] == 0


async def test_filters_orders_and_pages(client: Client, clock: Clock) -> None:
    people = (
        ("a", "上海", {"vip": True, "spent": 5}),
        ("b", "北京", {"vip": False}),
        ("c", None, {"spent": 50, "joined": "2026-01-05"}),
    )
    for name, city, attributes in people:
        clock.now += timedelta(minutes=1)
        await create(client, displayName=name, city=city, attributes=attributes, birthday="1990-03-03" if name == "a" else None)

    async def names(filter: Any, **more: Any) -> list[str]:
        query = "query($f: UserFilter, $o: [UserOrder!]) { users(filter: $f, orderBy: $o) { nodes { displayName } } }"
        data = await client.data(query, f=filter, o=more.get("order", [{"displayName": "ASC"}]))
        return [each["displayName"] for each in data["users"]["nodes"]]

    assert await names({}) == ["a", "b", "c"]
    assert await names(None, order=None) == ["c", "b", "a"]
    assert await names({"city": {"eq": "上海"}}) == ["a"]
    assert await names({"city": {"eq": None}}) == ["c"]
    assert await names({"not": [{"city": {"eq": "上海"}}]}) == ["b", "c"]
    assert await names({"or": [{"city": {"startsWith": "上"}}, {"displayName": {"in": ["c"]}}]}) == ["a", "c"]
    assert await names({"and": [{"city": {"isNull": False}}, {"displayName": {"ne": "a"}}]}) == ["b"]
    assert await names({"attributes": [{"key": "vip", "boolean": True}]}) == ["a"]
    assert await names({"attributes": [{"key": "spent", "number": {"gte": 5, "lt": 50}}]}) == ["a"]
    assert await names({"attributes": [{"key": "joined", "date": {"gt": "2026-01-04"}}]}) == ["c"]
    assert await names({"birthdayWithinDays": 2}) == ["a"]
    assert await names({"birthdayWithinDays": 1}) == []
    assert await names({"createdAt": {"gt": "2026-03-01T12:01:00+08:00"}}) == ["b", "c"]
    ids = [
        each["id"] for each in (await client.data("{ users(orderBy: [{displayName: ASC}]) { nodes { id } } }"))["users"]["nodes"]
    ]
    assert await names({"ids": [ids[0], ids[2], NOBODY]}) == ["a", "c"]
    assert await names({"ids": []}) == []

    query = """query($first: Int, $after: String, $last: Int, $before: String) {
      users(first: $first, after: $after, last: $last, before: $before, orderBy: [{displayName: ASC}]) {
        edges { cursor node { displayName } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""
    first = (await client.data(query, first=2))["users"]
    assert [each["node"]["displayName"] for each in first["edges"]] == ["a", "b"]
    assert first["pageInfo"] == {
        "hasNextPage": True,
        "hasPreviousPage": False,
        "startCursor": first["edges"][0]["cursor"],
        "endCursor": first["edges"][1]["cursor"],
    }
    second = (await client.data(query, first=2, after=first["pageInfo"]["endCursor"]))["users"]
    assert [each["node"]["displayName"] for each in second["edges"]] == ["c"]
    back = (await client.data(query, last=1, before=second["pageInfo"]["startCursor"]))["users"]
    assert [each["node"]["displayName"] for each in back["edges"]] == ["b"]
    for variables, code in (({"first": 0}, "INVALID_PAGE"), ({"first": 101}, "INVALID_PAGE"), ({"after": "x"}, "INVALID_CURSOR")):
        answer = await client.graphql(query, **variables)
        assert answer["data"] == {"users": None}
        assert [error["extensions"]["code"] for error in answer["errors"]] == [code]


async def test_lists_have_twenty_unless_said(client: Client) -> None:
    for number in range(23):
        await create(client, displayName=f"{number:02}")
    data = await client.data("{ users { totalCount nodes { id } pageInfo { hasNextPage } } }")
    assert len(data["users"]["nodes"]) == 20
    assert data["users"]["totalCount"] == 23
    assert data["users"]["pageInfo"] == {"hasNextPage": True}


async def test_personal_values_are_masked_without_pii_read(client: Client) -> None:
    user = await create(
        client,
        displayName="王芳",
        phone="13800000000",
        email="f@example.com",
        birthday="1990-01-01",
        city="上海",
        attributes={"idCard": "3101", "size": "M"},
        identities=[{"channel": "oa", "externalId": "o1", "unionId": "u1"}],
    )
    reader = client.with_key(await client.key("users:read", "channels:read", "users:write"))
    query = (
        "query($id: ID!) { user(id: $id) { displayName phone email birthday city attributes identities { externalId unionId } }"
        " viewer { pii scopes kind name roles user { id } } }"
    )
    seen = await reader.data(query, id=user["id"])
    assert seen["viewer"] == {
        "pii": False,
        "scopes": ["channels:read", "users:read", "users:write"],
        "kind": "KEY",
        "name": seen["viewer"]["name"],
        "roles": [],
        "user": None,
    }
    text = str(seen["user"])
    for personal in ("王芳", "13800000000", "f@example.com", "1990", "3101", "o1", "u1"):
        assert personal not in text, personal
    assert seen["user"]["city"] == "上海"
    assert seen["user"]["attributes"]["size"] == "M"
    clear = await client.data(query, id=user["id"])
    assert clear["viewer"]["pii"] is True
    assert clear["user"]["phone"] == "13800000000"
    assert clear["user"]["attributes"]["idCard"] == "3101"
    changed = await do(reader, "updateUser", "UpdateUserInput", {"id": user["id"], "phone": "139"}, "user { phone }")
    assert changed["errors"] == []
    assert "139" not in str(changed["user"])
    for filter in ({"phone": {"eq": "13800000000"}}, {"attributes": [{"key": "idCard", "string": {"eq": "3101"}}]}):
        answer = await reader.graphql("query($f: UserFilter) { users(filter: $f) { totalCount } }", f=filter)
        assert answer["data"] == {"users": None}
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    answer = await reader.graphql("{ users(orderBy: [{displayName: ASC}]) { totalCount nodes { id } } }")
    assert answer["data"] == {"users": None}
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_days_that_are_none_are_refused(client: Client) -> None:
    await create(client, displayName="王芳")
    query = "query($f: UserFilter) { users(filter: $f) { totalCount } }"
    for days in (0, -1, -(2**31)):
        for said in ({"event": {"withinDays": days}}, {"not": [{"event": {"withinDays": days}}]}):
            answer = await client.graphql(query, f=said)
            assert [error["extensions"]["code"] for error in answer["errors"]] == ["INVALID_FILTER"], said
        written = await client.graphql(f"{{ users(filter: {{event: {{withinDays: {days}}}}}) {{ totalCount }} }}")
        assert written["errors"][0]["message"] == f"withinDays is {days}; expected 1 or more, of which today is the first"
    assert (await client.data(query, f={"event": {"withinDays": 1}}))["users"] == {"totalCount": 1}
    answer = await client.graphql(query, f={"birthdayWithinDays": -1})
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["INVALID_FILTER"]
    assert (await client.data(query, f={"birthdayWithinDays": 0}))["users"] == {"totalCount": 0}
    tagging = "mutation($f: UserFilter) { tagUsers(input: {tags: [], filter: $f}) { errors { code } } }"
    answer = await client.data(tagging, f={"event": {"withinDays": 0}})
    assert answer["tagUsers"]["errors"] == [{"code": "INVALID_FILTER"}]


async def test_five_hundred_alternatives_are_answered(client: Client) -> None:
    for city in ("上海", "城7", "城499", None):
        await create(client, city=city, displayName=city)
    many = [{"city": {"eq": f"城{n}"}} for n in range(500)]
    query = """query($f: UserFilter) { users(filter: $f, orderBy: [{displayName: ASC}]) {
        totalCount pageInfo { hasNextPage } nodes { city events(first: 1) { nodes { user { city } } } } } }"""

    async def cities(**filter: Any) -> list[str | None]:
        found = (await client.data(query, f=filter))["users"]
        assert found["totalCount"] == len(found["nodes"])
        return [each["city"] for each in found["nodes"]]

    assert await cities(**{"or": many}) == ["城499", "城7"]
    assert await cities(**{"not": many}) == ["上海", None]
    assert await cities(**{"and": [{"city": {"ne": f"城{n}"}} for n in range(500)]}) == ["上海", None]
    assert await cities(**{"or": [{"and": [{"or": many[:300]}, {"not": many[8:300]}]}, *many[480:]]}) == ["城499", "城7"]
    assert (await do(client, "createTag", "CreateTagInput", {"key": "a", "name": "a"}))["errors"] == []
    tagged = await do(client, "tagUsers", "TagUsersInput", {"tags": ["a"], "filter": {"or": many}}, "matched")
    assert tagged["matched"] == 2
