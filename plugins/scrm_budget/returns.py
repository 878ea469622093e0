"""What lines bring in: revenue by the last touch before an order, and what it is to what they cost."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Any

import sqlalchemy as sa

from scrm.api import TODAY, Row, Tx, among, channels_below, plus_days

from .models import budgets, earned, entries, lines, sources
from .service import whole

WINDOW = 30
"""Days over which returns are looked at unless others are asked for."""
LONGEST = 366
PRIORITIZE, KEEP, PILOT = "PRIORITIZE", "KEEP", "PILOT"
UPPER, LOWER = Fraction(3, 2), Fraction(1)
"""Above the upper one a line is put first; below the lower one it is a pilot."""
UNIT = 10_000
"""Expected returns are kept in ten-thousandths."""


@dataclass(frozen=True, slots=True)
class Return:
    """What a line brought in and cost in the window, and what is expected of it."""

    line_id: uuid.UUID
    revenue: int
    cost: int
    expected: int | None

    @property
    def roi(self) -> Fraction | None:
        """Revenue ÷ cost; where nothing was spent what is expected, if anything is."""
        if self.cost > 0:
            return Fraction(self.revenue, self.cost)
        return Fraction(self.expected, UNIT) if self.expected is not None else None

    @property
    def recommendation(self) -> str | None:
        """PRIORITIZE above 1.5, KEEP from 1 on, PILOT below; null without a return."""
        if self.roi is None:
            return None
        return PRIORITIZE if self.roi > UPPER else KEEP if self.roi >= LOWER else PILOT


def names(line: Any, row: Any) -> sa.ColumnElement[bool]:
    """Whether revenue is a line's: it names the campaign of the touch, or, where no line does, the channel or one above."""
    own, other, owner, theirs = sources.alias(), sources.alias(), lines.alias(), budgets.alias()
    by_campaign = sa.exists().where(own.c.line_id == line.c.id, own.c.channel_id.is_(None), own.c.key == row.c.campaign)
    of_other = other.join(owner, owner.c.id == other.c.line_id).join(theirs, theirs.c.id == owner.c.budget_id)
    claimed = (
        sa.exists()
        .select_from(of_other)
        .where(
            other.c.channel_id.is_(None), other.c.key == row.c.campaign, theirs.c.opens_on <= row.c.day, _last(theirs) > row.c.day
        )
    )
    at = sources.alias()
    below = channels_below(at.c.channel_id)
    is_below = sa.exists(below.where(below.selected_columns.id == row.c.channel_id).correlate(at, row))
    by_channel = sa.exists().where(at.c.line_id == line.c.id, at.c.channel_id.is_not(None), is_below)
    return sa.or_(
        by_campaign.correlate_except(own),
        sa.and_(sa.not_(claimed.correlate_except(other, owner, theirs)), by_channel.correlate_except(at)),
    )


def _last(budget: Any) -> sa.ColumnElement[date]:
    """The first day that is not a budget's any more."""
    early = sa.and_(budget.c.closed_on.is_not(None), budget.c.closed_on < budget.c.ends_on)
    return sa.case((early, budget.c.closed_on), else_=budget.c.ends_on)


def _end(line: Any, today: Any) -> sa.ColumnElement[date]:
    """The day after the last one that counts for a line: tomorrow, or the end of its budget that is over."""
    mine = budgets.alias()
    end = sa.case((_last(mine) <= today, _last(mine)), else_=plus_days(today, 1))
    return sa.select(end).where(mine.c.id == line.c.budget_id).correlate_except(mine).scalar_subquery()


def _of_budget(line: Any, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    mine = budgets.alias()
    return sa.select(mine.c[column.name]).where(mine.c.id == line.c.budget_id).correlate_except(mine).scalar_subquery()


def attributed(line: Any, days: Any, today: Any = TODAY) -> sa.ColumnElement[int]:
    """Revenue of a line over its budget's last so many days, today included, in its currency."""
    row, end = earned.alias(), _end(line, today)
    within = (row.c.day >= plus_days(end, -days), row.c.day < end, row.c.day >= _of_budget(line, budgets.c.opens_on))
    found = sa.select(sa.func.sum(row.c.amount)).where(
        *within, row.c.currency == _of_budget(line, budgets.c.currency), names(line, row)
    )
    return whole(found.correlate_except(row).scalar_subquery())


def cost(line: Any, days: Any, today: Any = TODAY) -> sa.ColumnElement[int]:
    """What was spent of a line over the same days, less what came back."""
    entry, end = entries.alias(), _end(line, today)
    signed = sa.case((entry.c.kind == "SPEND", entry.c.amount), else_=-entry.c.amount)
    found = sa.select(sa.func.sum(signed)).where(
        entry.c.line_id == line.c.id,
        entry.c.kind.in_(("SPEND", "REFUND")),
        entry.c.counts_on >= plus_days(end, -days),
        entry.c.counts_on < end,
    )
    return whole(found.correlate_except(entry).scalar_subquery())


def returns(tx: Tx, line_ids: Sequence[uuid.UUID], today: date, days: int = WINDOW) -> Mapping[uuid.UUID, Return]:
    """What these lines brought in and cost over so many days: one statement."""
    row, day, count = Row(dict(lines.c.items()), lines.name), sa.literal(today, sa.Date()), sa.literal(days, sa.Integer())
    sums = attributed(row, count, day).label("revenue"), cost(row, count, day).label("cost")
    wanted = among(lines.c.id, line_ids)
    found = tx.rows(sa.select(lines.c.id, lines.c.expected_roi, *sums).where(wanted))
    return {one.id: Return(one.id, int(one.revenue), int(one.cost), one.expected_roi) for one in found}
