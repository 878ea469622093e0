"""The formulas of RFM layering, written down as they are said: no SQL, one person at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from math import ceil
from typing import Any
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("Asia/Shanghai")
ELEVEN: Mapping[str, str] = {
    "CHAMPIONS": "555 554 544 545 454 455 445",
    "LOYAL": "543 444 435 355 354 345 344 335",
    "POTENTIAL_LOYALIST": "553 551 552 541 542 533 532 531 452 451 442 441 431 453 433 432 423 353 352 351 342 341 333 323",
    "NEW_CUSTOMERS": "512 511 422 421 412 411 311",
    "PROMISING": "525 524 523 522 521 515 514 513 425 424 413 414 415 315 314 313",
    "NEED_ATTENTION": "535 534 443 434 343 334 325 324",
    "ABOUT_TO_SLEEP": "331 321 312 221 213 231 241 251",
    "AT_RISK": "255 254 245 244 253 252 243 242 235 234 225 224 153 152 145 143 142 135 134 133 125 124",
    "CANNOT_LOSE_THEM": "155 154 144 214 215 115 114 113",
    "HIBERNATING": "332 322 233 232 223 222 132 123 122 212 211",
    "LOST": "111 112 121 131 141 151",
}
MAP = {cell: key for key, cells in ELEVEN.items() for cell in cells.split()}


@dataclass(frozen=True)
class Deed:
    """Something that somebody did."""

    who: str
    kind: str
    at: datetime
    amount: int = 0
    order: str = ""
    currency: str = "CNY"

    @property
    def day(self) -> date:
        return self.at.astimezone(ZONE).date()


@dataclass(frozen=True)
class Values:
    """What somebody has: days since the last purchase, purchases, money."""

    recency: int
    frequency: int
    monetary: int


def values(deeds: Sequence[Deed], as_of: datetime, window: int | None = None, frequency: str = "days") -> dict[str, Values]:
    """What each buyer has as of an instant."""
    today = as_of.astimezone(ZONE).date()
    after = today - timedelta(days=window) if window else date.min
    known = [deed for deed in deeds if deed.at <= as_of and deed.day > after and deed.currency == "CNY"]
    found = {}
    for who in {deed.who for deed in known}:
        paid = [deed for deed in known if deed.who == who and deed.kind == "order.paid"]
        back = sum(deed.amount for deed in known if deed.who == who and deed.kind == "order.refunded")
        if paid:
            last = max(deed.day for deed in paid)
            times = {deed.day if frequency == "days" else deed.order for deed in paid}
            found[who] = Values((today - last).days, len(times), sum(deed.amount for deed in paid) - back)
    return found


def score(mine: Values, everybody: Sequence[Values]) -> str:
    """Three digits, 5 best."""
    n = len(everybody)
    r = ceil(5 * sum(other.recency >= mine.recency for other in everybody) / n)
    f = min(5, 1 + 5 * sum(other.frequency < mine.frequency for other in everybody) // n)
    m = min(5, 1 + 5 * sum(other.monetary < mine.monetary for other in everybody) // n)
    return f"{r}{f}{m}"


def band(mine: Values) -> str:
    """The worst band wins."""
    if mine.recency > 90:
        return "LOST"
    if mine.recency <= 7 and mine.frequency >= 5 and mine.monetary >= 500_000:
        return "HIGH_VALUE"
    if mine.recency <= 30 and mine.frequency >= 2 and mine.monetary >= 100_000:
        return "POTENTIAL"
    return "ACTIVE"


def value_layer(mine: Values, everybody: Sequence[Values]) -> str:
    """By how many spent more."""
    share = sum(other.monetary > mine.monetary for other in everybody) / len(everybody)
    return "HIGH" if share < 0.2 else "MID" if share < 0.5 else "LOW"


def active_days(deeds: Sequence[Deed], who: str, as_of: datetime) -> int:
    """On how many of the last 30 days somebody interacted or bought."""
    today = as_of.astimezone(ZONE).date()
    acted = {
        deed.day
        for deed in deeds
        if deed.who == who and deed.kind != "order.refunded" and deed.at <= as_of and deed.day > today - timedelta(days=30)
    }
    return len(acted)


def behavior_layer(days: int) -> str:
    """By active days."""
    return "ACTIVE" if days >= 4 else "POTENTIAL" if days else "SILENT"


def health(deeds: Sequence[Deed], as_of: datetime) -> dict[str, int]:
    """The mean of three percentile ranks, each the share of the others that are below, among buyers and the active."""
    today = as_of.astimezone(ZONE).date()
    recent = [deed for deed in deeds if deed.at <= as_of and deed.day > today - timedelta(days=30)]
    touch = [deed for deed in recent if not deed.kind.startswith("order.")]
    sign = {"order.paid": 1, "order.refunded": -1}
    people = sorted({deed.who for deed in recent if deed.kind != "order.refunded"} | set(values(deeds, as_of)))
    factors = {
        who: (
            sum(deed.who == who for deed in touch),
            sum(sign.get(d.kind, 0) * d.amount for d in recent if d.who == who and d.currency == "CNY"),
            active_days(deeds, who, as_of),
        )
        for who in people
    }
    others = max(len(people) - 1, 1)
    ranks = {
        who: [100 * sum(factors[other][n] < mine[n] for other in people) // others for n in range(3)]
        for who, mine in factors.items()
    }
    return {who: int(sum(three) / 3 + 0.5) for who, three in ranks.items()}


def standing(deeds: Sequence[Deed], who: str, as_of: datetime, **more: Any) -> tuple[str | None, str, str]:
    """Somebody's score, segment of the map, and band of the fixed lines."""
    everybody = values(deeds, as_of, **more)
    if who not in everybody:
        return None, "PROSPECT", "PROSPECT"
    if len(everybody) < 5:
        return None, "INSUFFICIENT_DATA", band(everybody[who])
    digits = score(everybody[who], list(everybody.values()))
    return digits, MAP[digits], band(everybody[who])
