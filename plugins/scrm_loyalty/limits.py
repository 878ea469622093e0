"""What members have earned so far, as far as it limits what they earn next."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import sqlalchemy as sa

from scrm.api import LogEvent, Tx, among

from .earn_rules import EarnRule
from .earning import EVER
from .ledger import Ledger
from .models import accounts, entries, uses
from .rules import LoyaltyRules

CREDITS = ("EARN", "DEBT_REPAID")

Limited = tuple[LogEvent, EarnRule]


def load_limits(tx: Tx, ledger: Ledger, batch: Sequence[LogEvent], rules: LoyaltyRules) -> None:
    """Know what the caps of these events' rules have room for, and which values have earned once."""
    found = [
        (event, rule)
        for event in batch
        for rule in rules.earning.get(event.type, ())
        if event.user_id is not None and (rule.capped or rule.once_per is not None)
    ]
    capped = [(event, rule) for event, rule in found if rule.capped]
    if capped:
        _load_earned(tx, ledger, capped, rules)
    once = [(event, rule) for event, rule in found if rule.once_per is not None]
    if once:
        _load_used(tx, ledger, once)


def _load_earned(tx: Tx, ledger: Ledger, capped: Sequence[Limited], rules: LoyaltyRules) -> None:
    """Points of the periods that the events lie in, day by day, and all others together."""
    periods = [rule.period_of(rules.day_of(event.occurred_at)) for event, rule in capped]
    at = entries.c.occurred_at
    first = sa.literal(rules.midnight(min(first for first, _ in periods)), at.type)
    after = sa.literal(rules.midnight(max(after for _, after in periods)), at.type)
    mine = [
        among(accounts.c.holder_id, _users(capped)),
        among(entries.c.rule, _keys(capped)),
        entries.c.kind.in_(CREDITS),
    ]
    said = sa.select(accounts.c.holder_id, entries.c.rule, at, entries.c.points)
    said = said.join(accounts, accounts.c.id == entries.c.account_id)
    for row in tx.rows(said.where(*mine, at >= first, at < after)):
        days = ledger.earned.setdefault((row.holder_id, row.rule), {})
        day = rules.day_of(row.occurred_at)
        days[day] = days.get(day, 0) + row.points
    ever = [rule.key for _, rule in capped if rule.cap_lifetime is not None]
    if not ever:
        return
    whole = sa.select(accounts.c.holder_id, entries.c.rule, sa.func.sum(entries.c.points).label("points"))
    whole = whole.join(accounts, accounts.c.id == entries.c.account_id).where(*mine, sa.or_(at < first, at >= after))
    for row in tx.rows(whole.where(among(entries.c.rule, ever)).group_by(accounts.c.holder_id, entries.c.rule)):
        ledger.earned.setdefault((row.holder_id, row.rule), {})[EVER] = int(row.points)


def _load_used(tx: Tx, ledger: Ledger, once: Sequence[Limited]) -> None:
    values = [value for event, rule in once if (value := rule.once(event.properties)) is not None]
    said = sa.select(accounts.c.holder_id, uses.c.rule, uses.c.value).join(accounts, accounts.c.id == uses.c.account_id)
    mine = [among(accounts.c.holder_id, _users(once)), among(uses.c.rule, _keys(once)), among(uses.c.value, values)]
    ledger.used.update((row.holder_id, row.rule, row.value) for row in tx.rows(said.where(*mine)))


def _users(found: Sequence[Limited]) -> list[uuid.UUID]:
    return sorted({event.user_id for event, _ in found if event.user_id is not None})


def _keys(found: Sequence[Limited]) -> list[str]:
    return sorted({rule.key for _, rule in found})
