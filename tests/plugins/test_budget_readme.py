"""The plugin's README: its examples are lived through, and its tables are what the code has."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import scrm_budget
from scrm.testing.client import serving
from scrm_budget.graphql import BudgetEntryKind
from scrm_budget.indicators import INDICATORS
from scrm_budget.rules import BudgetRules
from scrm_budget.splits import Share, reallocate
from tests.plugins.treasury import Treasury, money, opened

HOME = Path(scrm_budget.__file__).parent
README = (HOME / "README.md").read_text(encoding="utf-8")


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


class Example:
    """What the example does, in its own words."""

    def __init__(self, brand: Treasury, line: str) -> None:
        self.brand, self.line = brand, line
        self.kept = self.spent = self.user = ""

    async def happen(self, what: str) -> None:
        brand, amount = self.brand, int((re.findall(r"\d+", what) or ["0"])[0])
        if what.startswith("commit") and "refused" in what:
            assert (await brand.why("commitBudget", lineId=self.line, amount=money(amount)))[0] == "INSUFFICIENT_BUDGET"
        elif what.startswith("commit"):
            seconds = int(re.findall(r"(\d+) days", what)[0]) * 86_400
            self.kept = (await brand.commit(self.line, amount, expiresInSeconds=seconds))["commitment"]["id"]
        elif what.startswith("coupon"):
            self.user = self.user or await brand.member()
            said = {"couponId": "c", "cost": amount}
            await brand.send(brand.event("coupon.redeemed", self.user, None, None, None, properties=said))
        elif what.endswith("of it"):
            spent = await brand.sure("spendBudget", commitmentId=self.kept, amount=money(amount))
            self.spent = spent["entry"]["id"]
        elif what.startswith("spend"):
            await brand.spend(self.line, amount)
        elif what.startswith("refund"):
            await brand.sure("refundBudget", entryId=self.spent, amount=money(amount))
        else:
            assert what == "the time is over"


async def test_the_example_is_lived_through(migrated_url: str) -> None:
    said = tomllib.loads(re.findall(r"```toml\n(.*?)```", README, re.DOTALL)[0])["plugins"]["budget"]
    assert said.pop("enabled") is True
    lines = rows(section("An example"))
    assert len(lines) == 8
    async with opened(migrated_url, "2026-03-01T10:00", **said) as brand:
        budget, own = await brand.budget(100_000)
        example = Example(brand, own["campaigns"])
        announced: list[int] = []
        for when, what, *numbers, percents in lines:
            brand.set_time(when)
            await example.happen(what)
            assert await brand.line(example.line, "committed", "spent", "available") == [int(one) for one in numbers], (
                when,
                what,
            )
            announced += [int(one) for one in percents.split(", ") if one]
            found = await brand.of_node("Budget", budget, "thresholds { percent line { id } }")
            assert sorted(one["percent"] for one in found["thresholds"] if one["line"]) == announced, (when, what)
        await brand.check()


def test_the_reallocation_is_as_it_says() -> None:
    said = rows(section("What lines bring in"))
    shares = [Share(int(has), Fraction(roi)) for _, has, roi, _ in said]
    assert reallocate(shares, BudgetRules().reallocation_percent) == [int(would) for *_, would in said]
    assert len(said) == 4


CODES = re.compile(r'(?:UserError|ScrmError|PydanticCustomError|UserErrorType)\(\s*(?:code=)?"([A-Z_]+)"')


def written() -> set[str]:
    """The codes that the plugin's code says."""
    return {code for path in HOME.glob("*.py") for code in CODES.findall(path.read_text(encoding="utf-8"))}


CHECKS: list[tuple[str, Callable[[], set[str]], Callable[[], set[str]]]] = [
    ("codes", lambda: {name for name in names(README) if re.fullmatch("[A-Z]+_[A-Z_]+", name)} - set(BudgetEntryKind.__members__),
     written),
    ("entries", lambda: names(section("Money")), lambda: set(BudgetEntryKind.__members__)),
    ("events", lambda: names(section("Events")), lambda: {kind.name for kind in scrm_budget.contribute().event_types}),
    ("indicators", lambda: names(section("Indicators")), lambda: {one.key for one in INDICATORS}),
    ("scopes", lambda: {name for name in names(section("In GraphQL")) if ":" in name},
     lambda: {scope.name for scope in scrm_budget.contribute().scopes}),
]  # fmt: skip


@pytest.mark.parametrize(("said", "so"), [check[1:] for check in CHECKS], ids=[check[0] for check in CHECKS])
def test_the_tables_are_what_the_code_has(said: Callable[[], set[str]], so: Callable[[], set[str]]) -> None:
    assert said() == so()


async def test_the_fields_it_names_are_there(tmp_path: Path) -> None:
    async with serving(f"sqlite:///{tmp_path / 'scrm.db'}", modules={"budget": scrm_budget}) as client:
        data: Any = await client.data("{ plugins { name fields } }")
        [budget] = [plugin for plugin in data["plugins"] if plugin["name"] == "budget"]
        listed = set(re.findall(r"`((?:Query|Mutation|Subscription)\.\w+)`", section("In GraphQL")))
        assert listed == set(budget["fields"])


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ({"thresholds": [80, 50]}, "THRESHOLDS_NOT_RISING"),
        ({"ranges": {"a": [30, 20]}}, "RANGE_INVERTED"),
        ({"costs": [{"event": "a.b"}, {"event": "a.b"}]}, "COST_TWICE"),
    ],
)
def test_settings_that_make_no_sense_are_refused(rules: dict[str, Any], code: str) -> None:
    with pytest.raises(ValueError, match=code):
        BudgetRules(**rules)
