"""What only a plugin can say happened is refused from everybody else."""

from datetime import UTC, datetime

from scrm.testing.client import Client, drain, serving

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
