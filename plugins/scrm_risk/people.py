"""Rules about people: what each of them did within the last days."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from scrm.api import Id, LogEvent, among, global_id, json_text

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
PREFIX = "User_"


def feed_people(desk: Desk, key: str, rule: Rule, found: Found) -> set[tuple[str, str]]:
    """Everybody who is over the limit, and everybody who was."""
    open_ = {scope.user_id for place, scope in desk.scopes.items() if place[0] == key and scope.state in OPEN and scope.user_id}
    counted, more = count_people(desk, rule, sorted(open_), found.event)
    places = set()
    facts = {**found.facts(rule), "days": rule.days}
    day = desk.rules.day(desk.now)
    fresh = [user for user in counted if scope_place(key, user) not in desk.scopes]
    if fresh:
        wanted = [f"user:{global_id('User', user)}" for user in fresh]
        desk.load(scopes.c.rule_key == key, among(scopes.c.scope_key, wanted))
    for user, value in sorted(counted.items()):
        scope = desk.scope(key, {"user": global_id("User", user)}, user)
        places.add((key, scope.scope_key))
        point = Point(day, day + timedelta(days=1), value, None)
        judged = rule.condition.judge([point])
        reason = {**facts, "start": day.isoformat(), "streak": 1, **said_of(judged, point)}
        seen = Sample(day, judged.holds, 1 if judged.holds else 0)
        desk.feed(key, rule, scope, Reading(seen, Fraction(value), judged.limit, reason))
    if more:
        found.problems.append(f"{key}: more than {MOST} people are over the limit; alerts were opened for those with the most")
    return places


def scope_place(key: str, user: uuid.UUID) -> tuple[str, str]:
    """Where the scope of a rule about a person is found."""
    return key, f"user:{global_id('User', user)}"


def count_people(desk: Desk, rule: Rule, open_: Sequence[uuid.UUID], until: LogEvent) -> tuple[dict[uuid.UUID, int], bool]:
    """What those count who have an open alert, whatever it is, and of the others who are over the limit the `MOST` with the most;
    and whether there are more. Nobody who was erased."""
    each = _counted(desk, rule, open_, until)
    over = sa.select(each).where(each.c.value >= _least(rule.condition), sa.not_(among(each.c.holder, open_)))
    new = desk.tx.rows(over.order_by(each.c.value.desc(), each.c.holder).limit(MOST + 1))
    known = desk.tx.rows(sa.select(each).where(among(each.c.holder, open_))) if open_ else []
    return dict.fromkeys(open_, 0) | {row.holder: int(row.value) for row in [*known, *new[:MOST]]}, len(new) > MOST


def _counted(desk: Desk, rule: Rule, open_: Sequence[uuid.UUID], until: LogEvent) -> sa.Subquery:
    """What each person counts, `value`, by who the person is by then, `holder`."""
    measure = MEASURES[rule.indicator]
    day = desk.rules.day(desk.now)
    log = desk.tx.history([measure.type], until=until, since=desk.now - timedelta(days=rule.days + 2))
    whose = log.c.user_id if measure.whose is None else _named(json_text(log.c.properties, sa.literal(measure.whose)))
    within = (log.c.occurred_at <= desk.now, log.c.business_date > day - timedelta(days=rule.days), log.c.business_date <= day)
    amount = measure.amount(log.c)
    grouped = sa.select(whose.label("said"), amount.label("value")).where(whose.is_not(None), *within).group_by(whose)
    if measure.whose is None:  # the log says whose they are by then, so that each is over the limit alone
        grouped = grouped.having(sa.or_(amount >= _least(rule.condition), among(whose, open_)))
    counted = grouped.cte("counted").prefix_with("MATERIALIZED")
    became = _became(counted)
    total = sa.cast(sa.func.sum(counted.c.value), sa.BigInteger())
    joined = counted.join(became, became.c.said == counted.c.said)
    return sa.select(became.c.holder, total.label("value")).select_from(joined).group_by(became.c.holder).subquery("each")


def _became(counted: sa.CTE) -> sa.Subquery:
    """Who those who are counted are by now, by `said`; nobody who was erased. Only their own merges are looked up."""
    first = sa.select(counted.c.said, counted.c.said.label("holder"), sa.false().label("erased"))
    found = first.cte("became", recursive=True)
    onwards = sa.and_(people.c.user_id == found.c.holder, people.c.holder_id != people.c.user_id)
    step = sa.select(found.c.said, people.c.holder_id, people.c.erased).join(people, onwards)
    found = found.union(step.where(sa.not_(found.c.erased)))
    last = sa.and_(people.c.user_id == found.c.holder, people.c.holder_id != people.c.user_id)
    ends = sa.select(found.c.said, found.c.holder).select_from(found.outerjoin(people, last))
    return ends.where(people.c.user_id.is_(None), sa.not_(found.c.erased)).subquery("ends")


def _least(condition: Any) -> int:
    """The smallest whole number that is over the limit."""
    assert isinstance(condition, Threshold)
    bounds = [math.floor(condition.above) + 1] if condition.above is not None else []
    return max([*bounds, *([math.ceil(condition.at_least)] if condition.at_least is not None else [])])


def _named(text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The key of the user whose global id this is; null for another text."""
    start = len(PREFIX) + 1
    key = sa.func.substr(text, start)
    fits = sa.and_(sa.func.length(text) == len(PREFIX) + 32, sa.func.substr(text, 1, len(PREFIX)) == PREFIX)
    return sa.cast(sa.case((sa.and_(fits, sa.func.rtrim(key, "0123456789abcdef") == ""), key)), Id)
