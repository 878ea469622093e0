"""What an alert says of itself, in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

from scrm.api import currency_exponent

NAMES = {
    "new_users": "新增用户",
    "growth_rate": "增长率",
    "active_users": "活跃用户",
    "interaction_rate": "互动率",
    "content_interaction_rate": "内容互动率",
    "unfollow_rate": "取关率",
    "churn_rate": "流失率",
    "conversion_rate": "转化率",
    "repurchase_rate": "复购率",
    "refund_user_rate": "退款用户占比",
    "dispute_rate": "纠纷率",
    "complaints": "投诉量",
    "revenue": "营收",
    "opinion_index": "舆情指数",
    "points_earned": "获得积分",
    "coupons_redeemed": "核销优惠券",
    "coupon_cost": "优惠券成本",
    "referrals": "邀请人数",
    "refunds": "退款次数",
}
PERIODS = {"DAY": ("day", "天"), "WEEK": ("week", "周"), "MONTH": ("month", "个月")}


def explain(reason: Mapping[str, Any], language: str) -> str:
    """What was seen, when, and what the limit is; of what is over, also what was seen then."""
    chinese = language.split("-")[0] == "zh"
    name = NAMES.get(reason["indicator"], reason["name"]) if chinese else reason["name"]
    held = _sentence(name, reason, chinese)
    if "over" not in reason:
        return held
    seen = _sentence("", reason["over"], chinese)
    return f"{held}。已恢复：{seen}" if chinese else f"{held}. Over: {seen}"


def _sentence(name: str, reason: Mapping[str, Any], chinese: bool) -> str:
    """Without a name, what a sentence that names it before goes on with."""
    was = f"{name} was " if name and not chinese else ""
    when = _when(reason, chinese)
    if not reason["said"]:
        return _unknown(name, reason, when, chinese)
    clause = _held if reason.get("holds") is not False else _ended
    clauses = [clause(each, reason, chinese) for each in reason["said"]]
    if chinese:
        return f"{name}{when}为{'；且'.join(f'{shown}{rest}' for shown, rest in clauses)}"
    (shown, rest), *others = clauses
    return "; and ".join([f"{was}{shown} {when}{rest}", *(f"{shown}{rest}" for shown, rest in others)])


def _unknown(name: str, reason: Mapping[str, Any], when: str, chinese: bool) -> str:
    """What is said where a value was missing: the period's own, or one that it is compared with."""
    if reason.get("value") is None:
        return f"{name}{when}没有数值" if chinese else f"{name}{' was ' if name else ''}not known {when}"
    shown = _Numbers(reason, chinese).of(Fraction(reason["value"]))
    if chinese:
        return f"{name}{when}为{shown}，缺少用来比较的数值"
    return f"{name}{' was ' if name else ''}{shown} {when}, and what it is compared with is not known"


def _when(reason: Mapping[str, Any], chinese: bool) -> str:
    if reason.get("days"):
        return f"最近{reason['days']}天" if chinese else f"within {reason['days']} day{'s' if reason['days'] > 1 else ''}"
    row = max((each.get("row", 1) for each in reason["said"]), default=1)
    times = max(reason.get("streak", 1), row)
    english, word = PERIODS[reason["period"]]
    if times > 1:
        least = bool(reason.get("at_least")) and times > row
        if chinese:
            return f"连续{'至少' if least else ''}{times}{word}"
        return f"on {'at least ' if least else ''}{times} consecutive {english}s"
    start = date.fromisoformat(reason["start"])
    if reason["period"] == "MONTH":
        return f"{start:%Y-%m}" if chinese else f"in {start:%Y-%m}"
    if reason["period"] == "WEEK":
        end = start + timedelta(days=6)
        return f"{start}至{end}" if chinese else f"from {start} to {end}"
    return f"{start}" if chinese else f"on {start}"


def _held(said: Mapping[str, Any], reason: Mapping[str, Any], chinese: bool) -> tuple[str, str]:
    """The value, and what is to be said of it."""
    numbers = _Numbers(reason, chinese)
    shown, limits = numbers.apart(Fraction(said["value"]), Fraction(said["limit"]))
    kind = said["kind"]
    end = f"，限值{limits}" if chinese else f"; limit {limits}"
    if kind == "threshold":
        return shown, end
    other = numbers.of(Fraction(said["other"]))
    if kind == "trend":
        times, falling = said["times"], said["direction"] == "falling"
        if chinese:
            return shown, f"，连续{times}次{'下降' if falling else '上升'}（自{other}）"
        return shown, f", {'down' if falling else 'up'} {times} times in a row from {other}"
    away = Fraction(said.get("change", said.get("away", 0)))
    side = _SIDES["above" if away >= 0 else "below"][chinese]
    against = _AGAINST[kind][chinese]
    if kind == "deviation":
        sigmas = plain(Fraction(said["share"]))
        return (
            shown,
            f"，{side}{against}{other}逾{sigmas}σ{end}" if chinese else f", more than {sigmas} σ {side} {against} {other}{end}",
        )
    far = numbers.step(abs(away)) if kind == "difference" else percent(abs(away), chinese)
    return shown, f"，{side}{against}{other}达{far}{end}" if chinese else f", {far} {side} {against} {other}{end}"


def _ended(said: Mapping[str, Any], reason: Mapping[str, Any], chinese: bool) -> tuple[str, str]:
    """The same where the condition does not hold: what the value is not, or not any longer."""
    if said["holds"]:  # now, and not in each of the last periods
        english, word = PERIODS[reason["period"]]
        shown, rest = _held(said, reason, chinese)
        return shown, rest + (f"，未连续{said['of']}{word}" if chinese else f", and not on {said['of']} consecutive {english}s")
    numbers = _Numbers(reason, chinese)
    value, limit = Fraction(said["value"]), Fraction(said["limit"])
    shown, limits = numbers.apart(value, limit)
    if said["kind"] == "threshold":
        before, behind = _BOUNDS[said["bound"]][chinese]
        return shown, f"{'，' if chinese else ', '}{before}{limits}{behind}"
    if said["kind"] == "trend":
        falling = said["direction"] == "falling"
        return shown, f"，不再{'下降' if falling else '上升'}" if chinese else f", no longer {said['direction']}"
    if "least" in said:
        return shown, f"，不足{said['least']}" if chinese else f", less than {said['least']}"
    other, against, side = numbers.of(Fraction(said["other"])), _AGAINST[said["kind"]][chinese], _SIDES[said["side"]][chinese]
    far = _least(said, numbers, chinese)
    # A share is never below 0, so that no limit is there.
    end = "" if numbers.rate and limit < 0 <= value else f"，限值{limits}" if chinese else f"; limit {limits}"
    return shown, f"，不再{side}{against}{other}{far}{end}" if chinese else f", no longer {far} {side} {against} {other}{end}"


def _least(said: Mapping[str, Any], numbers: _Numbers, chinese: bool) -> str:
    """How far off something has to be."""
    share = Fraction(said["share"])
    if said["kind"] == "deviation":
        return f"逾{plain(share)}σ" if chinese else f"more than {plain(share)} σ"
    if said["kind"] == "difference":
        return f"逾{numbers.step(abs(share))}" if chinese else f"more than {numbers.step(abs(share))}"
    return f"达{percent(share, chinese)}" if chinese else percent(share, chinese)


_AGAINST = {
    "change": ("the earlier", "之前的"),
    "difference": ("the earlier", "之前的"),
    "off_mean": ("the mean of", "均值"),
    "deviation": ("the mean of", "均值"),
    "target": ("the target of", "目标"),
}
_SIDES = {"both": ("off", "偏离"), "above": ("above", "高于"), "below": ("below", "低于")}
_BOUNDS = {
    "above": (("no longer above ", ""), ("不再高于", "")),
    "at_least": (("no longer ", " or more"), ("不再达到", "")),
    "below": (("no longer below ", ""), ("不再低于", "")),
    "at_most": (("no longer ", " or less"), ("已高于", "")),
}
"""What stands before a bound that is not crossed any longer, and behind it."""


class _Numbers:
    """Values of one unit as text."""

    def __init__(self, reason: Mapping[str, Any], chinese: bool) -> None:
        self._unit, self._currency, self._chinese = reason["unit"], reason.get("currency", "CNY"), chinese

    @property
    def rate(self) -> bool:
        """Whether they are shares."""
        return bool(self._unit == "RATE")

    def of(self, value: Fraction, digits: int = 2) -> str:
        if self._unit == "RATE":
            return percent(value, self._chinese, digits)
        if self._unit == "MONEY":
            return f"{plain(value / 10 ** currency_exponent(self._currency), digits)} {self._currency}"
        return plain(value, digits)

    def apart(self, value: Fraction, limit: Fraction) -> tuple[str, str]:
        """Both, with as many digits as tell them apart."""
        for digits in (2, 4, 6, 9):
            shown = self.of(value, digits), self.of(limit, digits)
            if shown[0] != shown[1] or value == limit:
                break
        return shown

    def step(self, value: Fraction) -> str:
        """A difference of two values."""
        if self._unit == "RATE":
            return f"{plain(value * 100)} {'个百分点' if self._chinese else 'percentage points'}".replace(" 个", "个")
        return self.of(value)


def percent(value: Fraction, chinese: bool, digits: int = 2) -> str:
    """A share in per cent."""
    return f"{plain(value * 100, digits)}{'%' if chinese else ' %'}"


def plain(value: Fraction, digits: int = 2) -> str:
    """A number without needless noughts."""
    text = f"{float(round(value, digits)):,.{digits}f}" if abs(value) < 10**15 else str(round(value))
    return text.rstrip("0").rstrip(".") if "." in text else text
