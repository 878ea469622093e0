"""What an event would earn, and why not more: it is folded as it would be, and nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from scrm.api import LogEvent, Tx, events

from .earn_rules import MOST, EarnRule
from .facts import fold
from .handlers import load
from .ledger import EARNED, ONCE, REVERSED, Ledger
from .rules import PAID, LoyaltyRules


class Why(StrEnum):
    """Why there are not more points."""

    RECORDED_ALREADY = "RECORDED_ALREADY"
    NO_RULE = "NO_RULE"
    NO_AMOUNT = "NO_AMOUNT"
    OTHER_CURRENCY = "OTHER_CURRENCY"
    NOT_THIS_DAY = "NOT_THIS_DAY"
    NOT_SUCH_EVENTS = "NOT_SUCH_EVENTS"
    NO_POINTS = "NO_POINTS"
    TOO_MANY = "TOO_MANY"
    NOTHING_TO_TELL_APART = "NOTHING_TO_TELL_APART"
    EARNED_BEFORE = "EARNED_BEFORE"
    DAY_CAP = "DAY_CAP"
    PERIOD_CAP = "PERIOD_CAP"
    LIFETIME_CAP = "LIFETIME_CAP"
    ROUNDED_DOWN = "ROUNDED_DOWN"
    PAYS_DEBT = "PAYS_DEBT"
    REFUNDED_BEFORE = "REFUNDED_BEFORE"


WORDS: Mapping[Why, str] = {
    Why.RECORDED_ALREADY: "it is recorded already, and counts once",
    Why.NO_RULE: "no earn rule is for {event}",
    Why.NO_AMOUNT: "it has no amount, or none above 0",
    Why.OTHER_CURRENCY: "its amount is in {currency}; points are earned for {own}",
    Why.NOT_THIS_DAY: "the rule does not count on {day}",
    Why.NOT_SUCH_EVENTS: "the rule's filter does not fit",
    Why.NO_POINTS: "the rule comes to less than one point",
    Why.TOO_MANY: "the rule comes to more than {most} points, which none gives for one event",
    Why.NOTHING_TO_TELL_APART: "the rule earns once for each {once_per}, and the event has none",
    Why.EARNED_BEFORE: "the rule earns once for each {once_per}, and has for this one",
    Why.DAY_CAP: "the rule gives at most {cap_per_day} a day",
    Why.PERIOD_CAP: "the rule gives at most {cap_per_period} a {period}",
    Why.LIFETIME_CAP: "the rule gives at most {cap_lifetime} ever",
    Why.ROUNDED_DOWN: "its points are rounded down, those of an order for all of it",
    Why.PAYS_DEBT: "{count} of them pay a debt",
    Why.REFUNDED_BEFORE: "{count} of them are cancelled at once, for the order was refunded before",
}
"""The same in words."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why there are not more; `rule` is the earn rule that it is about."""

    code: Why
    rule: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Earning:
    """What one rule would give."""

    rule: str
    points: int
    available_at: str | None
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class Preview:
    """Points that would be credited, by rule, what of them would pay a debt or be taken back at once, and why there are not
    more."""

    earning: Sequence[Earning]
    debt_repaid: int
    reversed: int
    why: Sequence[Reason]


def preview(tx: Tx, event: LogEvent, rules: LoyaltyRules) -> Preview:
    """What would come of an event if it were recorded now."""
    known = sa.select(events.c.id).where(events.c.source == event.source, events.c.external_id == event.external_id)
    if tx.row(known) is not None:
        return Preview([], 0, 0, [_reason(Why.RECORDED_ALREADY)])
    refusal = _refusal(event, rules)
    if refusal is not None:
        return Preview([], 0, 0, [refusal])
    ledger = load(tx, [event], rules, lock=False).ledger
    fold(ledger, [event], rules)
    said: list[Mapping[str, Any]] = [one.properties for one in ledger.announcements if one.type == EARNED]
    repaid = sum(one["debtRepaid"] for one in said)
    cancelled = sum(one.properties["cancelled"] for one in ledger.announcements if one.type == REVERSED)
    why = [*_by_rule(ledger, event, rules), *_of_all(repaid, cancelled)]
    return Preview([_earning(one) for one in said], repaid, cancelled, why)


def _earning(said: Mapping[str, Any]) -> Earning:
    lot: Mapping[str, Any] = next(iter(said["lots"]), {})
    return Earning(said["rule"], said["points"], lot.get("availableAt"), lot.get("expiresAt"))


def _refusal(event: LogEvent, rules: LoyaltyRules) -> Reason | None:
    if event.type not in rules.earning:
        return _reason(Why.NO_RULE, event=event.type)
    return _without_money(event, rules) if event.type == PAID else None


def _without_money(event: LogEvent, rules: LoyaltyRules) -> Reason | None:
    if not event.amount_minor or event.amount_minor < 0:
        return _reason(Why.NO_AMOUNT)
    return None if event.currency == rules.currency else _reason(Why.OTHER_CURRENCY, currency=event.currency, own=rules.currency)


def _by_rule(ledger: Ledger, event: LogEvent, rules: LoyaltyRules) -> Iterator[Reason]:
    day = rules.day_of(event.occurred_at)
    limited = dict(reversed(ledger.limited))
    paid = next((order.paid for order in ledger.orders.values()), 0) if event.type == PAID else event.amount_minor or 0
    multiplier = next((account.multiplier for account in ledger.accounts.values()), ONCE)
    given = {one.properties["rule"] for one in ledger.announcements if one.type == EARNED}
    for rule in rules.earning[event.type]:
        code = rule.misfit(event.properties, day) or limited.get(rule.key)
        if code is not None:
            yield _reason(Why(code), rule, day=day, most=MOST, **rule.model_dump(include=set(EarnRule.model_fields) - {"filter"}))
        elif rule.key in given:
            if rule.is_rounded(event.properties, rules.currency, multiplier, paid):
                yield _reason(Why.ROUNDED_DOWN, rule)
        else:
            lacking = _without_money(event, rules) if rule.per_unit else None
            yield _reason(Why.NO_POINTS, rule) if lacking is None else Reason(lacking.code, rule.key, lacking.message)


def _of_all(repaid: int, cancelled: int) -> Iterator[Reason]:
    if repaid:
        yield _reason(Why.PAYS_DEBT, count=repaid)
    if cancelled:
        yield _reason(Why.REFUNDED_BEFORE, count=cancelled)


def _reason(code: Why, rule: EarnRule | None = None, **values: Any) -> Reason:
    return Reason(code, rule.key if rule is not None else None, WORDS[code].format(**values))
