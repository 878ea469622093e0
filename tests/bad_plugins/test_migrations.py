"""Plugins whose migrations fail, or touch what is not theirs: nothing of them stays, and the others are upgraded and serve."""

from __future__ import annotations

import json
from pathlib import Path

import sqlalchemy as sa

from scrm.api import Tx
from scrm.testing.client import Client, drain, serving
from tests.bad_plugins.asking import counted, open_shop, otherwise, plugins, sell
from tests.bad_plugins.conftest import Commands
from tests.bad_plugins.kit import GOOD, fits, kinds, modules

ALL = kinds("migrations")
RUN = [kind for kind in ALL if kind.says.get("Upgrade") != "not run"]
FAILING = [kind for kind in RUN if kind.state == "migration_error"]


async def tables(client: Client) -> set[str]:
    def names(tx: Tx) -> set[str]:
        return set(sa.inspect(tx.connection).get_table_names())

    return await client.services.db.read(names)


async def test_nothing_of_them_stays_and_the_others_serve(migrated_url: str) -> None:
    async with serving(migrated_url, modules=modules()) as client:
        await open_shop(client)
        await sell(client, "ann:1", "ben:1", "ann:2")
        await drain(client)
        before = await tables(client)
    async with serving(migrated_url, modules=modules(*RUN), on_plugin_error="skip") as client:
        assert otherwise([GOOD, *RUN], await plugins(client)) == {}
        assert await tables(client) - before == {"drifts_rows", "alembic_version_drifts"}
        assert await counted(client) == {"ann": 2, "ben": 1}
        cities = await client.data("{ users { nodes { city } } }")
        assert [person["city"] for person in cities["users"]["nodes"]] == [None, None]
        await sell(client, "ben:2", "eve:1")
        await drain(client)
        assert await counted(client) == {"ann": 2, "ben": 2, "eve": 1}


def test_the_command_line_says_why_and_what_to_do(commands: Commands, migrated_url: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    for kind in (GOOD, *ALL):
        kind.install(site)
    top = 'on_plugin_error = "skip"\n'
    (tmp_path / "scrm.toml").write_text(top + "".join(f"[plugins.{kind.name}]\nenabled = true\n" for kind in (GOOD, *RUN)))
    (tmp_path / "all.toml").write_text(top + "".join(f"[plugins.{kind.name}]\nenabled = true\n" for kind in (GOOD, *ALL)))
    lines = ["db upgrade", "db upgrade", "--config all.toml plugins list --json", "db check --json", "plugins show half"]
    first, again, listed, checked, shown = commands(*lines, site=site, SCRM_DATABASE_URL=migrated_url)
    assert (first.code, again.code) == (1, 1)
    promised = [kind.says["Upgrade"] for kind in FAILING]
    assert [line for line, said in zip(first.err, promised, strict=True) if not fits(line, said)] == []
    assert first.out.splitlines() == ["core: up to date", "drifts: nothing → 0001", "good: nothing → 0001"]
    states = {one["name"]: (one["state"], one["reason"]) for one in json.loads(listed.out)}
    wrong = {kind.name: states[kind.name] for kind in (GOOD, *ALL) if states[kind.name][0] != kind.state}
    assert wrong == {}
    assert states["waits"] == ("migration_required", "1 migration is pending; run scrm db upgrade")
    found = {one["owner"] for one in json.loads(checked.out)}
    assert (checked.code, "drifts" in found, found & {"core", "good"}) == (1, True, set())
    assert "state: migration_error" in shown.out.splitlines()
