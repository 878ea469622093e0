"""Plugins that misbehave while they are imported or asked what they bring: in processes, because they could end ours."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bad_plugins.asking import PATIENCE, connected, counted, free_port, open_shop, otherwise, plugins, sell, until
from tests.bad_plugins.conftest import Commands, Said
from tests.bad_plugins.kit import GOOD, fits, kinds

ALL = kinds("start")
SLOW = [kind for kind in ALL if kind.name in ("sleeps", "dawdles")]
DEADLY = [kind for kind in ALL if kind.name == "dies"]
QUICK = [kind for kind in ALL if kind not in (*SLOW, *DEADLY)]
NOT_READY = "good is not ready: 1 migration is pending; run scrm db upgrade"
Process = Callable[..., Said]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every one of them is installed, and the good one."""
    made = tmp_path_factory.mktemp("site")
    for kind in (GOOD, *ALL):
        kind.install(made)
    return made


def enabled(*names: str, **settings: Any) -> str:
    top = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    return top + "".join(f"[plugins.{name}]\nenabled = true\n" for name in names)


async def test_the_server_and_its_worker_serve_with_all_of_them_installed(
    site: Path, migrated_url: str, commands: Commands, running: Any, tmp_path: Path
) -> None:
    settings = enabled(*(kind.name for kind in (GOOD, *QUICK)), on_plugin_error="skip", database_url=migrated_url)
    (tmp_path / "scrm.toml").write_text(settings)
    upgraded, key = commands("db upgrade", "keys create test --scope *", site=site)
    assert (upgraded.code, upgraded.out.splitlines()[-1]) == (0, "good: nothing → 0001")
    port = free_port()
    with running(f"serve --port {port}", site=site) as server:
        async with connected(port, key.out.strip(), server, tmp_path / "error.txt") as client:
            assert otherwise([GOOD, *QUICK], await plugins(client)) == {}
            await open_shop(client)
            await sell(client, "ann:1", "ben:1", "ann:2")

            async def handled() -> bool:
                return await counted(client) == {"ann": 2, "ben": 1}

            await until(handled)
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0
    assert "warning: threads started the thread chatter while it was loaded" in (tmp_path / "error.txt").read_text()


def test_answers_on_standard_output_stay_clean_and_commands_end(
    site: Path, commands: Commands, process: Process, tmp_path: Path
) -> None:
    (tmp_path / "scrm.toml").write_text(enabled(*(kind.name for kind in (GOOD, *QUICK)), on_plugin_error="skip"))
    _, shown = commands("db upgrade", "plugins show raises", site=site)
    assert "reason: raises cannot be imported: RuntimeError: no luck" in shown.out.splitlines()
    assert "None" not in shown.out
    key = process("keys create test --scope *", site=site)
    assert (key.code, len(key.out.splitlines())) == (0, 1), key
    assert {"a banner of prints", "a line of prints past Python", "contributing"} <= set(key.err)
    listed = json.loads(process("plugins list --json", site=site).out)
    states = {one["name"]: one["state"] for one in listed}
    assert {name: states[name] for name in ("good", "prints", "threads", "raises", "dies")} == {
        "good": "active",
        "prints": "active",
        "threads": "active",
        "raises": "load_error",
        "dies": "disabled",
    }


def test_by_default_the_start_is_refused_with_every_reason(site: Path, commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "scrm.toml").write_text(enabled(*(kind.name for kind in (GOOD, *QUICK))))
    (tmp_path / "none.toml").write_text("")
    upgrade, _, serve, worker = commands("db upgrade", "--config none.toml db upgrade", "serve", "worker", site=site)
    reasons = {kind.name: kind.reason for kind in QUICK if kind.state == "load_error"}
    for said, more in ((upgrade, {}), *((each, {"good": NOT_READY}) for each in (serve, worker))):
        promised = {**reasons, **more}
        lines = [line for line in said.err if line.startswith("plugin ")]
        assert (said.code, said.out, len(lines)) == (2, "", len(promised))
        assert [
            line for line, name in zip(sorted(lines), sorted(promised), strict=True) if not fits(line, f"plugin {promised[name]}")
        ] == []


def test_one_that_does_not_return_is_left_behind(site: Path, process: Process, tmp_path: Path) -> None:
    (tmp_path / "scrm.toml").write_text(enabled(*(kind.name for kind in SLOW)))
    listed = process("plugins list --json", site=site, SCRM_PLUGIN_START_SECONDS="2")
    states = {one["name"]: (one["state"], one["reason"]) for one in json.loads(listed.out)}
    for kind in SLOW:
        assert states[kind.name][0] == "load_error"
        assert fits(states[kind.name][1], kind.reason), states[kind.name]


async def test_the_safe_mode_imports_none(
    site: Path, sqlite_template: Path, commands: Commands, process: Process, running: Any, tmp_path: Path
) -> None:
    [dies] = DEADLY
    shutil.copyfile(sqlite_template, tmp_path / "scrm.db")
    (tmp_path / "scrm.toml").write_text(enabled("good", "dies"))
    (tmp_path / "none.toml").write_text("")
    assert process("plugins list", site=site).code == 7, "it ends whatever imports it"
    [key] = commands("--config none.toml keys create test --scope *")
    port = free_port()
    with running(f"serve --safe-mode --port {port}", site=site) as server:
        async with connected(port, key.out.strip(), server, tmp_path / "error.txt") as client:
            shown = await plugins(client)
            assert {name: shown[name]["state"] for name in ("good", "dies")} == {"good": "DISCOVERED", "dies": dies.state.upper()}
            assert shown["dies"]["reason"] == "not imported, because this is the safe mode"
            await open_shop(client)
            await sell(client, "ann:1")

            async def read() -> bool:
                said = await client.data("{ systemStatus { consumers { plugin lag } } }")
                return bool(said["systemStatus"]["consumers"] == [{"plugin": "core", "lag": 0}])

            await until(read)
            assert await client.data("{ users { totalCount } }") == {"users": {"totalCount": 1}}
