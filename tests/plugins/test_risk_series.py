"""What holds for how long: gaps, what was before the first evaluation, and the words for it and for its end."""

from __future__ import annotations

from typing import Any

import pytest

from scrm_risk.words import explain
from tests.plugins.test_risk_conditions import STEADY, Value, reason
from tests.plugins.tower import Tower, opened, threshold

OVER_800 = {"kind": "threshold", "above": 800}


async def told(tower: Tower) -> list[tuple[str, str]]:
    """States and explanations of all alerts, the oldest first."""
    found = await tower.alerts("(orderBy: [{startedAt: ASC}])", "state explanation")
    return [(each["state"], each["explanation"]) for each in found]


async def test_days_that_are_not_next_to_each_other_are_not_in_a_row(migrated_url: str) -> None:
    rules = {"index": threshold("opinion_index", for_periods=3, condition=OVER_800)}
    async with opened(migrated_url, "2026-09-30T08:00", rules=rules) as tower:
        for day in ("01", "08", "20"):
            tower.set_time(f"2026-10-{int(day) + 1:02}T08:00")
            await tower.report(f"2026-10-{day}", 900)
            await tower.evaluate()
            await tower.evaluate(f"2026-10-{int(day) + 2:02}T08:00")  # nothing was reported: what was pending is over
        ends = [f"Opinion index was 900 on 2026-10-{day}; limit 800. Over: not known on 2026-10-{after}"
                for day, after in (("01", "02"), ("08", "09"), ("20", "21"))]  # fmt: skip
        assert await told(tower) == [("RESOLVED", end) for end in ends]
        tower.set_time("2026-10-26T08:00")
        for day in ("23", "24", "25"):
            await tower.report(f"2026-10-{day}", 900)
        await tower.evaluate()
        assert (await told(tower))[-1] == ("FIRING", "Opinion index was 900 on 3 consecutive days; limit 800")
        await tower.evaluate("2026-10-27T08:00")  # what fires is kept over a gap
        tower.set_time("2026-10-28T08:00")
        await tower.report("2026-10-27", 900)
        await tower.evaluate()
        assert (await told(tower))[-1] == ("FIRING", "Opinion index was 900 on 2026-10-27; limit 800")
        await tower.report("2026-10-26", 900)  # which comes late, and closes it
        await tower.evaluate("2026-10-28T09:00")
        assert (await told(tower))[-1] == ("FIRING", "Opinion index was 900 on 5 consecutive days; limit 800")
        assert len(await told(tower)) == 4
        await tower.check()


async def test_what_was_before_the_first_evaluation(migrated_url: str) -> None:
    """Four weeks hold, and three of them are judged; the words never say that these are all."""
    none = {"kind": "threshold", "below": 1}
    rules = {"quiet": threshold(period="WEEK", condition=none)}
    async with opened(migrated_url, "2026-03-30T08:00", rules=rules, late_periods=2) as tower:
        await tower.complain("2026-03-01", 1)
        weeks = "Complaints was 0 on {} consecutive weeks; limit 1"
        for at, said in (
            ("2026-03-30T08:00", "at least 3"),
            ("2026-04-06T08:00", "at least 4"),
            ("2026-04-13T08:00", "at least 5"),
        ):
            await tower.evaluate(at)
            assert await told(tower) == [("FIRING", weeks.format(said))]
        await tower.complain("2026-04-02", 1)  # late: from then on it is known
        await tower.evaluate("2026-04-13T09:00")
        assert await told(tower) == [("FIRING", "Complaints was 0 from 2026-04-06 to 2026-04-12; limit 1")]
        await tower.evaluate("2026-04-20T08:00")
        assert await told(tower) == [("FIRING", weeks.format("2"))]
        await tower.check()


async def test_a_missing_value_that_alerts_is_explained(migrated_url: str) -> None:
    rules = {"index": threshold("opinion_index", missing="ALERT", for_periods=2, condition=OVER_800)}
    async with opened(migrated_url, "2026-03-03T08:00", rules=rules, notify=[{"to": "ops"}], dry_run=True) as tower:
        await tower.report("2026-03-02", 1)
        await tower.evaluate("2026-03-04T08:00")
        assert await told(tower) == [("PENDING", "Opinion index was not known on 2026-03-03")]
        await tower.report("2026-03-04", 900)
        await tower.evaluate("2026-03-05T08:00")
        assert await told(tower) == [("FIRING", "Opinion index was 900 on 2026-03-04; limit 800")]
        await tower.report("2026-03-05", 1)
        await tower.evaluate("2026-03-06T08:00")
        end = "Opinion index was 900 on 2026-03-04; limit 800. Over: 1 on 2026-03-05, no longer above 800"
        assert await told(tower) == [("RESOLVED", end)]
        await tower.check()


FEW = {"kind": "threshold", "above": 5}
RATE: dict[str, Any] = {"indicator": "conversion_rate", "name": "Conversion", "unit": "RATE", "holds": False}
COUNT: dict[str, Any] = {"indicator": "complaints", "name": "Complaints", "unit": "COUNT", "holds": False}
WILD: tuple[Value, ...] = tuple((number, 10) for number in (0, 7) * 4)


@pytest.mark.parametrize(
    ("said", "english", "chinese"),
    [
        (
            reason(FEW, 5, **COUNT),
            "Complaints was 5 on 2026-03-04, no longer above 5",
            "投诉量2026-03-04为5，不再高于5",
        ),
        (
            reason({"kind": "threshold", "at_least": "0.03", "below": "0.05"}, (2, 100), **RATE),
            "Conversion was 2 % on 2026-03-04, no longer 3 % or more",
            "转化率2026-03-04为2%，不再达到3%",
        ),
        (
            reason({"kind": "threshold", "at_most": 1200}, 1300, **COUNT),
            "Complaints was 1,300 on 2026-03-04, no longer 1,200 or less",
            "投诉量2026-03-04为1,300，已高于1,200",
        ),
        (
            reason({"kind": "deviation", "window": 8}, *WILD, (2, 10), **RATE),
            "Conversion was 20 % on 2026-03-04, no longer more than 2 σ off the mean of 35 %",
            "转化率2026-03-04为20%，不再偏离均值35%逾2σ",
        ),
        (
            reason({"kind": "deviation", "window": 8, "direction": "below"}, *STEADY, 10, **COUNT),
            "Complaints was 10 on 2026-03-04, no longer more than 2 σ below the mean of 10; limit 6.98",
            "投诉量2026-03-04为10，不再低于均值10逾2σ，限值6.98",
        ),
        (
            reason({"kind": "change", "rise": 0.5, "fall": 0.2}, 10, 9, **COUNT),
            "Complaints was 9 on 2026-03-04, no longer 20 % below the earlier 10; limit 8",
            "投诉量2026-03-04为9，不再低于之前的10达20%，限值8",
        ),
        (
            reason({"kind": "change", "rise": 0.5, "minimum": 5}, 2, 4, **COUNT),
            "Complaints was 4 on 2026-03-04, less than 5",
            "投诉量2026-03-04为4，不足5",
        ),
        (
            reason({"kind": "difference", "above": "0.005"}, (2, 100), (1, 100), **RATE),
            "Conversion was 1 % on 2026-03-04, no longer more than 0.5 percentage points above the earlier 2 %; limit 2.5 %",
            "转化率2026-03-04为1%，不再高于之前的2%逾0.5个百分点，限值2.5%",
        ),
        (
            reason({"kind": "target", "target": 100}, 99, **COUNT),
            "Complaints was 99 on 2026-03-04, no longer 5 % off the target of 100; limit 95",
            "投诉量2026-03-04为99，不再偏离目标100达5%，限值95",
        ),
        (
            reason({"kind": "trend", "direction": "falling"}, 3, 2, 3, **COUNT),
            "Complaints was 3 on 2026-03-04, no longer falling",
            "投诉量2026-03-04为3，不再下降",
        ),
        (
            reason({"kind": "in_a_row", "periods": 3, "condition": FEW}, 6, 5, 6, **COUNT),
            "Complaints was 6 on 2026-03-04; limit 5, and not on 3 consecutive days",
            "投诉量2026-03-04为6，限值5，未连续3天",
        ),
        (
            reason({"kind": "all", "conditions": [FEW, {"kind": "difference", "above": 1}]}, 7, 7, **COUNT),
            "Complaints was 7 on 2026-03-04, no longer more than 1 above the earlier 7; limit 8",
            "投诉量2026-03-04为7，不再高于之前的7逾1，限值8",
        ),
        (
            reason({"kind": "deviation", "window": 8}, 7, **{**COUNT, "holds": None, "value": "7"}),
            "Complaints was 7 on 2026-03-04, and what it is compared with is not known",
            "投诉量2026-03-04为7，缺少用来比较的数值",
        ),
        (
            {**reason(FEW, 6, **{**COUNT, "holds": True}), "over": reason(FEW, None, **{**COUNT, "holds": None, "said": []})},
            "Complaints was 6 on 2026-03-04; limit 5. Over: not known on 2026-03-04",
            "投诉量2026-03-04为6，限值5。已恢复：2026-03-04没有数值",
        ),
        (
            {**reason(FEW, 6, days=1, **{**COUNT, "holds": True}), "over": reason(FEW, 0, days=1, **COUNT)},
            "Complaints was 6 within 1 day; limit 5. Over: 0 within 1 day, no longer above 5",
            "投诉量最近1天为6，限值5。已恢复：最近1天为0，不再高于5",
        ),
        (
            reason({"kind": "change", "rise": 0.2}, 10_000, 12_500, **{**COUNT, "holds": True}),
            "Complaints was 12,500 on 2026-03-04, 25 % above the earlier 10,000; limit 12,000",
            "投诉量2026-03-04为12,500，高于之前的10,000达25%，限值12,000",
        ),
        (
            reason(FEW, 6, streak=3, at_least=True, **{**COUNT, "holds": True}),
            "Complaints was 6 on at least 3 consecutive days; limit 5",
            "投诉量连续至少3天为6，限值5",
        ),
    ],
)  # fmt: skip
def test_the_words_for_what_is_over(said: dict[str, Any], english: str, chinese: str) -> None:
    assert (explain(said, "en"), explain(said, "zh-CN")) == (english, chinese)
