"""Rules that make no sense are refused at the start, with the setting, the cells and the way out; others may be changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import scrm_rfm
from scrm.testing.client import drain, serving
from scrm_rfm.presets import eleven
from scrm_rfm.rules import RfmRules
from tests.plugins.layering import opened
from tests.plugins.shop import local


def segment(key: str, *cells: str) -> dict[str, Any]:
    return {"key": key, "name": key, "description": key, "cells": list(cells)}


def without(*gone: str) -> list[dict[str, Any]]:
    """The usual map without some cells."""
    return [{**one, "cells": [cell for cell in one["cells"] if cell not in gone]} for one in eleven()]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"segments": without("555")}, "RFM_CELL_MISSING",
     "every one of the 125 cells in a segment: 555 is in none (RFM_CELL_MISSING)"),
    ({"segments": without("111", "345")}, "RFM_CELL_MISSING",
     "every one of the 125 cells in a segment: 111, 345 are in none (RFM_CELL_MISSING)"),
    ({"segments": [*eleven(), segment("MORE", "111")]}, "RFM_CELL_TWICE",
     "every cell in one segment: 111 is in LOST and in MORE (RFM_CELL_TWICE)"),
    ({"segments": [*eleven(), segment("MORE", "116")]}, "RFM_CELL_UNKNOWN",
     'cells of three scores from 1 to 5, as "543": 116 of MORE is none (RFM_CELL_UNKNOWN)'),
    ({"segments": [*eleven(), segment("LOST")]}, "RFM_SEGMENT_KEY",
     "a key of its own for every segment: LOST is there twice (RFM_SEGMENT_KEY)"),
    ({"segments": [*eleven(), segment("PROSPECT")]}, "RFM_SEGMENT_KEY",
     "a key of its own for every segment: PROSPECT is kept for what is no cell (RFM_SEGMENT_KEY)"),
    ({"monetary_bounds": [1, 2, 2, 3]}, "RFM_BOUNDS_NOT_RISING", "four numbers that rise (RFM_BOUNDS_NOT_RISING)"),
    ({"high_recency": 30}, "RFM_THRESHOLDS_ORDER",
     "high_recency better than potential_recency, and that better than lost (RFM_THRESHOLDS_ORDER)"),
    ({"lost_recency": 30}, "RFM_THRESHOLDS_ORDER",
     "high_recency better than potential_recency, and that better than lost (RFM_THRESHOLDS_ORDER)"),
    ({"potential_monetary": 500_000}, "RFM_THRESHOLDS_ORDER",
     "high_monetary better than potential_monetary, and that better than lost (RFM_THRESHOLDS_ORDER)"),
    ({"value_mid_percent": 81}, "RFM_PERCENT_OVER",
     "value_high_percent and value_mid_percent of 100 at most together (RFM_PERCENT_OVER)"),
    ({"active_from_days": 31}, "RFM_DAYS_OVER",
     "active_from_days no larger than behavior_days: no more days than there are (RFM_DAYS_OVER)"),
    ({"health_weights": {"interactions": 0, "spending": 0, "active_days": 0}}, "RFM_NO_WEIGHT",
     "a weight above 0 for one factor at least (RFM_NO_WEIGHT)"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "code", "words"), REFUSED)
def test_rules_that_make_no_sense_are_refused(said: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RfmRules.model_validate(said)
    [problem] = caught.value.errors()
    assert (problem["type"], problem["msg"]) == (code, words)


async def test_the_start_says_which_cells_are_not_covered(tmp_path: Path) -> None:
    section = {"enabled": True, "segments": without("111", "345")}
    with pytest.raises(Exception, match="rfm") as caught:
        async with serving(f"sqlite:///{tmp_path / 'scrm.db'}", modules={"rfm": scrm_rfm}, sections={"rfm": section}):
            pass
    assert "setting plugins.rfm.segments" in str(caught.value)
    assert "111, 345 are in none (RFM_CELL_MISSING)" in str(caught.value)
    assert len(str(caught.value)) < 600  # the map is not shown whole


async def test_another_map_counts_from_the_next_run_on(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00") as brand:
        users = await brand.members(6)
        await brand.send(*(brand.paid(user, "o", 1 + n, "2026-03-01T12:00") for n, user in enumerate(users[:5])))
        await brand.pass_to("2026-03-10T12:02")
        assert await brand.segments(users) == ["NEW_CUSTOMERS", "NEW_CUSTOMERS", *["PROMISING"] * 3, "PROSPECT"]
    rest = [cell for one in eleven() for cell in one["cells"] if cell != "515"]
    names = {"name": "最佳", "names": {"en": "Best"}}
    mapped = [{**segment("BEST", "515"), **names}, segment("REST", *rest)]
    async with opened(migrated_url, "2026-03-10T12:04", segments=mapped, high_monetary=3, potential_monetary=2) as brand:
        assert (await brand.segments(users))[:2] == ["NEW_CUSTOMERS"] * 2
        await brand.pass_to("2026-03-10T12:06")
        assert await brand.segments(users) == [*["REST"] * 4, "BEST", "PROSPECT"]
        assert (users[4], "PROMISING", "BEST") in await brand.changes()
        brand.client.http.headers["Accept-Language"] = "en"
        assert await brand.rfm(users[4], "segment { name } previousSegment { key name }") == {
            "segment": {"name": "Best"},
            "previousSegment": {"key": "PROMISING", "name": "Promising"},
        }
        listed = [one["key"] for one in (await brand.client.data("{ rfmSegments { key } }"))["rfmSegments"]]
        assert listed == [
            "BEST",
            "REST",
            "HIGH_VALUE",
            "POTENTIAL",
            "ACTIVE",
            "LOST",
            "UNCLASSIFIED",
            "INSUFFICIENT_DATA",
            "PROSPECT",
        ]
        await brand.check()


async def test_the_silent_who_are_woken(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-31T12:00") as brand:
        awake, woken, asleep, new, back = await brand.members(5)
        seen = {"page.viewed": {"page": "p"}}
        await brand.send(
            brand.act(awake, "2026-01-30T00:00"),  # the first of the 30 days before March
            brand.act(awake, "2026-03-05T12:00"),
            brand.act(woken, "2026-01-29T23:59"),  # the day before them
            brand.paid(woken, "o", 1, "2026-03-01T00:00"),
            brand.act(asleep, "2025-12-01T12:00"),
            brand.event("page.viewed", asleep, None, None, "2026-03-05T12:00") | {"properties": seen["page.viewed"]},
            brand.act(new, "2026-03-01T00:00"),  # nobody knew them before
            brand.event("page.viewed", back, None, None, "2026-02-28T12:00") | {"properties": seen["page.viewed"]},
            brand.act(back, "2026-03-31T11:00"),
            brand.act(asleep, "2026-04-01T00:00"),
        )
        asked = """query($from: Date!, $to: Date!) { indicators(keys: ["wake_rate"]) { owner unit definition
          series(from: $from, to: $to, period: MONTH) { start value numerator denominator } } }"""
        [found] = (await brand.client.data(asked, **{"from": "2026-02-01", "to": "2026-04-01"}))["indicators"]
        assert (found["owner"], found["unit"]) == ("rfm", "RATE")
        assert [(each["numerator"], each["denominator"]) for each in found["series"]] == [(0, 1), (2, 3)]
        assert found["series"][1]["value"] == 2 / 3
        made = """mutation { a: createChannel(input: {key: "shop", name: "s", kind: STORE}) { errors { code } }
          b: createChannel(input: {key: "till", name: "t", kind: STORE, parent: "shop"}) { errors { code } } }"""
        assert list((await brand.client.data(made)).values()) == [{"errors": []}] * 2
        here = await brand.member()
        await brand.send(
            brand.paid(here, "o", 1, "2026-01-01T12:00", channel="till"),
            brand.paid(here, "p", 1, "2026-03-02T12:00", channel="till"),
        )
        of = asked.replace("$to: Date!)", "$to: Date!, $of: String)").replace("period: MONTH", "period: MONTH, channel: $of")
        for key, expected in (("shop", (1, 1)), ("till", (1, 1)), (None, (3, 4))):
            [found] = (await brand.client.data(of, **{"from": "2026-03-01", "to": "2026-04-01", "of": key}))["indicators"]
            assert [(each["numerator"], each["denominator"]) for each in found["series"]] == [expected], key
        brand.set_time("2026-03-31T10:59")
        again = (await brand.client.data(asked, **{"from": "2026-03-01", "to": "2026-04-01"}))["indicators"][0]["series"]
        assert [(each["numerator"], each["denominator"]) for each in again] == [(2, 4)]
        await drain(brand.client)
        assert local("2026-03-31T10:59") == brand.now
