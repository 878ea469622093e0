"""Rules by which a tag comes and goes: so many matching events within so many days.

    {"eventType": "page.viewed", "filter": [{"key": "page", "startsWith": "/p/"}], "sameProperty": "category",
     "count": 3, "withinDays": 7}

`eventType` may be a list. Every condition of `filter` must hold. With `sameProperty` only events that agree in that property
count together. "Within 7 days" are the dates in (asOf - 7 days, asOf].
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from scrm.conditions import Condition, invalid, parse_conditions
from scrm.db import Tx
from scrm.errors import ScrmError
from scrm.events.log import change_event_types
from scrm.events.models import event_types, events
from scrm.sql import json_text
from scrm.text import check_text

MAX_COUNT = 10_000
MAX_DAYS = 3_660

_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_KEYS = frozenset({"eventType", "filter", "sameProperty", "count", "withinDays"})
_CORE_CHANGES = frozenset(known.name for known in change_event_types)


@dataclass(frozen=True, slots=True)
class TagRule:
    """A rule that has been checked."""

    types: tuple[str, ...]
    conditions: tuple[Condition, ...]
    same_property: str | None
    count: int
    days: int


def check_rule(tx: Tx, rule: Any) -> TagRule:
    """The rule behind the JSON.

    Raises:
        ScrmError: `INVALID_RULE`; `PERSONAL_PROPERTY` where it looks at a property about a person.
    """
    parsed = parse_rule(rule)
    said = {condition.key for condition in parsed.conditions} | ({parsed.same_property} if parsed.same_property else set())
    known = tx.rows(sa.select(event_types.c.type, event_types.c.personal).where(event_types.c.type.in_(parsed.types)))
    for row in known:
        for key in sorted(said.intersection(row.personal)):
            message = f'the property "{key}" of {row.type} is personal; a rule may not look at it'
            raise ScrmError("PERSONAL_PROPERTY", message, path=("rule", "filter"), params={"key": key, "type": row.type})
    return parsed


def parse_rule(rule: Any) -> TagRule:
    """As `check_rule`, without looking at what is registered: for rules that were checked when they were saved."""
    if not isinstance(rule, Mapping):
        raise _invalid((), "is not a JSON object")
    for key in rule:
        if key not in _KEYS:
            raise _invalid((str(key),), f"is unknown; a rule has {', '.join(sorted(_KEYS))}")
    conditions = rule["filter"] if rule.get("filter") is not None else []
    same = rule.get("sameProperty")
    if same is not None and (not isinstance(same, str) or not same):
        raise _invalid(("sameProperty",), "is not the name of a property")
    return TagRule(
        types=_types(rule.get("eventType")),
        conditions=parse_conditions(conditions, ("rule", "filter")),
        same_property=check_text(same, ("rule", "sameProperty")) if same is not None else None,
        count=_number(rule, "count", MAX_COUNT),
        days=_number(rule, "withinDays", MAX_DAYS),
    )


def _types(said: Any) -> tuple[str, ...]:
    names = [said] if isinstance(said, str) else said
    if not isinstance(names, list) or not 1 <= len(names) <= 20:
        raise _invalid(("eventType",), "is not an event type or a list of 1 to 20")
    for name in names:
        if not isinstance(name, str) or not _TYPE.fullmatch(name):
            raise _invalid(("eventType",), f'holds "{name}"; an event type looks like page.viewed')
        if name in _CORE_CHANGES:
            raise _invalid(("eventType",), f"holds {name}, a change that core records itself; name what people do")
    return tuple(dict.fromkeys(names))


def _number(rule: Mapping[str, Any], key: str, limit: int) -> int:
    value = rule.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
        raise _invalid((key,), f"is {value!r}; expected a whole number from 1 to {limit}")
    return value


def _invalid(path: Sequence[str], said: str) -> ScrmError:
    return invalid(("rule", *path), said)


# ---- computing


def latest_dates(
    tx: Tx,
    rule: TagRule,
    *,
    on: date,
    users: Collection[uuid.UUID] | None = None,
    position: int | None = None,
    until: datetime | None = None,
) -> dict[uuid.UUID, date]:
    """The users whom the rule fits on that business day, each with the day of the event that holds the count up: the n-th newest.

    Only events up to `position` of the log, and up to `until`, are looked at.
    """
    own = events.c
    key = json_text(own.properties, sa.literal(rule.same_property)) if rule.same_property is not None else None
    first = on - timedelta(days=rule.days)
    near = datetime.combine(first, time(), UTC) - timedelta(days=1)
    wanted = [own.type.in_(rule.types), own.user_id.is_not(None), own.business_date > first, own.occurred_at >= near]
    wanted += [condition.sql(own.properties) for condition in rule.conditions]
    if key is not None:
        wanted.append(key.is_not(None))
    if users is not None:
        wanted.append(own.user_id.in_(users))
    if position is not None:
        wanted.append(own.position <= position)
    if until is not None:
        wanted.append(own.occurred_at <= until)
    groups = [own.user_id] if key is None else [own.user_id, key]
    newest = (own.business_date.desc(), own.occurred_at.desc(), own.id.desc())
    place = sa.func.row_number().over(partition_by=groups, order_by=newest).label("place")
    ranked = sa.select(own.user_id, own.business_date, place).where(*wanted).subquery()
    statement = sa.select(ranked.c.user_id, sa.func.max(ranked.c.business_date, type_=sa.Date()).label("day"))
    statement = statement.where(ranked.c.place == rule.count).group_by(ranked.c.user_id)
    return {row.user_id: row.day for row in tx.rows(statement)}


def ends_at(day: date, rule: TagRule, zone: ZoneInfo) -> datetime:
    """The local midnight at which the event of that day leaves the window."""
    return datetime.combine(day + timedelta(days=rule.days), time(), zone).astimezone(UTC)
