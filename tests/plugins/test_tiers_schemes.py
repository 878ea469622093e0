"""Schemes: those that are refused, the presets, and what a scheme would change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

import scrm_tiers
from scrm.api import events
from scrm.testing.client import serving
from scrm_tiers.models import metadata
from scrm_tiers.rules import TiersRules
from tests.plugins.club import THREE, bounds, opened


def level(key: str, **asked: int) -> dict[str, Any]:
    return {"key": key, "name": key, "bounds": asked}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"levels": []}, "TIERS_MISSING", "one level at least (TIERS_MISSING)"),
    ({"levels": [level("a", spend=0), level("a", spend=5)]}, "TIER_KEY_TWICE",
     "a key of its own for every level: a is there twice (TIER_KEY_TWICE)"),
    ({"levels": [level("a", spend=0), level("b", orders=5)]}, "TIER_BOUND_MISSING",
     "a bound of every metric for every level: a has none of orders (TIER_BOUND_MISSING)"),
    ({"levels": [level("a")]}, "TIER_BOUND_MISSING",
     "a bound of every metric for every level: a has none of any (TIER_BOUND_MISSING)"),
    ({"levels": [level("a", spend=0), level("b", spend=7), level("c", spend=7)]}, "TIER_BOUND_TWICE",
     "bounds that rise from level to level: spend is 7 for c and 7 for b (TIER_BOUND_TWICE)"),
    ({"levels": [level("a", spend=0, orders=2), level("b", spend=7, orders=1)]}, "TIER_BOUNDS_NOT_RISING",
     "bounds that rise from level to level: orders is 1 for b and 2 for a (TIER_BOUNDS_NOT_RISING)"),
    ({"tasks": [{"key": "t", "event": "a.b", "growth": 1}, {"key": "t", "event": "a.c", "growth": 1}]}, "TASK_KEY_TWICE",
     "a key of its own for every task: t is there twice (TASK_KEY_TWICE)"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "code", "words"), REFUSED)
def test_a_scheme_that_is_wrong_is_refused_at_the_start(said: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TiersRules.model_validate(said)
    [problem] = caught.value.errors()
    assert (problem["type"], problem["msg"]) == (code, words)


async def start(url: str, **said: Any) -> str:
    """What a server says that cannot start."""
    with pytest.raises(Exception, match="tiers") as caught:
        async with serving(url, modules={"tiers": scrm_tiers}, sections={"tiers": {"enabled": True, **said}}):
            pass
    return str(caught.value)


async def test_the_start_names_the_setting_the_value_and_the_way_out(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'scrm.db'}"
    levels = [level("a", spend=7), level("b", spend=7)]
    wrong = "expected bounds that rise from level to level: spend is 7 for b and 7 for a (TIER_BOUND_TWICE)"
    assert await start(url, levels=levels) == f"setting plugins.tiers.levels is {json.dumps(levels)}; {wrong}"
    spent = [{"key": "a", "name": "a", "bounds": {"spent": 5}}]
    assert await start(url, levels=spent) == (
        "setting plugins.tiers.levels.0.bounds.spent.[key] is \"spent\"; expected 'spend', 'orders', 'points_earned' or 'growth'"
    )
    assert await start(url, levels=[level("a", spend=-1)]) == (
        "setting plugins.tiers.levels.0.bounds.spend is -1; expected greater than or equal to 0"
    )
    assert await start(url, currency="XYZ1") == 'setting plugins.tiers.currency is "XYZ1"; expected an ISO 4217 code such as CNY'
    needs = "plugin tiers needs the event type points.earned for its rules, and no enabled plugin registers it"
    assert await start(url, preset="points") == f"{needs}; enable one that does, or change [plugins.tiers]"


@pytest.mark.parametrize(
    ("said", "metrics", "review"),
    [
        ({}, {"spend": 2_000_000}, "MONTH"),
        ({"currency": "JPY"}, {"spend": 20_000}, "MONTH"),
        ({"preset": "points"}, {"points_earned": 20_000}, "MONTH"),
        ({"preset": "growth", "window": "CALENDAR_YEAR"}, {"growth": 20_000}, "YEAR"),
        ({"preset": "spend_and_orders", "window": "LIFETIME"}, {"spend": 2_000_000, "orders": 24}, "MONTH"),
        ({"window": "CALENDAR_YEAR", "review": "QUARTER"}, {"spend": 2_000_000}, "QUARTER"),
    ],
)
def test_presets(said: dict[str, Any], metrics: dict[str, int], review: str) -> None:
    rules = TiersRules.model_validate(said)
    assert [each.key for each in rules.levels] == ["bronze", "silver", "gold", "platinum"]
    assert (rules.levels[-1].bounds, rules.review, rules.base) == (metrics, review, 1)
    assert bool(rules.tasks) is (said.get("preset") == "growth")
    assert TiersRules.model_validate(rules.model_dump(mode="json")) == rules


SIMULATE = """query($scheme: JSON!) { simulateTiers(scheme: $scheme) {
  asOf people unchanged moves { from to count } users(first: 2) { nodes { user { id } from to } hasNextPage endCursor } } }"""
PAGE = """query($scheme: JSON!, $after: String, $from: String, $to: String) { simulateTiers(scheme: $scheme) {
  users(first: 2, after: $after, from: $from, to: $to) { nodes { user { id } from to } hasNextPage endCursor } } }"""


async def test_a_simulation_says_who_would_move_and_changes_nothing(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        users = [await club.member() for _ in range(6)]
        for user, amount in zip(users, (3_000, 1_000, 1_999, 2_000, 500), strict=False):
            await club.pay(user, "o", amount)
        await club.set_tier(users[5], "gold", "2026-06-01T00:00")
        before = await club.client.services.db.read(everything)
        scheme = {"enabled": True, "levels": [level("bronze", spend=0), level("silver", spend=500), level("gold", spend=2_000)]}
        found = (await club.client.data(SIMULATE, scheme=scheme))["simulateTiers"]
        up = {"user": {"id": users[3]}, "from": "silver", "to": "gold"}
        first = {"user": {"id": users[4]}, "from": "bronze", "to": "silver"}
        assert found == {
            "asOf": "2026-03-01T04:00:00.000000Z",
            "people": 6,
            "unchanged": 4,
            "moves": [{"from": "bronze", "to": "silver", "count": 1}, {"from": "silver", "to": "gold", "count": 1}],
            "users": {"nodes": [up, first], "hasNextPage": False, "endCursor": users[4]},
        }
        strict = {"levels": [level("silver", spend=1_500), level("diamond", spend=100_000)], "window": "LIFETIME"}
        found = (await club.client.data(SIMULATE, scheme=strict))["simulateTiers"]
        assert found["moves"] == [
            {"from": "bronze", "to": None, "count": 1},
            {"from": "gold", "to": None, "count": 1},
            {"from": "gold", "to": "silver", "count": 1},
            {"from": "silver", "to": None, "count": 1},
        ]
        assert (found["unchanged"], found["users"]["hasNextPage"]) == (2, True)
        seen = found["users"]["nodes"]
        page = {"hasNextPage": True, "endCursor": found["users"]["endCursor"]}
        while page["hasNextPage"]:
            page = (await club.client.data(PAGE, scheme=strict, after=page["endCursor"]))["simulateTiers"]["users"]
            seen += page["nodes"]
        assert [node["user"]["id"] for node in seen] == [users[0], users[1], users[4], users[5]]
        some = (await club.client.data(PAGE, scheme=strict, **{"from": "gold", "to": "silver"}))["simulateTiers"]["users"]
        assert [node["user"]["id"] for node in some["nodes"]] == [users[0]]
        assert await club.client.services.db.read(everything) == before
        await club.check()


def everything(tx: Any) -> list[Any]:
    """All rows of the plugin, and how long the log is."""
    kept = {table.name: [tuple(row) for row in tx.rows(sa.select(table))] for table in metadata.sorted_tables}
    return [kept, tx.scalar(sa.select(sa.func.count()).select_from(events))]


@pytest.mark.parametrize(
    ("more", "to"),
    [({}, "bronze"), ({"downgrade": "ONE_DOWN"}, "silver"), ({"downgrade": "NEVER"}, None), ({"grace": 3}, "bronze")],
)
async def test_a_simulation_keeps_to_how_far_a_level_falls(migrated_url: str, more: dict[str, Any], to: str | None) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        await club.pay(user, "o", 3_000)
        await club.refund(user, "o", 3_000)
        found = (await club.client.data(SIMULATE, scheme={"levels": THREE, **more}))["simulateTiers"]
        assert found["moves"] == ([{"from": "gold", "to": to, "count": 1}] if to else [])


async def test_a_simulation_in_orders_points_and_growth(migrated_url: str) -> None:
    async with opened(migrated_url, loyalty=True) as club:
        user = await club.member()
        await club.pay(user, "o1", 500)
        await club.grant(user, 30)
        for levels, to in (
            (bounds("orders", 0, 1, 2), "silver"),
            (bounds("points_earned", 0, 5, 6), "silver"),
            (bounds("growth", 0, 30, 31), "silver"),
            (bounds("growth", 0, 31, 32), None),
            (bounds("growth", 0, 30, 31, orders=(0, 2, 3)), None),
        ):
            found = (await club.client.data(SIMULATE, scheme={"levels": levels}))["simulateTiers"]
            assert found["moves"] == ([{"from": "bronze", "to": to, "count": 1}] if to else []), levels
        any_of = {"levels": bounds("growth", 0, 30, 31, orders=(0, 2, 3)), "match": "ANY"}
        assert (await club.client.data(SIMULATE, scheme=any_of))["simulateTiers"]["moves"][0]["to"] == "silver"


async def test_a_simulation_of_a_wrong_scheme(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        wrong: list[tuple[Any, str, list[str]]] = [
            *((said, code, ["scheme", next(iter(said))]) for said, code, _ in REFUSED),
            ("gold", "INVALID_SCHEME", ["scheme"]),
            ({"window": "WEEK"}, "INVALID_SCHEME", ["scheme", "window"]),
            ({"colour": "red"}, "INVALID_SCHEME", ["scheme", "colour"]),
            ({"currency": "XYZ1"}, "INVALID_CURRENCY", ["scheme", "currency"]),
            ({"currency": "cny"}, "INVALID_CURRENCY", ["scheme", "currency"]),
        ]
        for said, code, path in wrong:
            answer = await club.client.graphql(SIMULATE, scheme=said)
            [error] = answer["errors"]
            assert (answer["data"], error["extensions"]["code"]) == ({"simulateTiers": None}, code), said
            assert error["message"].startswith(".".join(path)) or code == "INVALID_SCHEME"
        answer = await club.client.graphql(PAGE.replace("first: 2", "first: 101"), scheme={})
        assert answer["errors"][0]["extensions"]["code"] == "INVALID_PAGE"
