"""Random histories, scored by the plugin and by a model of its formulas; and what the formulas promise."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from scrm_rfm import runs, scores
from scrm_rfm.presets import eleven
from tests.plugins import rfm_model as model
from tests.plugins.layering import Brand, opened
from tests.plugins.rfm_model import Deed, Values
from tests.plugins.shop import local

AS_OF = local("2026-06-30T12:00")
KINDS = ("order.paid", "order.paid", "order.paid", "order.refunded", "content.liked", "group.spoke")
PEOPLE = tuple(f"p{n}" for n in range(9))
EVERYBODY = """{ users(first: 100) { nodes { id
  rfm { recencyDays frequency monetary { amountMinor } score segment { key } } layers { value behavior health } } } }"""


def a_history(seed: int, size: int = 60) -> list[Deed]:
    """What some people did in half a year: few days, amounts and instants, so that many are equal."""
    dice = random.Random(seed)
    found = []
    for n in range(size):
        at = AS_OF - timedelta(days=dice.choice([0, 0, 1, 7, 8, 29, 30, 31, 60, 90, 91, 150]), hours=dice.choice([-1, 0, 12, 13]))
        currency = dice.choice(["CNY"] * 9 + ["USD"])
        amount = dice.choice([0, 100, 100, 5_000, 100_000, 500_000])
        found.append(Deed(dice.choice(PEOPLE), dice.choice(KINDS), at, amount, f"o{n // 2}", currency))
    return found


async def live(brand: Brand, deeds: Sequence[Deed]) -> dict[str, str]:
    """Let it happen; who is who."""
    users = dict(zip(PEOPLE, await brand.members(len(PEOPLE)), strict=True))
    happened = []
    for deed in deeds:
        said: dict[str, Any] = {"order": deed.order, "amount": deed.amount, "currency": deed.currency}
        if not deed.kind.startswith("order."):
            said = {"order": None, "amount": None}
        event = brand.event(deed.kind, users[deed.who], at=deed.at, **said)
        properties = {"content.liked": {"contentId": "c"}, "group.spoke": {"groupId": "g"}}.get(deed.kind)
        happened.append(event | ({"properties": properties} if properties else {}))
    await brand.send(*happened)
    return users


async def standings(brand: Brand, users: dict[str, str]) -> dict[str, Any]:
    """How everybody stands, by name."""
    nodes = {node["id"]: node for node in (await brand.client.data(EVERYBODY))["users"]["nodes"]}
    return {who: nodes[user] for who, user in users.items()}


def expected(deeds: Sequence[Deed], who: str, as_of: datetime) -> dict[str, Any]:
    """The same by the model."""
    everybody = model.values(deeds, as_of)
    mine = everybody.get(who)
    digits, segment, _ = model.standing(deeds, who, as_of)
    rfm = {
        "recencyDays": mine.recency if mine else None,
        "frequency": mine.frequency if mine else 0,
        "monetary": {"amountMinor": mine.monetary if mine else 0},
        "score": digits,
        "segment": {"key": segment},
    }
    layers = {
        "value": model.value_layer(mine, list(everybody.values())) if mine else "LOW",
        "behavior": model.behavior_layer(model.active_days(deeds, who, as_of)),
        "health": model.health(deeds, as_of).get(who),
    }
    return {"rfm": rfm, "layers": layers}


async def compare(brand: Brand, users: dict[str, str], deeds: Sequence[Deed], as_of: datetime) -> None:
    found = await standings(brand, users)
    assert {who: {key: node[key] for key in ("rfm", "layers")} for who, node in found.items()} == {
        who: expected(deeds, who, as_of) for who in users
    }


async def test_a_history_is_scored_as_in_the_model(migrated_url: str) -> None:
    seed, size = 2, 90
    deeds = a_history(seed, size)
    async with opened(migrated_url, "2026-06-30T23:00") as brand:
        users = await live(brand, random.Random(seed).sample(deeds, size))
        for as_of in (AS_OF - timedelta(days=31), AS_OF):
            await brand.compute(as_of.isoformat())
            await compare(brand, users, deeds, as_of)
        for window, frequency in ((30, None), (0, None)):
            run = await brand.compute(AS_OF.isoformat(), mode="THRESHOLD", windowDays=window)
            known = model.values(deeds, AS_OF, window or None, frequency or "days")
            counted: dict[str, int] = {}
            for mine in known.values():
                counted[model.band(mine)] = counted.get(model.band(mine), 0) + 1
            assert {each["segment"]["key"]: each["count"] for each in run["segments"]} == {
                key: counted.get(key, 0) for key in ("HIGH_VALUE", "POTENTIAL", "ACTIVE", "LOST")
            }
            assert run["population"] == len(known)
        assert run["otherCurrencyEvents"] == sum(
            deed.currency != "CNY" and deed.at <= AS_OF and deed.kind.startswith("order.") for deed in deeds
        )
        await compare(brand, users, deeds, AS_OF)
        before = await brand.run(fields="id asOf population bounds position computedAt durationMs segments { count }")
        await brand.compute(AS_OF.isoformat())
        assert await brand.run(fields="id asOf population bounds position computedAt durationMs segments { count }") == before
        await brand.check()


# ---- what the formulas promise

everybodys = st.lists(st.builds(Values, st.integers(0, 9), st.integers(1, 9), st.integers(-9, 9)), min_size=5, max_size=40)


@settings(max_examples=25, deadline=None)
@given(everybody=everybodys, data=st.data())
def test_equal_values_share_a_score_and_the_order_does_not_matter(everybody: list[Values], data: st.DataObject) -> None:
    mixed = data.draw(st.permutations(everybody))
    for mine in everybody:
        assert model.score(mine, everybody) == model.score(replace(mine), mixed)


@settings(max_examples=25, deadline=None)
@given(everybody=everybodys, data=st.data())
def test_who_is_better_scores_no_worse(everybody: list[Values], data: st.DataObject) -> None:
    one, other = data.draw(st.sampled_from(everybody)), data.draw(st.sampled_from(everybody))
    mine, its = model.score(one, everybody), model.score(other, everybody)
    assert (one.recency >= other.recency) or mine[0] >= its[0]
    assert (one.frequency <= other.frequency) or mine[1] >= its[1]
    assert (one.monetary <= other.monetary) or mine[2] >= its[2]
    assert set(mine) <= set("12345")


def test_the_usual_map_is_the_printed_one_and_a_partition() -> None:
    cells = [(cell, one["key"]) for one in eleven() for cell in one["cells"]]
    assert sorted(cell for cell, _ in cells) == ["".join(digits) for digits in product("12345", repeat=3)]
    assert dict(cells) == model.MAP


# ---- what a fault looks like

Patch = Callable[[pytest.MonkeyPatch], None]


def _column(patch: pytest.MonkeyPatch, name: str, other: Callable[..., Any]) -> None:
    kept = getattr(scores, name)
    patch.setattr(scores, name, lambda *given: other(kept, *given))


def ties_are_split(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(type(sa.func), "rank", property(lambda func: func.row_number), raising=False)


def refunds_are_added(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scores, "_signed", lambda log, ours: scores._when(ours, log.c.amount_minor, 0))


def other_currencies_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(scores, "_is_ours", lambda log, scoring: sa.true())


def the_window_is_a_day_longer(patch: pytest.MonkeyPatch) -> None:
    _column(patch, "_before", lambda kept, day, days: kept(day, days + 1 if days else None))


def what_came_later_counts(patch: pytest.MonkeyPatch) -> None:
    _column(patch, "Scoring", lambda kept, tx, event, as_of, *rest: kept(tx, event, as_of + timedelta(hours=2), *rest))
    patch.setattr(runs, "Scoring", scores.Scoring)


FAULTS: list[Patch] = [
    ties_are_split,
    refunds_are_added,
    other_currencies_count,
    the_window_is_a_day_longer,
    what_came_later_counts,
]


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
async def test_the_model_notices_faults(migrated_url: str) -> None:
    deeds = a_history(1)
    async with opened(migrated_url, "2026-06-30T23:00") as brand:
        users = await live(brand, deeds)
        for n, fault in enumerate(FAULTS):
            as_of = AS_OF + timedelta(microseconds=n)
            with pytest.MonkeyPatch.context() as patch:
                fault(patch)
                assert (await brand.compute(as_of.isoformat()))["state"] == "DONE"
                with pytest.raises(AssertionError):
                    await compare(brand, users, deeds, as_of)
        await brand.compute((AS_OF + timedelta(microseconds=9)).isoformat())
        await compare(brand, users, deeds, AS_OF)
