"""Schemes to start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scrm.api import currency_exponent

NAMES = (
    ("bronze", "普卡", "Bronze", "1"),
    ("silver", "银卡", "Silver", "1.2"),
    ("gold", "金卡", "Gold", "1.5"),
    ("platinum", "铂金卡", "Platinum", "2"),
)
BIRTHDAY = {"key": "birthday_gift", "name": "生日礼", "names": {"en": "Birthday gift"}, "value": True}
PRIORITY = {"key": "priority_queue", "name": "优先排队", "names": {"en": "Priority queue"}, "value": True}
ADVISER = {"key": "personal_adviser", "name": "专属客服", "names": {"en": "Personal adviser"}, "value": True}
BENEFITS: Sequence[Sequence[Mapping[str, Any]]] = ((), (BIRTHDAY,), (BIRTHDAY, PRIORITY), (BIRTHDAY, PRIORITY, ADVISER))
TASKS = (
    {"key": "sign_up", "event": "user.signed_up", "growth": 50, "lifetime": 1},
    {"key": "order", "event": "order.paid", "growth": 100, "per_day": 5},
    {"key": "share", "event": "content.shared", "growth": 10, "per_day": 3},
    {"key": "comment", "event": "content.commented", "growth": 5, "per_day": 3},
    {"key": "referral", "event": "referral.accepted", "growth": 200, "per_day": 5},
)
AMOUNTS = (0, 1_000, 5_000, 20_000)
"""Currency units, points, or growth value of each level."""


def preset(name: Any, currency: Any) -> dict[str, Any]:
    """The settings of a preset; nothing for a name that there is not."""
    if name == "points":
        return {"levels": _levels(points_earned=AMOUNTS)}
    if name == "growth":
        return {"levels": _levels(growth=AMOUNTS), "tasks": TASKS}
    unit = 10 ** currency_exponent(str(currency))
    spend = tuple(amount * unit for amount in AMOUNTS)
    if name == "spend_and_orders":
        return {"levels": _levels(spend=spend, orders=(0, 3, 12, 24))}
    return {"levels": _levels(spend=spend)} if name == "spend" else {}


def _levels(**bounds: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "key": key,
            "name": name,
            "names": {"en": english},
            "bounds": {metric: values[place] for metric, values in bounds.items()},
            "multiplier": multiplier,
            "benefits": [dict(benefit) for benefit in BENEFITS[place]],
        }
        for place, (key, name, english, multiplier) in enumerate(NAMES)
    ]
