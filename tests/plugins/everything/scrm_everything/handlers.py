"""What the log does to the tables, and what the clock and the dashboard ask for."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import (
    Announcement,
    Decision,
    Fact,
    HandlerTx,
    Indicator,
    IndicatorUnit,
    Job,
    LogEvent,
    NewFact,
    Period,
    Ratio,
    Tx,
    UserError,
    derive_id,
    insert_rows,
)

from .events import MARKED, NOTICED, PAID, REVIEWED, SPENT
from .models import marks, reviews
from .settings import EverythingRules


def mark(tx: HandlerTx, batch: Sequence[LogEvent], rules: EverythingRules) -> None:
    """A mark for each: of an order by the rules, else as heavy as the event says; one that was spent weighs less than nothing."""
    weights = {event.id: _weight(event, rules) for event in batch}
    insert_rows(tx, marks, [_row(event, weights[event.id], rules) for event in batch])
    for event in batch:
        if event.type == PAID:
            told = {"weight": weights[event.id]}
            tx.announce(Announcement(NOTICED, cause=event, user_id=event.user_id, properties=told))
            tx.send("greeting", {"user": event.user_id.hex if event.user_id else None, **told}, cause=event)


def _weight(event: LogEvent, rules: EverythingRules) -> int:
    if event.type == PAID:
        return rules.per_order
    said = int(event.properties["weight"])
    return -said if event.type == SPENT else said


def _row(event: LogEvent, weight: int, rules: EverythingRules) -> dict[str, Any]:
    return {
        "id": derive_id(event.id, "mark"),
        "owner_id": event.user_id,
        "weight": weight,
        "note": event.properties.get("whisper"),
        "day": event.occurred_at.astimezone(rules.zone).date(),
        "made_at": event.occurred_at,
    }


def review(tx: HandlerTx, batch: Sequence[LogEvent], rules: EverythingRules) -> None:
    """How many people had an order or a mark in the days until the review, read from the log."""
    for event in batch:
        log = tx.history([PAID, MARKED], until=event)
        people = tx.scalar(sa.select(sa.func.count(log.c.user_id.distinct())))
        day = event.occurred_at.astimezone(rules.zone).date() - timedelta(days=1)
        insert_rows(tx, reviews, [{"day": day, "people": people}])


def spend(tx: Tx, input: Mapping[str, Any], rules: EverythingRules, at: datetime) -> Fact | UserError:
    """Whether a person has marks of that weight to spend."""
    user, weight = uuid.UUID(input["user"]), int(input["weight"])
    have = sum(
        row.weight for row in tx.rows(sa.select(marks).where(marks.c.owner_id == user).order_by(marks.c.id).with_for_update())
    )
    if not 0 < weight <= have:
        message = f"marks of weight {weight} were to be spent; there are {have}"
        return UserError("NOT_ENOUGH_MARKS", message, ("weight",), {"have": have})
    return Fact(user, {"weight": weight})


def close_day(tx: Tx, due: datetime, rules: EverythingRules) -> Sequence[NewFact]:
    """Each night the day that ended is reviewed."""
    return [NewFact(REVIEWED, due.astimezone(rules.zone).date().isoformat(), {}, due)]


def weight_made(tx: Tx, periods: Sequence[Period], channel_id: uuid.UUID | None, as_of: datetime) -> Sequence[Ratio]:
    """Weight of the marks made in each period."""
    made = sa.select(sa.func.coalesce(sa.func.sum(marks.c.weight), 0)).where(marks.c.made_at <= as_of)
    return [Ratio(int(tx.scalar(made.where(marks.c.day >= one.start, marks.c.day < one.end)))) for one in periods]


NIGHTLY = Job("nightly", "5 0 * * *", close_day)
WEIGHT = Indicator(
    "everything_weight", "Weight of marks", IndicatorUnit.POINTS, "Sum of the weights of marks, by their day.", weight_made, True
)


SPEND = Decision("spendMarks", SPENT, spend)
