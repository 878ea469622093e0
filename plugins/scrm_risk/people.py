"""Rules about people: what each of them did within the last days."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from scrm.api import LogEvent, ScrmError, global_id, json_text, node_id

from .conditions import Point, Threshold, said_of
from .desk import Desk, Reading
from .machine import OPEN, Sample
from .measures import MEASURES
from .models import people, scopes
from .rules import Rule

if TYPE_CHECKING:
    from .evaluation import Found

MOST = 1_000
"""How many people one evaluation of one rule opens alerts for, those with the most first."""


def feed_people(desk: Desk, key: str, rule: Rule, found: Found) -> set[tuple[str, str]]:
    """Everybody who is over the limit, and everybody who was."""
    open_ = {scope.user_id for place, scope in desk.scopes.items() if place[0] == key and scope.state in OPEN and scope.user_id}
    counted = count_people(desk, rule, sorted(open_), found.event)
    places = set()
    facts = {**found.facts(rule), "days": rule.days}
    day = desk.rules.day(desk.now)
    fresh = [user for user in counted if scope_place(key, user) not in desk.scopes]
    if fresh:
        wanted = [f"user:{global_id('User', user)}" for user in fresh]
        desk.load(scopes.c.rule_key == key, scopes.c.scope_key.in_(wanted))
    for user, value in sorted(counted.items()):
        scope = desk.scope(key, {"user": global_id("User", user)}, user)
        places.add((key, scope.scope_key))
        point = Point(day, day + timedelta(days=1), value, None)
        judged = rule.condition.judge([point])
        reason = {**facts, "start": day.isoformat(), "streak": 1, **said_of(judged, point)}
        seen = Sample(day, judged.holds, 1 if judged.holds else 0)
        desk.feed(key, rule, scope, Reading(seen, Fraction(value), judged.limit, reason))
    if len(counted) - len(open_) >= MOST:
        found.problems.append(f"{key}: more than {MOST} people are over the limit; alerts were opened for those with the most")
    return places


def scope_place(key: str, user: uuid.UUID) -> tuple[str, str]:
    """Where the scope of a rule about a person is found."""
    return key, f"user:{global_id('User', user)}"


def count_people(desk: Desk, rule: Rule, open_: Sequence[uuid.UUID], until: LogEvent) -> dict[uuid.UUID, int]:
    """What those count who are over the limit, and those with an open alert, whatever it is; nobody who was erased."""
    known = {row.user_id: row for row in desk.tx.rows(sa.select(people))}
    counted = dict.fromkeys(open_, 0)
    for said, value in _counted(desk, rule, open_, until):
        user = said if isinstance(said, uuid.UUID) else _named(said)
        if user is None:
            continue
        holder = _holder(known, user)
        if holder is not None:
            counted[holder] = value
    return counted


def _counted(desk: Desk, rule: Rule, open_: Sequence[uuid.UUID], until: LogEvent) -> list[tuple[Any, int]]:
    measure, condition = MEASURES[rule.indicator], rule.condition
    assert isinstance(condition, Threshold)
    day = desk.rules.day(desk.now)
    log = desk.tx.history([measure.type], until=until, since=desk.now - timedelta(days=rule.days + 2))
    whose: Any = log.c.user_id if measure.whose is None else json_text(log.c.properties, sa.literal(measure.whose))
    amount = measure.amount(log.c)
    within = (log.c.occurred_at <= desk.now, log.c.business_date > day - timedelta(days=rule.days), log.c.business_date <= day)
    grouped = sa.select(whose.label("whose"), amount.label("value")).where(whose.is_not(None), *within).group_by(whose)
    over = grouped.having(amount >= _least(condition)).order_by(amount.desc(), whose).limit(MOST)
    rows = [*desk.tx.rows(over)]
    if open_:
        said: list[Any] = list(open_) if measure.whose is None else [global_id("User", user) for user in open_]
        rows += desk.tx.rows(grouped.where(whose.in_(said)))
    return [(row.whose, int(row.value)) for row in rows]


def _least(condition: Threshold) -> int:
    """The smallest whole number that is over the limit."""
    bounds = [math.floor(condition.above) + 1] if condition.above is not None else []
    return max([*bounds, *([math.ceil(condition.at_least)] if condition.at_least is not None else [])])


def _holder(known: Mapping[uuid.UUID, Any], user: uuid.UUID) -> uuid.UUID | None:
    """Who somebody is by now; None for who was erased."""
    while user in known and known[user].holder_id != user:
        if known[user].erased:
            return None
        user = known[user].holder_id
    return user


def _named(text: str) -> uuid.UUID | None:
    try:
        return node_id("User", text)
    except ScrmError:
        return None
