"""Series of budgets: how much of them is used, how fast, what they bring in, and what a new user costs.

Budgets in another currency than the plugin's own enter none of them.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from scrm.api import Indicator, IndicatorUnit, Period, Ratio, Tx, channels_below, events, row_set, users

from .models import budgets, earned, entries, lines, revenue, sources
from .returns import names
from .service import then, whole

FUNDS = ("ALLOCATE", "ADJUST", "TRANSFER_IN", "TRANSFER_OUT")
SPENDING = ("SPEND", "REFUND")


def _spans(tx: Tx, periods: Sequence[Period]) -> Any:
    said = [{"n": n, "opens": one.start, "closes": one.end} for n, one in enumerate(periods)]
    return row_set(tx, "period", {"n": sa.Integer(), "opens": sa.Date(), "closes": sa.Date()}, said)


def _of_channel(line_id: Any, channel_id: uuid.UUID | None) -> list[sa.ColumnElement[bool]]:
    """Lines that name a channel or one below it; all of them without one."""
    if channel_id is None:
        return []
    below = channels_below(sa.literal(channel_id, sources.c.channel_id.type))
    return [line_id.in_(sa.select(sources.c.line_id).where(sources.c.channel_id.in_(below)))]


def _sums(tx: Tx, periods: Sequence[Period], channel_id: uuid.UUID | None, as_of: datetime) -> list[sa.Row[Any]]:
    """For each period the budgets of its last day: what they had and had spent by its end. Amounts carried over are left out."""
    span = _spans(tx, periods)
    spent = sa.case((entries.c.kind == "SPEND", entries.c.amount), (entries.c.kind == "REFUND", -entries.c.amount), else_=0)
    funds = sa.case((entries.c.kind.in_(FUNDS), entries.c.amount), else_=0)
    running = sa.and_(budgets.c.home, budgets.c.opens_on < span.c.closes, budgets.c.ends_on >= span.c.closes)
    known = sa.and_(
        entries.c.budget_id == budgets.c.id, entries.c.counts_on < span.c.closes, entries.c.occurred_at <= then(as_of)
    )
    columns = (span.c.n, span.c.closes, budgets.c.opens_on, budgets.c.ends_on, budgets.c.timezone)
    joined = span.join(budgets, running).join(entries, known)
    said = sa.select(*columns, whole(sa.func.sum(spent)).label("spent"), whole(sa.func.sum(funds)).label("funds"))
    mine = _of_channel(entries.c.line_id, channel_id)
    return list(tx.rows(said.select_from(joined).where(*mine).group_by(budgets.c.id, *columns)))


def use(tx: Tx, periods: Sequence[Period], channel_id: uuid.UUID | None, as_of: datetime) -> list[Ratio]:
    """Spent ÷ what budgets have."""
    above, below = [0] * len(periods), [0] * len(periods)
    for row in _sums(tx, periods, channel_id, as_of):
        above[row.n] += row.spent
        below[row.n] += row.funds
    return [Ratio(*both) for both in zip(above, below, strict=True)]


def pace(tx: Tx, periods: Sequence[Period], channel_id: uuid.UUID | None, as_of: datetime) -> list[Ratio]:
    """Spent ÷ what would be spent by then at an even pace."""
    above, below = [0] * len(periods), [0] * len(periods)
    for row in _sums(tx, periods, channel_id, as_of):
        last = min(row.closes - timedelta(days=1), _day(as_of, row.timezone))
        elapsed = min(max((last - row.opens_on).days + 1, 0), (row.ends_on - row.opens_on).days)
        above[row.n] += row.spent
        below[row.n] += row.funds * elapsed // (row.ends_on - row.opens_on).days
    return [Ratio(*both) for both in zip(above, below, strict=True)]


def _day(at: datetime, timezone: str) -> date:
    return at.astimezone(ZoneInfo(timezone)).date()


def roi(tx: Tx, periods: Sequence[Period], channel_id: uuid.UUID | None, as_of: datetime) -> list[Ratio]:
    """Revenue attributed to lines ÷ what was spent of them, both in the period."""
    if not periods:
        return []
    span = _spans(tx, periods)
    days = _earned(min(one.start for one in periods), max(one.end for one in periods), channel_id, as_of)
    within = (days.c.day >= span.c.opens, days.c.day < span.c.closes)
    brought = sa.select(sa.func.sum(days.c.amount)).where(*within).correlate(span).scalar_subquery()
    rows = tx.rows(
        sa.select(whole(brought).label("earned"), whole(_cost(span, channel_id, as_of)).label("cost"))
        .select_from(span)
        .order_by(span.c.n)
    )
    return [Ratio(row.earned, max(row.cost, 0)) for row in rows]


def _earned(first: date, end: date, channel_id: uuid.UUID | None, as_of: datetime) -> sa.CTE:
    """Revenue attributed to lines by day, as known then: of the last days from each payment, of those before from their sums."""
    recent = as_of.date() - timedelta(days=2)
    keys = (revenue.c.day, revenue.c.channel_id, revenue.c.campaign, revenue.c.currency)
    within = (revenue.c.day > recent, revenue.c.day >= first, revenue.c.day < end)
    late = sa.select(*keys, sa.cast(sa.func.sum(revenue.c.amount), sa.BigInteger).label("amount"))
    late = late.where(*within, revenue.c.known, revenue.c.occurred_at <= then(as_of)).group_by(*keys)
    sums = sa.select(earned.c.day, earned.c.channel_id, earned.c.campaign, earned.c.currency, earned.c.amount)
    before = sums.where(earned.c.day <= recent, earned.c.day >= first, earned.c.day < end)
    all_days = sa.union_all(before, late).subquery("sums")
    running = (budgets.c.opens_on <= all_days.c.day, budgets.c.ends_on > all_days.c.day)
    same = (*running, budgets.c.home, budgets.c.currency == all_days.c.currency)
    joined = lines.join(budgets, budgets.c.id == lines.c.budget_id).join(all_days, sa.and_(*same))
    mine = (names(lines, all_days), *_of_channel(lines.c.id, channel_id))
    said = sa.select(all_days.c.day, sa.func.sum(all_days.c.amount).label("amount")).select_from(joined).where(*mine)
    return said.group_by(all_days.c.day).cte("earned_days").prefix_with("MATERIALIZED")


def _cost(span: Any, channel_id: uuid.UUID | None, as_of: datetime) -> sa.ScalarSelect[int]:
    """What was spent in each period."""
    signed = sa.case((entries.c.kind == "SPEND", entries.c.amount), else_=-entries.c.amount)
    within = (entries.c.counts_on >= span.c.opens, entries.c.counts_on < span.c.closes, entries.c.occurred_at <= then(as_of))
    home = entries.c.budget_id.in_(sa.select(budgets.c.id).where(budgets.c.home))
    said = sa.select(sa.func.sum(signed)).where(
        entries.c.kind.in_(SPENDING), home, *within, *_of_channel(entries.c.line_id, channel_id)
    )
    return said.correlate(span).scalar_subquery()


def _new_users(as_of: datetime) -> sa.Subquery:
    """Everybody with the day of their first event and the channel they came through."""
    mine = sa.select(events.c.business_date).where(events.c.user_id == users.c.id, events.c.occurred_at <= then(as_of))
    day = mine.order_by(events.c.occurred_at, events.c.id).limit(1).correlate(users).scalar_subquery()
    said = sa.select(users.c.acquisition_channel_id.label("channel_id"), day.label("day"))
    return said.where(users.c.merged_into.is_(None)).subquery("new_users")


def acquisition_cost(tx: Tx, periods: Sequence[Period], channel_id: uuid.UUID | None, as_of: datetime) -> list[Ratio]:
    """What was spent of the lines that name a channel ÷ users who came through it; in minor units of money."""
    span, people = _spans(tx, periods), _new_users(as_of)
    came = [people.c.day >= span.c.opens, people.c.day < span.c.closes]
    if channel_id is not None:
        came.append(people.c.channel_id.in_(channels_below(sa.literal(channel_id, sources.c.channel_id.type))))
    count = sa.select(sa.func.count()).select_from(people).where(*came).correlate(span).scalar_subquery()
    said = sa.select(whole(_cost(span, channel_id, as_of)).label("cost"), count.label("came")).select_from(span)
    return [Ratio(max(row.cost, 0), row.came) for row in tx.rows(said.order_by(span.c.n))]


def organic_share(tx: Tx, periods: Sequence[Period], channel_id: uuid.UUID | None, as_of: datetime) -> list[Ratio]:
    """New users who came through no channel that a budget of their first day pays for ÷ new users."""
    span, people = _spans(tx, periods), _new_users(as_of)
    came = [people.c.day >= span.c.opens, people.c.day < span.c.closes]
    if channel_id is not None:
        came.append(people.c.channel_id.in_(channels_below(sa.literal(channel_id, sources.c.channel_id.type))))
    paying = sources.join(lines, lines.c.id == sources.c.line_id).join(budgets, budgets.c.id == lines.c.budget_id)
    then_paid = (budgets.c.opens_on <= people.c.day, budgets.c.ends_on > people.c.day)
    below = people.c.channel_id.in_(channels_below(sources.c.channel_id))
    paid = sa.exists().select_from(paying).where(sources.c.channel_id.is_not(None), *then_paid, below).correlate(people)
    organic, count = (
        sa.select(sa.func.count()).select_from(people).where(*came, *more).correlate(span).scalar_subquery()
        for more in ((sa.not_(paid),), ())
    )
    rows = tx.rows(sa.select(organic.label("organic"), count.label("came")).select_from(span).order_by(span.c.n))
    return [Ratio(row.organic, row.came) for row in rows]


INDICATORS = (
    Indicator(
        "budget_use",
        "Budget use",
        IndicatorUnit.RATE,
        "spent by the end of the period ÷ what the budgets of its last day have, without what they carried over",
        use,
    ),
    Indicator(
        "budget_pace",
        "Budget pace",
        IndicatorUnit.MULTIPLE,
        "spent by the end of the period ÷ what would be spent by then at an even pace; 1 is even",
        pace,
    ),
    Indicator(
        "budget_roi",
        "Return on budgets",
        IndicatorUnit.MULTIPLE,
        "revenue whose last touch was a channel or campaign of a line ÷ what was spent, in the period",
        roi,
        True,
    ),
    Indicator(
        "acquisition_cost",
        "Acquisition cost",
        IndicatorUnit.MONEY,
        "what was spent in the period ÷ new users, of the lines that name the channel and those who came through it; minor units",
        acquisition_cost,
        False,
    ),
    Indicator(
        "organic_share",
        "Organic share of new users",
        IndicatorUnit.RATE,
        "new users who came through no channel that a budget of their first day names ÷ new users (自然拉新率)",
        organic_share,
        True,
    ),
)
