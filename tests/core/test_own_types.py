"""What only a plugin can say happened is refused from everybody else."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scrm.testing.client import Client, drain, serving
from tests.core.shell import Command

FORGED = {
    "identity": {"channel": "till", "externalId": "ann"},
    "occurredAt": "2026-01-02T03:04:05Z",
    "source": "forge",
    "properties": {"points": 3000, "lots": []},
}


async def status_of(client: Client, type_: str) -> tuple[str, list[str]]:
    [result] = (await client.events([{**FORGED, "type": type_, "externalId": type_}]))["results"]
    return result["status"], [error["code"] for error in result["errors"]]


async def test_announcements_and_facts_cannot_be_forged(database_url: str) -> None:
    at = datetime(2026, 1, 3, tzinfo=UTC)
    async with serving(database_url, modules={}, sections={"loyalty": {"enabled": True}}, clock=lambda: at) as client:
        await client.data('mutation { createChannel(input: {key: "till", name: "till", kind: STORE}) { errors { code } } }')
        assert await status_of(client, "page.viewed") == ("ACCEPTED", [])
        for type_ in ("points.earned", "points.redeemed", "points.reversed", "user.merged"):
            assert await status_of(client, type_) == ("REJECTED", ["RESERVED_TYPE"])
        await drain(client)
        data = await client.data("{ events { nodes { type source } } users { nodes { points { balance } } } }")
        assert not [event for event in data["events"]["nodes"] if event["type"].startswith("points.")]
        assert [user["points"]["balance"] for user in data["users"]["nodes"]] == [0]


RECORD = """mutation($events: [EventInput!]!, $policy: BulkErrorPolicy!) {
  recordEvents(input: {events: $events, errorPolicy: $policy}) { results { status errors { code path } } errors { code } } }"""
FACTS = ("points.earned", "points.redeemed")
WITH = {"loyalty": {"enabled": True}}


async def recorded(client: Client, policy: str, *types: str) -> list[tuple[str, list[str]]]:
    """What the mutation answers for an event of each type, told apart by policy."""
    events = [{**FORGED, "type": type_, "externalId": f"{type_} {policy}"} for type_ in types]
    answer = (await client.data(RECORD, events=events, policy=policy))["recordEvents"]
    return [(each["status"], [error["code"] for error in each["errors"]]) for each in answer["results"]]


async def doors(client: Client, on: Command, tmp_path: Path) -> dict[str, Any]:
    """What every door says to a fact of the plugin's and to an event that is anybody's."""
    file = tmp_path / "facts.csv"
    file.write_text(
        "type,who,when,source,key\n" + "".join(f"{type_},ann,2026-01-02T03:04:05Z,forge,{type_}\n" for type_ in FACTS)
    )
    maps = "type=type identity.externalId=who occurredAt=when source=source externalId=key"
    line = ["import", "events", str(file), "--set", "identity.channel=till", "--errors", str(tmp_path / "refused.csv"), "--json"]
    line += [part for one in maps.split() for part in ("--map", one)]
    imported = await asyncio.to_thread(on, *line, "--restart")
    tally = json.loads(imported.out)["tally"]
    return {
        "bulk": [await status_of(client, type_) for type_ in FACTS],
        "rows": await recorded(client, "REJECT_FAILED_ROWS", FACTS[0], "page.viewed"),
        "all": await recorded(client, "REJECT_EVERYTHING", FACTS[0], "page.viewed"),
        "import": (tally["accepted"], tally["rejected"], (tmp_path / "refused.csv").read_text().count("nobody else can say")),
    }


REFUSED = {
    "bulk": [("REJECTED", ["RESERVED_TYPE"])] * 2,
    "rows": [("REJECTED", ["RESERVED_TYPE"]), ("ACCEPTED", [])],
    "all": [("REJECTED", ["RESERVED_TYPE"]), ("REJECTED", ["BATCH_REJECTED"])],
    "import": (0, 2, 2),
}


async def test_they_cannot_while_the_plugin_is_disabled_until_it_is_purged(
    migrated_url: str, on: Command, tmp_path: Path
) -> None:
    at = datetime(2026, 1, 3, tzinfo=UTC)
    async with serving(migrated_url, clock=lambda: at) as before:  # a server that has never heard of the plugin
        await before.data('mutation { createChannel(input: {key: "till", name: "till", kind: STORE}) { errors { code } } }')
        assert await status_of(before, "points.reversed") == ("ACCEPTED", [])
        async with serving(migrated_url, modules={}, sections=WITH, clock=lambda: at):
            assert await status_of(before, "points.earned") == ("REJECTED", ["RESERVED_TYPE"])
    async with serving(migrated_url, clock=lambda: at) as without:
        assert await doors(without, on, tmp_path) == REFUSED
        assert await kinds(without) == {"points.reversed": 1, "page.viewed": 1}
    async with serving(migrated_url, modules={}, sections=WITH, clock=lambda: at) as again:
        await drain(again)
        assert (await again.data("{ users { nodes { points { balance } } } }"))["users"]["nodes"] == [{"points": {"balance": 0}}]
    purged = await asyncio.to_thread(on, "plugins", "purge", "loyalty", "--yes")
    assert (purged.code, len(purged.err)) == (0, 1)
    async with serving(migrated_url, clock=lambda: at) as free:
        assert [await status_of(free, type_) for type_ in FACTS] == [("ACCEPTED", [])] * 2
    async with serving(migrated_url, modules={}, sections=WITH, clock=lambda: at) as last:
        assert [await status_of(last, type_) for type_ in FACTS] == REFUSED["bulk"]
        await drain(last)  # what anybody said meanwhile is in the log, and the plugin does not believe it
        assert (await last.data("{ users { nodes { points { balance } } } }"))["users"]["nodes"] == [{"points": {"balance": 0}}]


async def kinds(client: Client) -> dict[str, int]:
    """How many events of each type there are that are not the core's."""
    nodes = (await client.data("{ events(first: 100) { nodes { type source } } }"))["events"]["nodes"]
    return dict(Counter(node["type"] for node in nodes if node["source"] == "forge"))


async def test_a_plugin_that_reads_everything_does_not_believe_them_either(database_url: str) -> None:
    at = datetime(2026, 1, 3, tzinfo=UTC)
    async with serving(database_url, modules={}, clock=lambda: at) as client:  # nobody knows yet whose they are
        await client.data('mutation { createChannel(input: {key: "till", name: "till", kind: STORE}) { errors { code } } }')
        forged = {**FORGED, "type": "growth.granted", "externalId": "g", "properties": {"growth": 5000}}
        assert (await client.events([forged]))["accepted"] == 1
    async with serving(database_url, modules={}, sections={"tiers": {"enabled": True}}, clock=lambda: at) as client:
        await drain(client)
        data = await client.data("{ users { nodes { membership { growth } } } plugins { failures { totalCount } } }")
        assert [user["membership"]["growth"] for user in data["users"]["nodes"]] == [0]
        assert {plugin["failures"]["totalCount"] for plugin in data["plugins"]} == {0}
