"""What a plugin called personal is erased even when the plugin is long gone, on both engines; and no audit line says it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from scrm.events.models import event_types, events
from scrm.migrate import purge
from scrm.models import audit_log
from scrm.plugin import Contribution, EventType, Scope, hookimpl
from scrm.plugin_set import PluginSet
from scrm.testing.client import Client, serving
from tests.core.asking import Clock, channel, create, do, event, record, tag

FORM = EventType("form.sent", "Sent a form.", {"type": "object"}, personal=("home",))


@hookimpl
def contribute() -> Contribution:
    return Contribution(name="forms", version="1.0.0", event_types=[FORM], scopes=[Scope("forms:read", "See forms.")])


@hookimpl
def merge(tx: Any, event: Any, kept: Any, absorbed: Any, rules: Any) -> int:
    return 0


@hookimpl
def unmerge(tx: Any, event: Any, kept: Any, absorbed: Any, merge: Any, rules: Any) -> int:
    return 0


@hookimpl
def erase(tx: Any, event: Any, user: Any, pseudonym: Any) -> None:
    return None


@hookimpl
def export(tx: Any, user: Any) -> dict[str, Any]:
    return {}


PLUGIN = SimpleNamespace(contribute=contribute, merge=merge, unmerge=unmerge, erase=erase, export=export)


async def forms(client: Client) -> list[Any]:
    data = await client.data('{ events(filter: {type: ["form.sent"]}) { nodes { properties } } }')
    return [each["properties"] for each in data["events"]["nodes"]]


async def test_personal_properties_go_when_their_plugin_is_gone(migrated_url: str) -> None:
    async with serving(migrated_url, modules={"forms": PLUGIN}) as client:
        await channel(client, "oa")
        sent = event(1, type="form.sent", amount=None, properties={"home": "南京路一号", "topic": "shoes"}, source="web")
        assert (await record(client, sent))["accepted"] == 1
        reader = client.with_key(await client.key("events:read"))
        assert (await forms(reader))[0]["topic"] == "shoes"
        assert "南京路" not in str(await forms(reader))
    async with serving(migrated_url) as client:
        user = (await client.data("{ users { nodes { id } } }"))["users"]["nodes"][0]["id"]
        assert await forms(client) == [{"home": "南京路一号", "topic": "shoes"}]
        assert (await do(client, "eraseUser", "EraseUserInput", {"id": user}, "erasedId"))["erasedId"] == user
        kept = await client.services.db.read(
            lambda tx: [row.properties for row in tx.rows(sa.select(events.c.properties).where(events.c.type == "form.sent"))]
        )
        assert kept == [{"topic": "shoes"}]


async def test_personal_properties_stay_masked_when_their_plugin_is_gone(migrated_url: str) -> None:
    sent = event(1, type="form.sent", amount=None, properties={"home": "南京路一号", "topic": "shoes"}, source="web")
    match = '{ events(filter: {properties: [{key: "home", string: {eq: "南京路一号"}}]}) { totalCount } }'
    async with serving(migrated_url, modules={"forms": PLUGIN}) as client:
        await channel(client, "oa")
        assert (await record(client, sent))["accepted"] == 1
    for number in range(2):  # disabled, then purged: the events are there
        async with serving(migrated_url) as client:
            reader = client.with_key(await client.key("events:read", name=f"reader {number}"))
            assert await forms(reader) == [{"home": "***", "topic": "shoes"}]
            refused = await reader.graphql(match)
            assert [error["extensions"]["code"] for error in refused["errors"]] == ["FORBIDDEN"]
            assert await forms(client) == [{"home": "南京路一号", "topic": "shoes"}]
            assert (await client.data(match))["events"] == {"totalCount": 1}
        await purge(migrated_url, "forms", datetime.now(UTC))


async def test_the_server_writes_down_what_is_personal_when_it_starts(migrated_url: str) -> None:
    async def known(client: Client) -> dict[str, tuple[str, list[str]]]:
        rows = await client.services.db.read(lambda tx: tx.rows(sa.select(event_types)))
        return {row.type: (row.owner, row.personal) for row in rows}

    async with serving(migrated_url) as client:
        assert (await known(client))["order.paid"] == ("core", [])
        assert "form.sent" not in await known(client)
    async with serving(migrated_url, modules={"forms": PLUGIN}) as client:
        assert (await known(client))["form.sent"] == ("forms", ["home"])
        await client.services.db.write(lambda tx: tx.execute(event_types.delete()))
        plugins: PluginSet = client.services.plugins
    async with serving(migrated_url, plugins) as client:
        assert (await known(client))["form.sent"] == ("forms", ["home"])
    async with serving(migrated_url) as client:
        assert (await known(client))["form.sent"] == ("forms", ["home"])


async def test_some_properties_are_personal_whoever_sends_them(migrated_url: str) -> None:
    cases: list[tuple[str, dict[str, Any]]] = [("phone", {}), ("openId", {"personal_properties": ["openId"]})]
    for said, settings in cases:
        async with serving(migrated_url, **settings) as client:
            await channel(client, said.lower())
            who = {"channel": said.lower(), "externalId": "a"}
            told = {said: "13800000000", "topic": "x"}
            sent = event(1, type="any.thing", identity=who, amount=None, properties=told, source=said)
            assert (await record(client, sent))["accepted"] == 1
            find = f'{{ events(filter: {{source: ["{said}"]}}) {{ nodes {{ properties user {{ id }} }} }} }}'
            reader = client.with_key(await client.key("events:read", "users:read", name=said))
            assert (await reader.data(find))["events"]["nodes"][0]["properties"] == {said: "***", "topic": "x"}
            [found] = (await client.data(find))["events"]["nodes"]
            assert found["properties"] == told
            await do(client, "eraseUser", "EraseUserInput", {"id": found["user"]["id"]})
            assert (await client.data(find))["events"]["nodes"][0]["properties"] == {"topic": "x"}


async def reasons(client: Client, *scopes: str) -> list[Any]:
    """Why tags were taken, as a key with these scopes sees it."""
    reader = client.with_key(await client.key(*scopes, name=" ".join(scopes)))
    data = await reader.data('{ events(filter: {type: ["user.untagged"]}) { nodes { properties } } }')
    return [each["properties"]["untagReason"] for each in data["events"]["nodes"]]


PERSONAL = ("王芳", "13800000000", "fang@example.com", "1990-01-01", "3101-secret", "openid-secret", "union-secret", "南京路")


async def test_no_audit_line_and_no_core_event_says_anything_personal(migrated_url: str) -> None:
    async with serving(migrated_url, clock=Clock()) as client:
        await channel(client, "oa")
        secret = {"displayName": "王芳", "phone": "13800000000", "email": "fang@example.com", "birthday": "1990-01-01"}
        identity = {"channel": "oa", "externalId": "openid-secret", "unionId": "union-secret"}
        one = (await create(client, **secret, attributes={"idCard": "3101-secret"}, identities=[identity]))["id"]
        two = (await create(client))["id"]
        await do(client, "updateUser", "UpdateUserInput", {"id": two, **secret, "attributes": {"idCard": "3101-secret"}})
        await do(client, "unlinkIdentity", "UnlinkIdentityInput", {"identity": {"channel": "oa", "externalId": "openid-secret"}})
        await do(client, "linkIdentity", "LinkIdentityInput", {"userId": two, "identity": identity})
        merged = await do(client, "mergeUsers", "MergeUsersInput", {"keptId": one, "absorbedId": two}, "mergeId")
        await do(client, "unmergeUsers", "UnmergeUsersInput", {"mergeId": merged["mergeId"]})
        await record(
            client,
            event(
                1, identity={"channel": "oa", "externalId": "openid-secret"}, properties={"orderId": "o1", "address": "南京路"}
            ),
        )
        await tag(client, "vip")
        why = {"tags": ["vip"], "userIds": [one], "reason": "王芳 of 南京路 asked"}
        await do(client, "tagUsers", "TagUsersInput", why, "changed")
        await do(client, "untagUsers", "UntagUsersInput", why, "changed")
        assert await reasons(client, "events:read") == ["***"]
        assert await reasons(client, "events:read", "pii:read") == [why["reason"]]
        await do(client, "exportUser", "ExportUserInput", {"id": one})
        await do(client, "eraseUser", "EraseUserInput", {"id": one})

        def read(tx: Any) -> tuple[list[Any], list[Any]]:
            core = sa.select(events.c.type, events.c.properties, events.c.external_id).where(events.c.source == "core")
            return tx.rows(sa.select(audit_log)), tx.rows(core)

        lines, changes = await client.services.db.read(read)
        assert {row.action for row in lines} >= {
            "channel.created",
            "user.created",
            "user.updated",
            "identity.linked",
            "identity.unlinked",
            "user.merged",
            "user.unmerged",
            "events.recorded",
            "users.tagged",
            "users.untagged",
            "user.exported",
            "user.erased",
        }
        said = str([tuple(row) for row in (*lines, *changes)])
        assert [personal for personal in PERSONAL if personal in said] == []
