"""What an alert says of itself, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """One sentence: what was seen, when, and what the limit is."""
    chinese = language.split("-")[0] == "zh"
    name = NAMES.get(reason["indicator"], reason["name"]) if chinese else reason["name"]
    clauses = [_clause(each, reason, chinese) for each in reason["said"]]
    if chinese:
        return f"{name}{_when(reason, True)}为{'；且'.join(clauses)}"
    return f"{name} was {_joined(clauses, _when(reason, False))}"


def _joined(clauses: Sequence[str], when: str) -> str:
    value, found, rest = clauses[0].partition(",")
    first, _, limit = clauses[0].partition(";") if not found else (value, "", "")
    head = f"{first} {when};{limit}" if not found else f"{value} {when},{rest}"
    return "; and ".join([head, *clauses[1:]])


def _when(reason: Mapping[str, Any], chinese: bool) -> str:
    if reason.get("days"):
        return f"最近{reason['days']}天" if chinese else f"within {reason['days']} days"
    times = max([reason.get("streak", 1), *(each.get("row", 1) for each in reason["said"])])
    english, word = PERIODS[reason["period"]]
    if times > 1:
        return f"连续{times}{word}" if chinese else f"on {times} consecutive {english}s"
    start = date.fromisoformat(reason["start"])
    if reason["period"] == "MONTH":
        return f"{start:%Y-%m}" if chinese else f"in {start:%Y-%m}"
    if reason["period"] == "WEEK":
        end = start + timedelta(days=6)
        return f"{start}至{end}" if chinese else f"from {start} to {end}"
    return f"{start}" if chinese else f"on {start}"


def _clause(said: Mapping[str, Any], reason: Mapping[str, Any], chinese: bool) -> str:
    numbers = _Numbers(reason["unit"], reason.get("currency", "CNY"), chinese)
    value, limit = Fraction(said["value"]), Fraction(said["limit"])
    shown, limits = numbers.apart(value, limit)
    kind = said["kind"]
    end = f"，限值{limits}" if chinese else f"; limit {limits}"
    if kind == "threshold":
        return f"{shown}{end}"
    other = numbers.of(Fraction(said["other"]))
    if kind == "trend":
        times, falling = said["times"], said["direction"] == "falling"
        if chinese:
            return f"{shown}，连续{times}次{'下降' if falling else '上升'}（自{other}）"
        return f"{shown}, {'down' if falling else 'up'} {times} times in a row from {other}"
    away = Fraction(said.get("change", said.get("away", 0)))
    side = ("高于" if away >= 0 else "低于") if chinese else ("above" if away >= 0 else "below")
    against = _AGAINST[kind][chinese]
    far = numbers.step(abs(away)) if kind == "difference" else "" if kind == "deviation" else percent(abs(away), chinese)
    if kind == "deviation":
        sigmas = plain(Fraction(said["share"]))
        return (
            f"{shown}，{side}{against}{other}逾{sigmas}σ{end}"
            if chinese
            else f"{shown}, more than {sigmas} σ {side} {against} {other}{end}"
        )
    return f"{shown}，{side}{against}{other}达{far}{end}" if chinese else f"{shown}, {far} {side} {against} {other}{end}"


_AGAINST = {
    "change": ("the earlier", "之前的"),
    "difference": ("the earlier", "之前的"),
    "off_mean": ("the mean of", "均值"),
    "deviation": ("the mean of", "均值"),
    "target": ("the target of", "目标"),
}


class _Numbers:
    """Values of one unit as text."""

    def __init__(self, unit: str, currency: str, chinese: bool) -> None:
        self._unit, self._currency, self._chinese = unit, currency, chinese

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
