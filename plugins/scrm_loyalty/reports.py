"""What all points together come to: what is owed to members, and what became of points month by month."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import Any

import sqlalchemy as sa

from scrm.api import Instant, Tx, row_set

from .models import allocations, entries, held_lots, holds, lots
from .rules import LoyaltyRules
from .service import lasts

LONGEST = 120
"""Months that one report covers."""


@dataclass(slots=True)
class Month:
    """Points of one business month. `matured`: of lots that ended in it so far, how many could still be spent or expire."""

    start: date
    earned: int = 0
    redeemed: int = 0
    expired: int = 0
    matured: int = 0


def outstanding(tx: Tx, at: datetime) -> int:
    """Points that members could spend then or later, held ones included, as the ledger knows it now."""
    then = sa.literal(at, Instant())
    credited = lots.c.earned_at <= then, lasts(then)
    made = sa.select(sa.func.coalesce(sa.func.sum(lots.c.original), 0)).where(*credited).scalar_subquery()
    moves = sa.join(allocations, entries, entries.c.id == allocations.c.entry_id).join(lots, lots.c.id == allocations.c.lot_id)
    gone = sa.select(sa.func.coalesce(sa.func.sum(allocations.c.amount), 0)).select_from(moves)
    ended = sa.func.coalesce(holds.c.resolved_at, holds.c.expires_at, type_=holds.c.expires_at.type)
    parts = sa.join(held_lots, holds, holds.c.id == held_lots.c.hold_id).join(lots, lots.c.id == held_lots.c.lot_id)
    kept = sa.select(sa.func.coalesce(sa.func.sum(held_lots.c.amount), 0)).select_from(parts)
    over = holds.c.created_at <= then, ended > then, lots.c.expires_at <= then
    spent = gone.where(entries.c.occurred_at <= then, *credited).scalar_subquery()
    row = tx.rows(sa.select(made.label("made"), spent.label("spent"), kept.where(*over).scalar_subquery().label("kept")))[0]
    return int(row.made) - int(row.spent) + int(row.kept)


def unit_cost(rules: LoyaltyRules) -> int | None:
    """What one point costs in minor units; None where that is no whole number."""
    exact = Fraction(rules.unit_cost) * 10**rules.exponent
    return exact.numerator if exact.denominator == 1 else None


def cost(points: int, rules: LoyaltyRules) -> int:
    """What so many points cost, in minor units, half a unit rounded up."""
    exact = points * Fraction(rules.unit_cost) * 10**rules.exponent
    return int((exact * 2 + 1) // 2)


def by_month(tx: Tx, months: int, rules: LoyaltyRules, at: datetime) -> list[Month]:
    """The newest business months, the present one included, oldest first."""
    starts = _starts(rules.day_of(at), months)
    bounds = [rules.midnight(day) for day in starts]
    said = [{"n": n, "first": bounds[n], "after": bounds[n + 1]} for n in range(months)]
    spans = row_set(tx, "spans", {"n": sa.Integer(), "first": Instant(), "after": Instant()}, said)
    found = [Month(day) for day in starts[:months]]
    _entries(tx, spans, found)
    _ended(tx, spans, found, sa.literal(at, Instant()))
    return found


def _starts(today: date, months: int) -> Sequence[date]:
    """First days of the months and of the one after."""
    number = today.year * 12 + today.month - months
    return [date((number + n) // 12, (number + n) % 12 + 1, 1) for n in range(months + 1)]


def _entries(tx: Tx, spans: Any, found: list[Month]) -> None:
    within = sa.and_(entries.c.occurred_at >= spans.c.first, entries.c.occurred_at < spans.c.after)
    by_rule, back = entries.c.rule.is_not(None), entries.c.reverses.is_not(None)
    rows = sa.select(
        spans.c.n, entries.c.kind, by_rule.label("by_rule"), back.label("back"), sa.func.sum(entries.c.points).label("points")
    ).join(spans, within)
    for row in tx.rows(rows.group_by(spans.c.n, entries.c.kind, by_rule, back)):
        if row.kind == "EARN" or (row.kind == "DEBT_REPAID" and row.by_rule):
            found[row.n].earned += int(row.points)
        elif row.kind in ("REDEEM", "RESTORE") or (row.kind == "DEBT_REPAID" and row.back):
            found[row.n].redeemed -= int(row.points)
        elif row.kind == "EXPIRE":
            found[row.n].expired -= int(row.points)


def _ended(tx: Tx, spans: Any, found: list[Month], then: Any) -> None:
    """What has lapsed and is not written off, and what the lots that ended had to begin with less what left them unspent."""
    ended = sa.and_(lots.c.expires_at >= spans.c.first, lots.c.expires_at < spans.c.after, lots.c.expires_at <= then)
    kept = sa.select(held_lots.c.lot_id, sa.func.sum(held_lots.c.amount).label("held"))
    kept = kept.join(holds).where(holds.c.state == "OPEN", holds.c.expires_at > then).group_by(held_lots.c.lot_id)
    held = kept.subquery("held")
    left = sa.select(allocations.c.lot_id, sa.func.sum(allocations.c.amount).label("amount")).join(entries)
    gone = left.where(entries.c.kind.in_(("TRANSFER_OUT", "REVERSE"))).group_by(allocations.c.lot_id).subquery("gone")
    rows = (
        sa.select(
            spans.c.n,
            sa.func.sum(lots.c.remaining - sa.func.coalesce(held.c.held, 0)).label("lapsed"),
            sa.func.sum(lots.c.original - sa.func.coalesce(gone.c.amount, 0)).label("matured"),
        )
        .select_from(lots)
        .join(spans, ended)
        .outerjoin(held, held.c.lot_id == lots.c.id)
        .outerjoin(gone, gone.c.lot_id == lots.c.id)
        .group_by(spans.c.n)
    )
    for row in tx.rows(rows):
        found[row.n].expired += int(row.lapsed)
        found[row.n].matured = int(row.matured)
