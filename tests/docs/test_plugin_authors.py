"""The plugin in docs/plugin-authors.md, written to files, installed and used by the page's own words."""

import dataclasses
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import scrm_risk
from scrm import hookspecs
from scrm.api import hookimpl
from scrm.config import Settings
from scrm.loader import load_plugins
from scrm.plugin import Contribution
from scrm.provision import provision
from scrm.testing.client import drain, serving

PAGE = Path(__file__).parents[2] / "docs" / "plugin-authors.md"
FILES = ("pyproject.toml", "scrm_stamps/__init__.py", "scrm_stamps/migrations/0001_cards.py")


def blocks() -> list[str]:
    return re.findall(r"```(?:toml|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_plugin_has_less_than_eighty_lines() -> None:
    lines = [line for block in blocks()[:3] for line in block.splitlines() if line.strip()]
    assert len(lines) < 80


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's plugin is installed, as pip installs it."""
    source, target = tmp_path_factory.mktemp("stamps"), tmp_path_factory.mktemp("installed")
    for name, text in zip(FILES, blocks(), strict=False):
        file = source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(target),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return target


@pytest.fixture
def stamps(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(installed))
    yield installed
    for name in [name for name in sys.modules if name.split(".")[0] == "scrm_stamps"]:
        del sys.modules[name]


def order(number: int, person: str) -> dict[str, object]:
    return {
        "type": "order.paid",
        "identity": {"channel": "store", "externalId": person},
        "occurredAt": "2026-01-02T03:04:05Z",
        "amount": {"amountMinor": 1000, "currency": "CNY"},
        "properties": {"orderId": f"o{number}"},
        "source": "till",
        "externalId": f"o{number}",
    }


REDEEM = """mutation($user: ID!, $stamps: Int!, $key: String!) {
  redeemStamps(input: {userId: $user, stamps: $stamps, idempotencyKey: $key}) { user { stamps } errors { code path params } } }"""
PEOPLE = "{ users(orderBy: [{createdAt: ASC}]) { nodes { id stamps identities { externalId } } } }"


async def test_the_plugin_works(stamps: Path, database_url: str) -> None:
    settings = Settings(database_url=database_url, plugins={"stamps": {"enabled": True}})
    plugins = load_plugins(settings)
    assert [plugin.name for plugin in plugins] == ["stamps"]
    assert (await provision(settings, plugins)).problems == []
    async with serving(database_url, plugins) as client:
        await client.data('mutation { createChannel(input: {key: "store", name: "门店", kind: STORE}) { errors { code } } }')
        assert (await client.events([order(n, "ann" if n < 3 else "bob") for n in range(5)]))["accepted"] == 5
        await drain(client)
        ann, bob = (await client.data(PEOPLE))["users"]["nodes"]
        assert (ann["stamps"], bob["stamps"]) == (3, 2)
        done = await client.data(REDEEM, user=ann["id"], stamps=2, key="k1")
        assert done["redeemStamps"] == {"user": {"stamps": 1}, "errors": []}
        again = await client.data(REDEEM, user=ann["id"], stamps=2, key="k1")
        assert again == done
        refused = await client.data(REDEEM, user=ann["id"], stamps=2, key="k2")
        assert refused["redeemStamps"]["errors"] == [{"code": "NOT_ENOUGH_STAMPS", "path": ["stamps"], "params": {"have": 1}}]
        merged = await client.data(
            "mutation($a: ID!, $b: ID!) { mergeUsers(input: {keptId: $a, absorbedId: $b}) { mergeId errors { code } } }",
            a=ann["id"],
            b=bob["id"],
        )
        await drain(client)
        assert (await client.data("query($id: ID!) { user(id: $id) { stamps } }", id=ann["id"]))["user"]["stamps"] == 3
        await client.data(
            "mutation($m: ID!) { unmergeUsers(input: {mergeId: $m}) { errors { code } } }", m=merged["mergeUsers"]["mergeId"]
        )
        await drain(client)
        assert [each["stamps"] for each in (await client.data(PEOPLE))["users"]["nodes"]] == [1, 2]


def test_the_commands_of_the_page_work(stamps: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(stamps)}
    (tmp_path / "scrm.toml").write_text('database_url = "sqlite:///scrm.db"\n')
    said = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0].splitlines()
    for line in said:
        words = line.split()
        if words[0] != "scrm" or words[1] == "serve":
            continue
        done = subprocess.run(
            [sys.executable, "-m", "scrm.cli", *words[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    listed = subprocess.run(
        [sys.executable, "-m", "scrm.cli", "plugins", "list", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"stamps"' in listed.stdout


def table_of(heading: str) -> set[str]:
    page = PAGE.read_text(encoding="utf-8")
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    return {name for row in re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def test_the_page_lists_every_contribution_and_no_other() -> None:
    assert table_of("What a plugin may bring") == {field.name for field in dataclasses.fields(Contribution)}


def test_the_page_lists_every_hook_and_no_other() -> None:
    hooks = {name for name, value in vars(hookspecs).items() if callable(value) and hasattr(value, "scrm_spec")}
    assert table_of("Hooks") == hooks


async def test_the_indicator_of_the_page_rings_the_rule_of_the_page(database_url: str) -> None:
    [code] = [block for block in blocks() if "DETRACTORS" in block]
    [rule] = [block for block in blocks() if "plugins.risk.rules.detractors" in block]
    named: dict[str, Any] = {}
    exec(code, named)  # what the page says is what runs
    module = ModuleType("surveys")
    vars(module)["contribute"] = hookimpl(lambda: Contribution(name="surveys", version="1", indicators=[named["DETRACTORS"]]))
    rules = tomllib.loads(rule)["plugins"]["risk"]
    clock = [datetime(2026, 3, 9, 4, tzinfo=UTC)]
    opened = serving(
        database_url,
        modules={"surveys": module, "risk": scrm_risk},
        sections={"risk": {"enabled": True, **rules}},
        clock=lambda: clock[0],
    )
    async with opened as client:
        await client.data('mutation { createChannel(input: {key: "app", name: "App", kind: APP}) { errors { code } } }')
        answered = [(8, "2026-03-08T03:00:00Z"), (6, "2026-03-08T04:00:00Z"), (1, "2026-03-09T03:00:00Z")]
        sent = [
            {
                "type": "survey.answered",
                "identity": {"channel": "app", "externalId": "ann"},
                "occurredAt": at,
                "properties": {"score": score},
                "source": "app",
                "externalId": at,
            }
            for score, at in answered
        ]
        assert (await client.events(sent))["accepted"] == 3
        await drain(client)
        done = await client.data("mutation { evaluateRisks(input: {}) { fired problems errors { code } } }")
        assert done["evaluateRisks"] == {"fired": 1, "problems": [], "errors": []}
        [alert] = (await client.data("{ riskAlerts { nodes { rule { key } value threshold } } }"))["riskAlerts"]["nodes"]
        assert alert == {"rule": {"key": "detractors"}, "value": 0.5, "threshold": 0.2}
