"""The indicator 沉默唤醒率: how many of the silent were woken."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import Id, Indicator, IndicatorUnit, Period, Ratio, Tx, channels_below, events, row_set

from .scores import INTERACTIONS, PAID

SILENT_DAYS = 30


def wake_rate(tx: Tx, periods: Sequence[Period], channel_id: uuid.UUID | None, as_of: datetime) -> list[Ratio]:
    """People who were silent when the period began and were active in it ÷ people who were silent when it began; one statement.

    Who is known and neither interacted nor bought in the 30 days before is silent.
    """
    if not periods:
        return []
    rows = [{"n": n, "silent": _before(p.start), "opens": p.start, "closes": p.end} for n, p in enumerate(periods)]
    kinds: dict[str, Any] = {"n": sa.Integer(), "silent": sa.Date(), "opens": sa.Date(), "closes": sa.Date()}
    span = row_set(tx, "period", kinds, rows)
    seen = [events.c.user_id.is_not(None), events.c.occurred_at <= as_of]
    if channel_id is not None:
        seen.append(events.c.channel_id.in_(channels_below(sa.literal(channel_id, Id))))
    first = sa.select(events.c.user_id, sa.func.min(events.c.business_date).label("day")).where(*seen)
    known = first.group_by(events.c.user_id).cte("known")
    acted = events.c.type.in_((PAID, *INTERACTIONS))
    days = sa.select(events.c.user_id, events.c.business_date.label("day")).where(*seen, acted).distinct().subquery("days")
    before = sa.func.lag(days.c.day).over(partition_by=days.c.user_id, order_by=days.c.day).label("before")
    active = sa.select(days, before).cte("active")
    quiet = sa.or_(active.c.before.is_(None), active.c.before < span.c.silent)
    within = (active.c.day >= span.c.opens, active.c.day < span.c.closes)
    woken = _count(active.join(known, known.c.user_id == active.c.user_id), span, *within, quiet, known.c.day < span.c.opens)
    lately = (active.c.day >= span.c.silent, active.c.day < span.c.opens)
    awake = sa.select(sa.func.count(sa.distinct(active.c.user_id))).where(*lately).correlate(span).scalar_subquery()
    silent = _count(known, span, known.c.day < span.c.opens) - awake
    found = tx.rows(sa.select(woken.label("woken"), silent.label("silent")).select_from(span).order_by(span.c.n))
    return [Ratio(int(row.woken), int(row.silent)) for row in found]


def _count(source: sa.FromClause, span: sa.FromClause, *conditions: Any) -> sa.ColumnElement[int]:
    return sa.select(sa.func.count()).select_from(source).where(*conditions).correlate(span).scalar_subquery()


def _before(day: date) -> date:
    return date.min if day - date.min < timedelta(days=SILENT_DAYS) else day - timedelta(days=SILENT_DAYS)


WAKE_RATE = Indicator(
    "wake_rate",
    "Wake rate 沉默唤醒率",
    IndicatorUnit.RATE,
    "people who were silent at the start and active in the period ÷ people who were silent at the start; silent is who is known "
    "and neither interacted nor bought in the 30 days before",
    wake_rate,
    True,
)
