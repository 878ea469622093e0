"""The plugin's README: its example is lived through, and its tables are what the code has."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import scrm_tiers
from scrm.testing.client import serving
from tests.plugins.club import Club, opened

HOME = Path(scrm_tiers.__file__).parent
README = (HOME / "README.md").read_text(encoding="utf-8")
ORDER = re.compile(r"(?:order )?(o\d)(?: paid| refunded), ¥([\d .]+)$")


def section(heading: str) -> str:
    return README.split(f"## {heading}\n")[1].split("\n## ")[0]


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


async def happen(club: Club, user: str, what: str) -> None:
    if (said := ORDER.search(what)) is not None:
        amount = int(said[2].replace(" ", "").replace(".", ""))
        await (club.refund if "refunded" in what else club.pay)(user, said[1], amount)


async def test_the_example_is_lived_through(migrated_url: str) -> None:
    rules = tomllib.loads(re.findall(r"```toml\n(.*?)```", README, re.DOTALL)[0])["plugins"]["tiers"]
    assert rules.pop("enabled") is True
    lines = rows(section("An example"))
    assert len(lines) == 9
    async with opened(migrated_url, "2026-03-10T12:00", **rules) as club:
        user = await club.member()
        changes = 0
        for when, what, money, level, cause, until in lines:
            await club.pass_to(f"{when}T12:00")
            await happen(club, user, what)
            found = await club.membership(user, "tier { key } validUntil progress { value } history { nodes { cause } }")
            valid = datetime.fromisoformat(found["validUntil"]).astimezone(club.now.tzinfo) if found["validUntil"] else None
            shown = (found["progress"][0]["value"], found["tier"]["key"], valid.isoformat()[:16] if valid else "")
            assert shown == (int(money), level, f"{until}T00:00" if until else ""), (when, what)
            causes = [node["cause"] for node in found["history"]["nodes"]]
            changes += bool(cause)
            assert (len(causes), causes[0] if cause else "") == (changes, cause), (when, what)
        await club.check()


CODES = re.compile(r'(?:UserError|ScrmError|PydanticCustomError)\(\s*"([A-Z_]+)"|"(TIER_\w+|TASK_\w+)"')


def written(pattern: re.Pattern[str]) -> set[str]:
    """What the plugin's code says."""
    return {
        next(filter(None, found.groups()))
        for path in HOME.glob("*.py")
        for found in pattern.finditer(path.read_text(encoding="utf-8"))
    }


CHECKS: list[tuple[str, Callable[[], set[str]], Callable[[], set[str]]]] = [
    ("codes", lambda: {name for name in names(README) if name in written(CODES) or re.fullmatch("[A-Z]+_[A-Z_]+", name)},
     lambda: written(CODES)),
    ("events", lambda: names(section("Events")), lambda: {kind.name for kind in scrm_tiers.contribute().event_types}),
    ("causes", lambda: names(section("When a level changes")), lambda: set(scrm_tiers.graphql.TierCause.__members__)),
    ("scopes", lambda: {name for name in names(section("In GraphQL")) if ":" in name},
     lambda: {scope.name for scope in scrm_tiers.contribute().scopes}),
]  # fmt: skip


@pytest.mark.parametrize(("said", "so"), [check[1:] for check in CHECKS], ids=[check[0] for check in CHECKS])
def test_the_tables_are_what_the_code_has(said: Callable[[], set[str]], so: Callable[[], set[str]]) -> None:
    assert said() == so()


async def test_the_fields_it_names_are_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'scrm.db'}"
    async with serving(url, modules={"tiers": scrm_tiers}) as client:
        asked = '{ membership: __type(name: "Membership") { fields { name } } plugins { name fields } }'
        data: Any = await client.data(asked)
        said = section("In GraphQL").split("| scope")[0]
        fields = {each["name"] for each in data["membership"]["fields"]}
        listed = re.findall(r"`User.membership` \((.*?)\)", said, re.DOTALL)[0]
        assert set(re.split(r",\s+", listed)) == fields - {"user"}
        [tiers] = [plugin for plugin in data["plugins"] if plugin["name"] == "tiers"]
        for name in tiers["fields"]:
            assert name.partition(".")[2] in said, name
