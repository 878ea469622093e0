"""What events earn: plain Python on a ledger that was loaded."""

from __future__ import annotations

import uuid
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from scrm.api import Announcement, LogEvent, derive_id, instant_text

from .earn_rules import MOST, EarnRule
from .ledger import EARNED, Account, Ledger, Lot, Order, settle
from .rules import PAID, LoyaltyRules

EVER = date.min
"""The day on which stands what was earned on days that caps do not tell apart."""


def earn(ledger: Ledger, event: LogEvent, user_id: uuid.UUID, rules: LoyaltyRules) -> None:
    """Earn by every rule that fits; several payments of one order are rounded once, and a refund that came first counts."""
    amount = event.amount_minor if event.amount_minor and event.currency == rules.currency else 0
    if event.type != PAID:
        found = rules.earning.get(event.type, ())
        if found:
            credit_all(ledger, event, ledger.account(user_id, event), None, (0, amount), rules)
        return
    if not amount:
        return
    account = ledger.account(user_id, event)
    order = ledger.order(account, event)
    before = order.paid
    order.paid += amount
    if not order.points:
        order.account_id = account.id
    credit_all(ledger, event, account, order, (before, amount), rules)
    settle(ledger, event, account, order, rules)


def credit_all(
    ledger: Ledger, event: LogEvent, account: Account, order: Order | None, paid: tuple[int, int], rules: LoyaltyRules
) -> None:
    """Credit what each rule gives; `paid` are minor units: of the order so far, and of this event."""
    day = rules.day_of(event.occurred_at)
    for rule in rules.earning.get(event.type, ()):
        if rule.misfit(event.properties, day) is not None:
            continue
        points = rule.points(event.properties, rules.currency, account.multiplier, *paid)
        if points <= 0:
            continue
        if points > MOST:
            ledger.limited.append((rule.key, "TOO_MANY"))
            continue
        value = rule.once(event.properties)
        if rule.once_per is not None and not is_new(ledger, account, rule, value):
            continue
        if rule.capped:
            points = cap(ledger, account, rule, day, points)
        if points:
            credit(ledger, event, account, order, points, rule, rules)
            if value is not None:
                ledger.used.add((account.user_id, rule.key, value))
                ledger.uses.append({"account_id": account.id, "rule": rule.key, "value": value, "event_id": event.id})


def is_new(ledger: Ledger, account: Account, rule: EarnRule, value: str | None) -> bool:
    """Whether the value that earns once has not earned before."""
    if value is None:
        ledger.limited.append((rule.key, "NOTHING_TO_TELL_APART"))
        return False
    if (account.user_id, rule.key, value) in ledger.used:
        ledger.limited.append((rule.key, "EARNED_BEFORE"))
        return False
    return True


def cap(ledger: Ledger, account: Account, rule: EarnRule, day: date, points: int) -> int:
    """As many of the points as the rule's caps have room for; what refunds take back makes no room."""
    days = ledger.earned.setdefault((account.user_id, rule.key), {})
    first, after = rule.period_of(day)
    spans = (
        ("LIFETIME_CAP", rule.cap_lifetime, sum(days.values())),
        ("PERIOD_CAP", rule.cap_per_period, sum(count for one, count in days.items() if first <= one < after)),
        ("DAY_CAP", rule.cap_per_day, days.get(day, 0)),
    )
    for code, limit, so_far in spans:
        if limit is not None and so_far + points > limit:
            ledger.limited.append((rule.key, code))
            points = max(limit - so_far, 0)
    if points:
        days[day] = days.get(day, 0) + points
    return points


def credit(
    ledger: Ledger,
    event: LogEvent,
    account: Account,
    order: Order | None,
    points: int,
    rule: EarnRule,
    rules: LoyaltyRules,
) -> None:
    """Credit points: first to debt, the rest as a lot. Its home is the order's, so that an order's lots always go one way."""
    reference = order.order_id if order is not None else rule.named(event.properties)
    said = {"reference": reference, "rule": rule.key, "part": rule.key}
    repaid = min(points, account.debt)
    entry_id = None
    made: list[dict[str, Any]] = []
    if repaid:
        account.debt -= repaid
        entry_id = ledger.entry(event, account.id, "DEBT_REPAID", repaid, **said)
    if points > repaid:
        day = rules.expires_on(event.occurred_at)
        expires_at = rules.midnight(day) if day is not None else None
        entry_id = ledger.entry(event, account.id, "EARN", points - repaid, expires_at=expires_at, **said)
        lot = Lot(
            id=derive_id(entry_id, "lot"),
            account_id=account.id,
            home_id=order.account_id if order is not None else account.id,
            entry_id=entry_id,
            order_id=order.id if order is not None else None,
            original=points - repaid,
            remaining=points - repaid,
            earned_at=event.occurred_at,
            available_at=rules.available_at(event.occurred_at),
            expires_at=expires_at,
            expires_on=day,
        )
        ledger.add_lot(lot)
        made.append(
            {
                "lot": lot.id.hex,
                "points": lot.original,
                "availableAt": instant_text(lot.available_at),
                "expiresAt": instant_text(expires_at) if expires_at is not None else None,
            }
        )
    order_id = None
    if order is not None:
        order.points += points
        order.entry_id = order.entry_id or entry_id
        order_id = order.order_id
    properties = {"points": points, "orderId": order_id, "rule": rule.key, "debtRepaid": repaid, "lots": made}
    ledger.announcements.append(
        Announcement(EARNED, event, account.user_id, properties, rule.key, event.amount_minor, event.currency)
    )


def multiply(ledger: Ledger, event: LogEvent, user_id: uuid.UUID) -> None:
    """Keep the multiplier of the level that a member has from now on."""
    said = event.properties.get("multiplier")
    if not event.source.startswith("plugin:") or not isinstance(said, str):
        return
    try:
        multiplier = Decimal(said)
        if not 0 <= multiplier <= 100:
            return
    except InvalidOperation:  # no number, or none that can be compared
        return
    known = ledger.accounts.get(user_id)
    if known is not None or multiplier != 1:
        ledger.account(user_id, event).multiplier = f"{multiplier.normalize():f}"
