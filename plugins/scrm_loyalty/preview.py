"""What an event would earn, and why not more: it is folded as it would be, and nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from scrm.api import LogEvent, Tx, events

from .facts import fold
from .handlers import load
from .ledger import EARNED, REVERSED
from .rules import LoyaltyRules


@dataclass(frozen=True, slots=True)
class Preview:
    """Points that would be credited, what of them would pay a debt or be taken back at once, and why there are not more."""

    points: int
    debt_repaid: int
    reversed: int
    available_at: str | None
    expires_at: str | None
    why: list[str]


def preview(tx: Tx, event: LogEvent, rules: LoyaltyRules) -> Preview:
    """What would come of an event if it were recorded now."""
    known = sa.select(events.c.id).where(events.c.source == event.source, events.c.external_id == event.external_id)
    if tx.row(known) is not None:
        return Preview(0, 0, 0, None, None, ["it is recorded already, and counts once"])
    if event.type != "order.paid":
        return Preview(0, 0, 0, None, None, [f"{event.type} earns nothing; points are earned for order.paid"])
    refusal = _without_money(event, rules)
    if refusal is not None:
        return Preview(0, 0, 0, None, None, [refusal])
    ledger = load(tx, [event], lock=False).ledger
    fold(ledger, [event], rules)
    said: dict[str, Any] = {one.type: one.properties for one in ledger.announcements}
    earned: dict[str, Any] = said.get(EARNED, {"points": 0, "debtRepaid": 0, "lots": []})
    taken = said.get(REVERSED, {"points": 0, "cancelled": 0})
    lot: dict[str, Any] = next(iter(earned["lots"]), {})
    paid = next(iter(ledger.orders.values())).paid
    why = list(_reasons(paid, earned, taken["cancelled"], rules))
    return Preview(earned["points"], earned["debtRepaid"], taken["cancelled"], lot.get("availableAt"), lot.get("expiresAt"), why)


def _without_money(event: LogEvent, rules: LoyaltyRules) -> str | None:
    if not event.amount_minor or event.amount_minor < 0:
        return "it has no amount, or none above 0"
    if event.currency != rules.currency:
        return f"its amount is in {event.currency}; points are earned for {rules.currency}"
    return "points_per_unit is 0" if not rules.points_per_unit else None


def _reasons(paid: int, earned: dict[str, Any], cancelled: int, rules: LoyaltyRules) -> Iterator[str]:
    if rules.points_for(paid) * 10**rules.exponent != paid * rules.points_per_unit:
        yield f"the points of the whole order, of {paid} minor units so far, are rounded down"
    if earned["debtRepaid"]:
        yield f"{earned['debtRepaid']} of them pay a debt"
    if cancelled:
        yield f"{cancelled} of them are cancelled at once, for the order was refunded before"
