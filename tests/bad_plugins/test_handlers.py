"""Plugins whose handlers misbehave: all of them read the same log, and the good one reads it to the end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from scrm.testing.client import Client, drain, serving
from tests.bad_plugins.asking import counted, open_shop, otherwise, plugins, sell, until
from tests.bad_plugins.kit import GOOD, kinds, modules

PEOPLE = [f"p{number}" for number in range(24)]
ORDERS = ("eve:poison", "eve:later", *(f"{person}:1" for person in PEOPLE))
ONCE = {"eve": 2, **dict.fromkeys(PEOPLE, 1)}


async def merge(client: Client, kept: str, absorbed: str) -> None:
    """Make one person of two."""
    asked = "{ users(first: 100) { nodes { id identities { externalId } } } }"
    ids = {one["identities"][0]["externalId"]: one["id"] for one in (await client.data(asked))["users"]["nodes"]}
    document = "mutation($i: MergeUsersInput!) { mergeUsers(input: $i) { errors { code } } }"
    made = await client.data(document, i={"keptId": ids[kept], "absorbedId": ids[absorbed]})
    assert made["mergeUsers"]["errors"] == []


async def test_each_comes_to_its_state_and_the_others_read_on(migrated_url: str) -> None:
    found = kinds("handlers")
    async with serving(migrated_url, modules=modules(*found), on_plugin_error="skip") as client:
        await open_shop(client)
        await sell(client, *ORDERS)
        await drain(client)
        assert await counted(client) == ONCE
        await merge(client, "p0", "p1")
        await drain(client)
        assert otherwise([GOOD, *found], await plugins(client)) == {}
        await sell(client, "eve:more", "new:1")
        await drain(client)
        now = await counted(client)
        assert (now["eve"], now["new"]) == (3, 1)
        lags = await client.data("{ plugins { name lag } }")
        behind = {one["name"] for one in lags["plugins"] if one["lag"]}
        assert behind == {kind.name for kind in found if kind.state == "degraded"}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Where those that hang are installed, and the good one."""
    made = tmp_path / "site"
    for kind in (GOOD, *kinds("hangs")):
        kind.install(made)
    return made


async def test_who_does_not_return_rests_and_the_others_read_on(
    migrated_url: str, site: Path, running: Any, tmp_path: Path
) -> None:
    found = kinds("hangs")
    sections = "".join(f"[plugins.{kind.name}]\nenabled = true\n" for kind in (GOOD, *found))
    (tmp_path / "scrm.toml").write_text(f'database_url = "{migrated_url}"\nhandler_seconds = 1\n{sections}')
    async with serving(migrated_url, modules=modules(*found)) as client:
        await open_shop(client)
        await sell(client, *ORDERS)

        async def settled() -> bool:
            return otherwise([GOOD, *found], await plugins(client)) == {}

        with running("worker", site=site) as worker:
            await until(settled)
            assert await counted(client) == ONCE
            await sell(client, "p1:2", "p2:2")

            async def read_on() -> bool:
                now = await counted(client)
                return (now["p1"], now["p2"]) == (2, 2)

            await until(read_on)
            assert worker.poll() is None
    shutil.rmtree(site)
