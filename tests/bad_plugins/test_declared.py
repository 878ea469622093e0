"""Plugins whose declarations are wrong, alone or beside others: all of them at once, and the server serves."""

from __future__ import annotations

from pathlib import Path

from scrm.testing.client import drain, serving
from tests.bad_plugins.asking import counted, open_shop, otherwise, plugins, sell
from tests.bad_plugins.conftest import Commands
from tests.bad_plugins.kit import GOOD, fits, kinds, modules

FOUND = [kind for kind in kinds("declared", "schema") if "Where" not in kind.says]


async def test_all_of_them_are_left_out_with_their_reasons_and_the_others_serve(migrated_url: str) -> None:
    sections = {"mistaken": {"enabled": True, "bonsu": 1}}
    async with serving(migrated_url, modules=modules(*FOUND), sections=sections, on_plugin_error="skip") as client:
        assert otherwise([GOOD, *FOUND], await plugins(client)) == {}
        await open_shop(client)
        await sell(client, "ann:1", "ben:1", "ann:2")
        await drain(client)
        assert await counted(client) == {"ann": 2, "ben": 1}
        assert [(await client.http.get(f"/plugins/{name}/greet")).text for name in ("good", "namesake")] == [
            "well",
            "the other one",
        ]


def test_commands_that_would_hide_the_hosts(commands: Commands, tmp_path: Path) -> None:
    [kind] = [kind for kind in kinds("declared") if kind.says.get("Where") == "command line"]
    kind.install(tmp_path / "site")
    [made] = commands("db upgrade", site=tmp_path / "site")
    assert made.code == 0
    (tmp_path / "scrm.toml").write_text(f"[plugins.{kind.name}]\nenabled = true\n")
    listed, stands, refused = commands("plugins list", "db status", "db upgrade", site=tmp_path / "site")
    assert (kind.reason or "?") in listed.out
    header, *owners = stands.out.splitlines()
    assert header.split() == ["OWNER", "CURRENT", "HEAD", "PENDING", "NOTE"]
    assert "core" in [line.split()[0] for line in owners]
    assert (refused.code, refused.err) == (2, [kind.reason])


def test_every_problem_is_said_at_once_when_the_start_is_refused(commands: Commands, tmp_path: Path) -> None:
    chosen = [kind for kind in FOUND if kind.name in ("misspelt", "futuristic", "lonely", "zz_repeats", "unscoped")]
    for kind in (GOOD, *chosen):
        kind.install(tmp_path / "site")
    (tmp_path / "scrm.toml").write_text("".join(f"[plugins.{kind.name}]\nenabled = true\n" for kind in (GOOD, *chosen)))
    [said] = commands("schema", site=tmp_path / "site")
    assert (said.code, said.out) == (2, "")
    for kind in chosen:
        first = (kind.reason or "?").split("; field")[0]
        assert [line for line in said.err if fits(line.removeprefix("plugin "), first)], (kind.name, said.err)
