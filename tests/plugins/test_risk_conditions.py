"""Every kind of condition, one below, equal, and one above its limit; and the rules as settings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from pydantic import TypeAdapter

import scrm_risk
from scrm.api import KEPT, ScrmError
from scrm.testing.client import serving
from scrm_risk import conditions
from scrm_risk.conditions import Condition, Judged, Point
from scrm_risk.presets import PRESETS
from scrm_risk.rules import PRESET_RULES, RiskRules, parse_rule
from scrm_risk.words import explain

CONDITION: TypeAdapter[Any] = TypeAdapter(Condition)
FIRST = date(2026, 3, 2)
Value = int | tuple[int, int] | None


def points(*values: Value) -> list[Point]:
    """Days of a count, a ratio, or a rate of nothing."""
    made = []
    for number, value in enumerate(values):
        above, below = (0, 0) if value is None else value if isinstance(value, tuple) else (value, None)
        made.append(Point(FIRST + timedelta(days=number), FIRST + timedelta(days=number + 1), above, below))
    return made


def judge(condition: dict[str, Any], *values: Value) -> Judged:
    found: Judged = CONDITION.validate_python(condition).judge(points(*values))
    return found


STEADY: tuple[Value, ...] = (8, 10, 12, 10, 8, 10, 12, 10)
"""Mean 10, variance 16 ÷ 7."""
WEEKDAYS: tuple[Value, ...] = tuple(70 if number % 7 == 0 else 10 for number in range(56))

CASES: list[tuple[dict[str, Any], Sequence[Value], bool | None]] = [
    ({"kind": "threshold", "above": 5}, [4], False),
    ({"kind": "threshold", "above": 5}, [5], False),
    ({"kind": "threshold", "at_least": 5, "at_most": 5}, [5], True),
    ({"kind": "threshold", "above": 4, "below": 6}, [5], True),
    ({"kind": "threshold", "above": 4, "below": 6}, [6], False),
    ({"kind": "threshold", "above": 5}, [6], True),
    ({"kind": "threshold", "at_least": 5}, [4], False),
    ({"kind": "threshold", "at_least": 5}, [5], True),
    ({"kind": "threshold", "below": 5}, [5], False),
    ({"kind": "threshold", "below": 5}, [4], True),
    ({"kind": "threshold", "at_most": 5}, [5], True),
    ({"kind": "threshold", "at_most": 5}, [6], False),
    ({"kind": "threshold", "above": 0.05}, [(5, 100)], False),  # 5 % is 5 %, whatever a float says of it
    ({"kind": "threshold", "above": "0.05"}, [(50_001, 1_000_000)], True),
    ({"kind": "threshold", "above": 0.1}, [(1, 10)], False),
    ({"kind": "threshold", "above": 0.05}, [None], None),
    ({"kind": "change", "rise": 0.2}, [10, 11], False),
    ({"kind": "change", "rise": 0.2}, [10, 12], True),
    ({"kind": "change", "rise": 0.2}, [10, 13], True),
    ({"kind": "change", "fall": 0.2}, [10, 9], False),
    ({"kind": "change", "fall": 0.2}, [10, 8], True),
    ({"kind": "change", "rise": 0.2, "fall": 0.2}, [10, 8], True),
    ({"kind": "change", "rise": 0.2, "fall": 0.2}, [10, 10], False),
    ({"kind": "change", "rise": 0.2}, [0, 10], None),  # nothing is a share of nought
    ({"kind": "change", "rise": 0.2}, [10], None),
    ({"kind": "change", "rise": 0.2, "back": 2}, [10, 1, 12], True),
    ({"kind": "change", "rise": 0.5, "minimum": 5}, [2, 4], False),
    ({"kind": "change", "rise": 0.5, "minimum": 5}, [2, 5], True),
    ({"kind": "difference", "above": "0.005"}, [(15, 1000), (20, 1000)], False),
    ({"kind": "difference", "above": "0.005"}, [(15, 1000), (21, 1000)], True),
    ({"kind": "difference", "below": 3}, [10, 7], False),
    ({"kind": "difference", "below": 3}, [10, 6], True),
    ({"kind": "deviation", "window": 8, "sigmas": 2}, [*STEADY, 13], False),  # 2σ = 3.02…
    ({"kind": "deviation", "window": 8, "sigmas": 2}, [*STEADY, 14], True),
    ({"kind": "deviation", "window": 8, "sigmas": 2}, [*STEADY, 6], True),
    ({"kind": "deviation", "window": 8, "sigmas": 2, "direction": "above"}, [*STEADY, 6], False),
    ({"kind": "deviation", "window": 8, "sigmas": 2, "direction": "below"}, [*STEADY, 6], True),
    ({"kind": "deviation", "window": 8, "sigmas": 2}, [*[0, 700] * 4, 1098], False),  # 350 + 748.3…; of a population 1 050
    ({"kind": "deviation", "window": 8, "sigmas": 2}, [*[0, 700] * 4, 1099], True),
    ({"kind": "deviation", "window": 8, "sigmas": 2}, [*STEADY[1:], 14], None),
    ({"kind": "deviation", "window": 8, "sigmas": 2}, [*STEADY[:7], None, 14], None),
    ({"kind": "deviation", "window": 8}, [*[5] * 8, 5], False),
    ({"kind": "deviation", "window": 8}, [*[5] * 8, 6], True),
    ({"kind": "deviation", "window": 8, "same_weekday": True}, [*WEEKDAYS, 70], False),
    ({"kind": "deviation", "window": 8, "same_weekday": True}, [*WEEKDAYS, 10], True),
    ({"kind": "deviation", "window": 8}, [*WEEKDAYS, 70], True),
    ({"kind": "off_mean", "window": 8, "by": 0.2}, [*STEADY, 9], False),
    ({"kind": "off_mean", "window": 8, "by": 0.2}, [*STEADY, 8], True),
    ({"kind": "off_mean", "window": 8, "by": 0.2, "direction": "below"}, [*STEADY, 12], False),
    ({"kind": "off_mean", "window": 8, "by": 0.2}, [*[0] * 8, 12], None),
    ({"kind": "target", "target": 100}, [96], False),
    ({"kind": "target", "target": 100}, [95], True),
    ({"kind": "target", "target": 100}, [105], True),
    ({"kind": "target", "target": 100}, [104], False),
    ({"kind": "trend", "direction": "falling", "times": 2}, [3, 2, 1], True),
    ({"kind": "trend", "direction": "falling", "times": 2}, [3, 2, 2], False),
    ({"kind": "trend", "direction": "falling", "times": 2}, [2, 1], None),
    ({"kind": "trend", "direction": "rising", "times": 1}, [1, 2], True),
    ({"kind": "in_a_row", "periods": 3, "condition": {"kind": "threshold", "above": 5}}, [6, 6, 6], True),
    ({"kind": "in_a_row", "periods": 3, "condition": {"kind": "threshold", "above": 5}}, [6, 5, 6], False),
    ({"kind": "in_a_row", "periods": 3, "condition": {"kind": "threshold", "above": 5}}, [6, 6], None),
    ({"kind": "in_a_row", "periods": 2, "condition": {"kind": "threshold", "above": 0}}, [None, (1, 2)], None),
    ({"kind": "all", "conditions": [{"kind": "threshold", "above": 5}, {"kind": "difference", "above": 1}]}, [5, 7], True),
    ({"kind": "all", "conditions": [{"kind": "threshold", "above": 5}, {"kind": "difference", "above": 1}]}, [6, 7], False),
    ({"kind": "all", "conditions": [{"kind": "threshold", "above": 9}, {"kind": "difference", "above": 1}]}, [7], False),
    ({"kind": "all", "conditions": [{"kind": "threshold", "above": 5}, {"kind": "difference", "above": 1}]}, [7], None),
    ({"kind": "any", "conditions": [{"kind": "threshold", "above": 5}, {"kind": "difference", "above": 1}]}, [7], True),
    ({"kind": "any", "conditions": [{"kind": "threshold", "above": 9}, {"kind": "difference", "above": 1}]}, [7], None),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "values", "holds"), CASES)
def test_at_its_limit(condition: dict[str, Any], values: Sequence[Value], holds: bool | None) -> None:
    assert judge(condition, *values).holds is holds


def test_seeded_faults_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to be off by a little makes one of the cases above wrong."""

    def wrong() -> int:
        return sum(judge(condition, *values).holds is not holds for condition, values, holds in CASES)

    assert wrong() == 0
    earlier = conditions.Deviation.earlier
    with monkeypatch.context() as seeded:  # the value itself among those it is compared with
        seeded.setattr(conditions.Deviation, "earlier", lambda self, points: earlier(self, [*points, points[-1]]))
        assert wrong()
    with monkeypatch.context() as seeded:  # what is missing counts as not holding
        seeded.setattr(conditions, "_every", lambda held: all(held))
        assert wrong()
    with monkeypatch.context() as seeded:  # a rate as a float
        seeded.setattr(Point, "value", property(lambda point: Fraction(point.numerator / (point.denominator or 1))))
        assert wrong()


def reason(
    condition: dict[str, Any], *values: Value, indicator: str = "churn_rate", name: str = "Churn", unit: str = "RATE", **more: Any
) -> dict[str, Any]:
    judged = judge(condition, *values)
    said = [dict(each) for each in judged.said]
    return {
        "indicator": indicator,
        "name": name,
        "unit": unit,
        "period": "DAY",
        "start": "2026-03-04",
        "streak": 1,
        "said": said,
        **more,
    }


@pytest.mark.parametrize(
    ("said", "english", "chinese"),
    [
        (
            reason({"kind": "in_a_row", "periods": 3, "condition": {"kind": "threshold", "above": 0.05}}, *[(56, 1000)] * 3),
            "Churn was 5.6 % on 3 consecutive days; limit 5 %",
            "流失率连续3天为5.6%，限值5%",
        ),
        (
            reason({"kind": "threshold", "above": 0.05}, (56, 1000), streak=3),
            "Churn was 5.6 % on 3 consecutive days; limit 5 %",
            "流失率连续3天为5.6%，限值5%",
        ),
        (
            reason({"kind": "threshold", "above": 0.05}, (500_001, 10_000_000)),
            "Churn was 5.00001 % on 2026-03-04; limit 5 %",
            "流失率2026-03-04为5.00001%，限值5%",
        ),
        (
            reason({"kind": "change", "fall": 0.2}, 100, 75, indicator="new_users", name="New users", unit="COUNT"),
            "New users was 75 on 2026-03-04, 25 % below the earlier 100; limit 80",
            "新增用户2026-03-04为75，低于之前的100达25%，限值80",
        ),
        (
            reason(
                {"kind": "target", "target": 100_000}, 94_000, indicator="revenue", name="Revenue", unit="MONEY", period="MONTH"
            ),
            "Revenue was 940 CNY in 2026-03, 6 % below the target of 1,000 CNY; limit 950 CNY",
            "营收2026-03为940 CNY，低于目标1,000 CNY达6%，限值950 CNY",
        ),
        (
            reason(
                {"kind": "all", "conditions": [{"kind": "threshold", "above": 0.02}, {"kind": "difference", "above": 0.005}]},
                (1, 100),
                (3, 100),
            ),
            "Churn was 3 % on 2026-03-04; limit 2 %; and 3 %, 2 percentage points above the earlier 1 %; limit 1.5 %",
            "流失率2026-03-04为3%，限值2%；且3%，高于之前的1%达2个百分点，限值1.5%",
        ),
        (
            reason(
                {"kind": "threshold", "at_least": 10},
                12,
                indicator="coupons_redeemed",
                name="Coupons redeemed",
                unit="COUNT",
                days=7,
            ),
            "Coupons redeemed was 12 within 7 days; limit 10",
            "核销优惠券最近7天为12，限值10",
        ),
        (
            reason(
                {"kind": "trend", "direction": "falling", "times": 2},
                9,
                8,
                7,
                indicator="x",
                name="X",
                unit="COUNT",
                period="WEEK",
            ),
            "X was 7 from 2026-03-04 to 2026-03-10, down 2 times in a row from 9",
            "X2026-03-04至2026-03-10为7，连续2次下降（自9）",
        ),
        (
            reason({"kind": "deviation", "window": 8, "sigmas": 2}, *STEADY, 14, indicator="x", name="X", unit="COUNT"),
            "X was 14 on 2026-03-04, more than 2 σ above the mean of 10; limit 13.02",
            "X2026-03-04为14，高于均值10逾2σ，限值13.02",
        ),
    ],
)
def test_in_words(said: dict[str, Any], english: str, chinese: str) -> None:
    assert (explain(said, "en"), explain(said, "zh-CN")) == (english, chinese)


def test_presets() -> None:
    shown = {key: (rule.indicator, rule.severity, rule.period, rule.per) for key, rule in PRESET_RULES.items()}
    assert shown == {
        "growth_low": ("growth_rate", "GENERAL", "MONTH", "all"),
        "growth_watch": ("growth_rate", "WATCH", "MONTH", "all"),
        "growth_below_mean": ("growth_rate", "GENERAL", "WEEK", "all"),
        "unfollow_high": ("unfollow_rate", "URGENT", "DAY", "all"),
        "interaction_low": ("interaction_rate", "WATCH", "WEEK", "all"),
        "content_interaction_low": ("content_interaction_rate", "GENERAL", "WEEK", "all"),
        "refund_high": ("refund_user_rate", "WATCH", "WEEK", "all"),
        "dispute_high": ("dispute_rate", "IMPORTANT", "WEEK", "all"),
        "new_users_swing": ("new_users", "WATCH", "DAY", "all"),
        "conversion_outlier": ("conversion_rate", "GENERAL", "DAY", "all"),
        "complaints_jump": ("complaints", "IMPORTANT", "DAY", "all"),
        "opinion_high": ("opinion_index", "URGENT", "DAY", "all"),
        "points_velocity": ("points_earned", "IMPORTANT", "DAY", "user"),
        "coupon_abuse": ("coupons_redeemed", "GENERAL", "DAY", "user"),
        "referral_abuse": ("referrals", "IMPORTANT", "DAY", "user"),
    }
    assert all(said["playbook"] for said in PRESETS.values())


PRESET_LIMITS: list[tuple[str, Sequence[Value], bool]] = [
    ("growth_low", [(3, 100)], False),
    ("growth_low", [(29, 1000)], True),
    ("growth_watch", [(29, 1000)], False),
    ("growth_watch", [(3, 100)], True),
    ("growth_watch", [(49, 1000)], True),
    ("growth_watch", [(5, 100)], False),
    ("growth_below_mean", [*[(10, 100)] * 8, (8, 100)], True),
    ("growth_below_mean", [*[(10, 100)] * 8, (81, 1000)], False),
    ("unfollow_high", [(51, 1000)] * 3, True),
    ("unfollow_high", [(51, 1000), (5, 100), (51, 1000)], False),
    ("interaction_low", [(15, 100)], False),
    ("interaction_low", [(149, 1000)], True),
    ("content_interaction_low", [(3, 10), (2, 10), (19, 100)], True),
    ("content_interaction_low", [(3, 10), (25, 100), (20, 100)], False),
    ("content_interaction_low", [(19, 100), (19, 100), (18, 100)], False),
    ("refund_high", [(3, 100)], False),
    ("refund_high", [(31, 1000)], True),
    ("dispute_high", [(16, 1000), (21, 1000)], False),
    ("dispute_high", [(15, 1000), (21, 1000)], True),
    ("dispute_high", [(10, 1000), (20, 1000)], False),
    ("new_users_swing", [10, 12], True),
    ("new_users_swing", [10, 8], True),
    ("new_users_swing", [100, 119], False),
    ("conversion_outlier", [*[(1, 10)] * 28, (1, 10)], False),
    ("conversion_outlier", [*[(1, 10)] * 28, (11, 100)], True),
    ("complaints_jump", [4, 6], True),
    ("complaints_jump", [2, 4], False),
    ("opinion_high", [(800_000, 1000)], False),
    ("opinion_high", [(800_001, 1000)], True),
]  # fmt: skip


@pytest.mark.parametrize(("key", "values", "holds"), PRESET_LIMITS)
def test_presets_at_their_limits(key: str, values: Sequence[Value], holds: bool) -> None:
    assert (PRESET_RULES[key].condition.judge(points(*values)).holds is True) is holds


async def start(**rules: Any) -> list[str]:
    """What the start says of such settings."""
    said = {"risk": {"enabled": True, **rules}}
    with pytest.raises(Exception, match="risk") as refused:
        async with serving("sqlite:///not-made.db", modules={"risk": scrm_risk}, sections=said):
            pass
    problems: list[str] = getattr(refused.value, "problems", [])
    return problems


RULE: dict[str, Any] = {
    "name": "x",
    "indicator": "complaints",
    "severity": "WATCH",
    "condition": {"kind": "threshold", "above": 1},
}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"severity": "HIGH"}, "rules.x.severity is \"HIGH\"; expected 'WATCH', 'GENERAL', 'IMPORTANT' or 'URGENT'"),
        ({"condition": {"kind": "threshold", "above": "much"}}, 'rules.x.condition.threshold.above is "much"; expected a number'),
        ({"condition": {"kind": "threshold"}}, "one of above, at_least, below, at_most at least (BOUND_MISSING)"),
        ({"condition": {"kind": "threshold", "abov": 1}}, "abov is none of them (UNKNOWN_NAME)"),
        ({"condition": {"kind": "guess"}}, "rules.x.condition"),
        ({"condition": {"kind": "threshold", "above": 5, "below": 3}}, "none is over 5 and under 3; for the one or the other,"),
        ({"condition": {"kind": "threshold", "at_least": 3, "above": 5, "at_most": 5}}, "(NO_VALUE_FITS)"),
        ({"condition": {"kind": "threshold", "at_least": 5, "below": 5}}, "(NO_VALUE_FITS)"),
        ({"days": 3}, "no days: these are for a rule about people"),
        ({"per": "user", "period": "WEEK"}, "(RULE_ABOUT_PEOPLE)"),
        ({"condition": {"kind": "deviation", "window": 7}}, "deviation.window is 7; expected greater than or equal to 8"),
        ({"condition": {"kind": "target", "target": 0}}, "rules.x.condition.target.target is 0; expected a target that is not 0"),
        ({"for_periods": 0}, "rules.x.for_periods is 0"),
        ({"per": "user", "indicator": "revenue"}, "revenue is not counted by person (NOT_BY_PERSON)"),
        ({"per": "user", "condition": {"kind": "threshold", "below": 1}}, "(RULE_ABOUT_PEOPLE)"),
        ({"period": "WEEK", "condition": {"kind": "deviation", "same_weekday": True}}, "(RULE_OF_DAYS)"),
        ({"indicator": "bells"}, "risk needs the indicator bells for its rules, and no enabled plugin offers it"),
    ],
)  # fmt: skip
async def test_the_start_names_rule_key_and_value(rule: dict[str, Any], said: str) -> None:
    [problem] = await start(rules={"x": {**RULE, **rule}})
    assert said in problem


async def test_other_settings_that_make_no_sense() -> None:
    for settings, said in (
        ({"notify": [{"to": "ops"}, {"to": "ops"}]}, "(NOTIFY_TWICE)"),
        ({"user_points": {"WATCH": 1}}, "(POINTS_MISSING)"),
        ({"evaluate_minutes": 4}, "evaluate_minutes is 4"),
        ({"targets": {"bells": 1}}, "needs the indicator bells"),
        (
            {"targets": {"revenue": 0}},
            "setting plugins.risk.targets.revenue is 0; expected a target that is not 0: nothing is a share",
        ),
        ({"targets": {"revenue": 0}}, "(TARGET_IS_NOUGHT)"),
        ({"ruls": {}}, "did you mean rules?"),
        ({"notify": [{"to": "ops"}]}, "notify names ops, which urls has no address of; add it, or set dry_run"),
    ):
        assert said in (await start(**settings))[0]


def test_deep_conditions_are_refused() -> None:
    inner: dict[str, Any] = {"kind": "threshold", "above": 1}
    for _ in range(4):
        inner = {"kind": "any", "conditions": [inner, inner]}
    with pytest.raises(ScrmError) as refused:
        parse_rule("x", {**RULE, "condition": inner})
    assert refused.value.code == "CONDITION_TOO_DEEP"
    assert refused.value.message.startswith("rule x: ")


def test_targets_and_keys() -> None:
    rules = RiskRules(presets=False, targets={"revenue": Decimal(100)}, rules={"growth_low": parse_rule("x", RULE)})
    assert sorted(rules.effective) == ["growth_low", "target_revenue"]
    assert [rules.hours(severity) for severity in ("WATCH", "GENERAL", "IMPORTANT", "URGENT")] == [None, 8, 4, 2]
    printed = RiskRules(response="as_printed")
    assert [printed.hours(severity) for severity in ("WATCH", "GENERAL", "IMPORTANT", "URGENT")] == [None, 2, 4, 8]
    assert printed.effective.keys() == PRESETS.keys()


def test_rules_that_were_kept_before_a_check_came_go_on() -> None:
    never = {**RULE, "condition": {"kind": "threshold", "above": 5, "below": 3}, "days": 3}
    with pytest.raises(ValueError, match="NO_VALUE_FITS"):
        RiskRules.model_validate({"rules": {"never": never}})
    kept = RiskRules.model_validate({"rules": {"never": never}}, context=KEPT).rules["never"]
    assert kept.condition.judge(points(2, 4, 6)).holds is False
