"""The plugin's README: its example is lived through, and its tables are what the code has."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import scrm_risk
from scrm.testing.client import serving
from scrm_risk.conditions import Condition
from scrm_risk.machine import TABLE, Seen
from scrm_risk.presets import PRESETS
from scrm_risk.rules import Rule
from tests.plugins.tower import Tower, opened, utc

HOME = Path(scrm_risk.__file__).parent
README = (HOME / "README.md").read_text(encoding="utf-8")
COMPLAINTS = re.compile(r"(\d+) (?:complaints on|more for) (\d{4}-\d{2}-\d{2})$")


def section(heading: str) -> str:
    return README.split(f"# {heading}\n")[1].split("\n## ")[0].split("\n### ")[0]


def rows(text: str) -> list[list[str]]:
    """The rows of the tables of a section, cell by cell."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [
        row
        for place, row in enumerate(found)
        if set("".join(row)) != {"-"} and set("".join(found[(place + 1) % len(found)])) != {"-"}
    ]


def names(text: str) -> set[str]:
    """What the first cells name."""
    return {name for row in rows(text) for name in re.findall(r"`([^`]+)`", row[0])}


async def happen(tower: Tower, what: str, alert: dict[str, Any] | None) -> None:
    if (said := COMPLAINTS.match(what)) is not None:
        if int(said[1]):
            await tower.complain(said[2], int(said[1]))
    elif what == "it is acknowledged":
        assert alert is not None
        await tower.called("acknowledgeAlert", id=alert["id"])
        return
    await tower.evaluate()


async def test_the_example_is_lived_through(migrated_url: str) -> None:
    settings = tomllib.loads(re.findall(r"```toml\n(.*?)```", README, re.DOTALL)[0])["plugins"]["risk"]
    lines = rows(section("An example"))
    assert len(lines) == 8
    async with opened(migrated_url, "2026-03-09T08:00", **settings | {"dry_run": True}) as tower:
        alert: dict[str, Any] | None = None
        for when, what, state, explanation, due in lines:
            tower.set_time(when.replace(" ", "T"))
            await happen(tower, what, alert)
            found = await tower.alerts()
            alert = found[0] if found else None
            shown = (alert["state"], alert["explanation"], alert["dueAt"]) if alert else ("", "", None)
            assert shown == (state, explanation, utc(due.replace(" ", "T")) if due else None), (when, what)
        await tower.check()


CODES = re.compile(r'(?:UserError|ScrmError|PydanticCustomError)\(\s*"([A-Z_]+)"')


def written(pattern: re.Pattern[str]) -> set[str]:
    """What the plugin's code says."""
    return {found[1] for path in HOME.glob("*.py") for found in pattern.finditer(path.read_text(encoding="utf-8"))}


def kinds() -> set[str]:
    """The kinds of conditions."""
    union, _ = get_args(Condition)
    return {kind for each in get_args(union) for kind in get_args(each.model_fields["kind"].annotation)}


CHECKS: list[tuple[str, Callable[[], set[str]], Callable[[], set[str]]]] = [
    ("rule", lambda: names(section("Rules").split("| condition |")[0]), lambda: set(Rule.model_fields)),
    ("conditions", lambda: names("| condition |" + section("Rules").split("| condition |")[1]), kinds),
    ("presets", lambda: names(section("Presets")), lambda: set(PRESETS)),
    ("codes", lambda: {name for name in names(README) if re.fullmatch("[A-Z]+_[A-Z_]+", name)}, lambda: written(CODES)),
    ("events", lambda: names(section("Events")), lambda: {kind.name for kind in scrm_risk.contribute().event_types}),
    ("scopes", lambda: {name for name in names(section("In GraphQL")) if ":" in name},
     lambda: {scope.name for scope in scrm_risk.contribute().scopes}),
]  # fmt: skip


@pytest.mark.parametrize(("said", "so"), [check[1:] for check in CHECKS], ids=[check[0] for check in CHECKS])
def test_the_tables_are_what_the_code_has(said: Callable[[], set[str]], so: Callable[[], set[str]]) -> None:
    assert said() == so()


def test_the_table_of_transitions_is_the_codes() -> None:
    cells = {(row[0], seen): to for row in rows(section("Alerts")) for seen, to in zip(Seen, row[1:], strict=True)}
    assert cells == {(before.value, seen): after.value for (before, seen), after in TABLE.items()}


async def test_the_fields_it_names_are_there(tmp_path: Path) -> None:
    async with serving(f"sqlite:///{tmp_path / 'scrm.db'}", modules={"risk": scrm_risk}) as client:
        data = await client.data("{ plugins { name fields } }")
        said = set(re.findall(r"`((?:User|Query|Mutation|Subscription)\.\w+)`", section("In GraphQL")))
        [risk] = [plugin for plugin in data["plugins"] if plugin["name"] == "risk"]
        assert said == set(risk["fields"])
