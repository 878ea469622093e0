"""Plugins whose routes, hooks, decisions, jobs, deliverers and commands misbehave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.api import Tx
from scrm.testing.client import Client, drain, run_jobs, serving
from tests.bad_plugins.asking import counted, open_shop, otherwise, plugins, sell
from tests.bad_plugins.conftest import Commands
from tests.bad_plugins.kit import GOOD, kinds, modules

FOUND = kinds("outside")


async def routes(client: Client) -> None:
    for path in ("raise", "exit", "babble", "stall"):
        answer = await client.http.get(f"/plugins/misrouting/{path}")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (500, "PLUGIN_FAILED"), path
        assert "name" not in answer.text
    assert (await client.http.get("/plugins/good/greet")).text == "well"


async def health(client: Client) -> None:
    said = await client.data("{ systemStatus { health { plugin ok detail } } }")
    assert {one["plugin"]: (one["ok"], one["detail"]) for one in said["systemStatus"]["health"]} == {
        "ailing": (False, "health() of ailing returned a str; return a Health"),
        "fainting": (False, "plugin fainting failed in health: SystemExit"),
    }
    ready = await client.http.get("/readyz")
    unwell = "it is not well; systemStatus says more"
    said = {"ok": False, "notReady": ["ailing", "fainting"], "why": {"ailing": unwell, "fainting": unwell}}
    assert (ready.status_code, ready.json()) == (503, said)


async def people(client: Client) -> None:
    nodes = (await client.data("{ users { nodes { id } } }"))["users"]["nodes"]
    pair = {"keptId": nodes[0]["id"], "absorbedId": nodes[1]["id"]}
    document = "mutation($i: MergeUsersInput!) { mergeUsers(input: $i) { moved { owner } errors { code } } }"
    for asked in ({**pair, "dryRun": True}, pair):
        made = await client.data(document, i=asked)
        assert made["mergeUsers"]["errors"] == []
        assert "miscounting" not in {one["owner"] for one in made["mergeUsers"]["moved"]}
    answer = await client.graphql("mutation($id: ID!) { exportUser(input: {id: $id}) { export } }", id=nodes[0]["id"])
    assert refusals(answer) == [("PLUGIN_FIELD_FAILED", "miscounting")]
    assert answer["data"] == {"exportUser": None}


async def indicators(client: Client) -> None:
    keys = ["misindicating_short", "misindicating_loud", "good_number", "revenue"]
    series = 'series(from: "2026-03-01", to: "2026-03-03") { value }'
    answer = await client.graphql(f"query($k: [String!]) {{ indicators(keys: $k) {{ key {series} }} }}", k=keys)
    short, loud, good, revenue = answer["data"]["indicators"]
    assert (short["series"], loud["series"], good["series"]) == (None, None, [{"value": 1.0}, {"value": 1.0}])
    assert revenue["series"] == [{"value": 3000.0}, {"value": 0.0}]
    assert refusals(answer) == [("PLUGIN_FIELD_FAILED", "misindicating")] * 2


async def decisions(client: Client) -> None:
    for which in range(4):
        answer = await client.graphql(f"mutation {{ decideBadly(input: {{which: {which}}}) {{ errors {{ code }} }} }}")
        assert answer["data"] == {"decideBadly": None}, which
        assert refusals(answer) == [("PLUGIN_FIELD_FAILED", "deciding")]
    said = await client.data('{ events(filter: {type: ["deciding.done"]}) { totalCount } users { totalCount } }')
    assert said == {"events": {"totalCount": 0}, "users": {"totalCount": 2}}


async def work(client: Client) -> None:
    at = datetime.now(UTC)
    assert await run_jobs(client, at) == 0
    assert await run_jobs(client, at + timedelta(minutes=2)) == 2

    def kept(tx: Tx) -> tuple[list[Any], list[Any]]:
        jobs = tx.rows(sa.text("select name, last_error from jobs order by name"))
        messages = tx.rows(sa.text("select state, attempts, error from outbox"))
        return [tuple(row) for row in jobs], [tuple(row) for row in messages]

    jobs, messages = await client.services.db.read(kept)
    assert [(name, error.split(" ")[0]) for name, error in jobs] == [
        ("misdelivering:raising", "RuntimeError"),
        ("misdelivering:writing", "PermissionError"),
    ]
    assert [(state, attempts, error.split(" ")[0]) for state, attempts, error in messages] == [("PENDING", 1, "SystemExit")] * 3


def refusals(answer: dict[str, Any]) -> list[tuple[str, str]]:
    return [(error["extensions"]["code"], error["extensions"]["plugin"]) for error in answer["errors"]]


async def test_each_fails_alone_and_the_server_goes_on(migrated_url: str) -> None:
    loaded = modules(*FOUND)
    limits: dict[str, Any] = {"server": {"timeout_seconds": 2}, "plugin_start_seconds": 2}
    async with serving(migrated_url, modules=loaded, on_plugin_error="skip", **limits) as client:
        assert otherwise([GOOD, *FOUND], await plugins(client)) == {}
        await open_shop(client)
        await sell(client, "ann:1", "ben:1", "ann:2")
        await drain(client)
        assert await counted(client) == {"ann": 2, "ben": 1}
        for step in (routes, health, decisions, indicators, work, people):
            await step(client)
        await sell(client, "eve:1")
        await drain(client)
        assert (await counted(client))["eve"] == 1


async def test_by_default_a_lifespan_that_fails_stops_the_start_and_names_its_plugin(migrated_url: str) -> None:
    [kind] = [kind for kind in FOUND if kind.name == "stillborn"]
    with pytest.raises(Exception, match="plugin stillborn failed in lifespan"):
        async with serving(migrated_url, modules=modules(kind)):
            raise AssertionError("it started")


def test_commands_that_cannot_be_made_stop_no_other(commands: Commands, tmp_path: Path) -> None:
    [kind] = [kind for kind in FOUND if kind.name == "mistyping"]
    kind.install(tmp_path / "site")
    (tmp_path / "scrm.toml").write_text("[plugins.mistyping]\nenabled = true\n")
    helped, told = commands("--help", "mistyping tell", site=tmp_path / "site")
    assert (helped.code, "plugins" in helped.out, "mistyping" in helped.out) == (0, True, False)
    assert (told.code, told.out) == (2, "")
    assert [line.startswith("the commands of mistyping cannot be made: NameError: ") for line in told.err] == [True]
