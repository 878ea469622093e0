"""Rules by which a tag comes and goes: so many matching events within so many days.

    {"eventType": "page.viewed", "filter": [{"key": "page", "startsWith": "/p/"}], "sameProperty": "category",
     "count": 3, "withinDays": 7}

`eventType` may be a list. Every condition of `filter` must hold. With `sameProperty` only events that agree in that property
count together. "Within 7 days" are the dates in (asOf - 7 days, asOf].
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from scrm.db import Tx
from scrm.errors import ScrmError
from scrm.events.log import change_event_types
from scrm.events.models import event_types, events
from scrm.sql import json_kind, json_text, position_of
from scrm.text import check_text

MAX_COUNT = 10_000
MAX_DAYS = 3_660

_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_KEYS = frozenset({"eventType", "filter", "sameProperty", "count", "withinDays"})
_OPERATORS = frozenset({"eq", "ne", "in", "notIn", "gt", "gte", "lt", "lte", "contains", "startsWith", "exists"})
_CORE_CHANGES = frozenset(known.name for known in change_event_types)


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of one property."""

    key: str
    operator: str
    value: Any


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
    if not isinstance(conditions, list) or len(conditions) > 20:
        raise _invalid(("filter",), "is not a list of at most 20 conditions")
    same = rule.get("sameProperty")
    if same is not None and (not isinstance(same, str) or not same):
        raise _invalid(("sameProperty",), "is not the name of a property")
    return TagRule(
        types=_types(rule.get("eventType")),
        conditions=tuple(test for n, item in enumerate(conditions) for test in _conditions(item, ("filter", str(n)))),
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


def _conditions(item: Any, path: tuple[str, ...]) -> list[Condition]:
    if not isinstance(item, Mapping) or not isinstance(item.get("key"), str) or not item["key"]:
        raise _invalid(path, 'is not a condition as {"key": "category", "eq": "shoes"}')
    tests = [name for name in item if name != "key"]
    unknown = next((name for name in tests if name not in _OPERATORS), None)
    if unknown is not None or not tests:
        raise _invalid((*path, unknown or "key"), f"has no known operator; use {', '.join(sorted(_OPERATORS))}")
    key = check_text(item["key"], ("rule", *path, "key"))
    for name in tests:
        _check_value(name, item[name], (*path, name))
    return [Condition(key, name, item[name]) for name in tests]


def _check_value(operator: str, value: Any, path: tuple[str, ...]) -> None:
    def scalar(one: Any) -> bool:
        return isinstance(one, str | bool | int) or (isinstance(one, float) and math.isfinite(one))

    if operator in ("in", "notIn"):
        fits, expected = (
            isinstance(value, list) and 1 <= len(value) <= 200 and all(map(scalar, value)),
            "a list of 1 to 200 values",
        )
    elif operator == "exists":
        fits, expected = isinstance(value, bool), "true or false"
    elif operator in ("contains", "startsWith"):
        fits, expected = isinstance(value, str), "text"
    elif operator in ("eq", "ne"):
        fits, expected = scalar(value), "text, a number, true or false"
    else:
        fits, expected = scalar(value) and not isinstance(value, str | bool), "a number"
    if not fits:
        raise _invalid(path, f"is {value!r}; expected {expected}")
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str):
            check_text(text, ("rule", *path))


def _invalid(path: Sequence[str], said: str) -> ScrmError:
    full = ("rule", *path)
    return ScrmError("INVALID_RULE", f"{'.'.join(full)} {said}", path=full)


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
    wanted += [_test(condition) for condition in rule.conditions]
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


def _test(condition: Condition) -> sa.ColumnElement[bool]:
    value, operator = condition.value, condition.operator
    text = json_text(events.c.properties, sa.literal(condition.key))
    kind = json_kind(events.c.properties, sa.literal(condition.key))
    if operator == "exists":
        return text.is_not(None) if value else text.is_(None)
    if operator == "contains":
        return sa.and_(kind == "string", position_of(sa.literal(value), text) > 0)
    if operator == "startsWith":
        return sa.and_(kind == "string", position_of(sa.literal(value), text) == 1)
    if operator in ("in", "notIn"):
        among = sa.or_(*(_equal(kind, text, one) for one in value))
        return among if operator == "in" else sa.and_(text.is_not(None), ~among)
    if operator in ("eq", "ne"):
        same = _equal(kind, text, value)
        return same if operator == "eq" else sa.and_(text.is_not(None), ~same)
    number: sa.ColumnElement[Any] = sa.cast(text, sa.Double())
    bound: sa.ColumnElement[Any] = sa.literal(float(value), sa.Double())
    compared = {"gt": number > bound, "gte": number >= bound, "lt": number < bound, "lte": number <= bound}[operator]
    return sa.case((kind == "number", compared), else_=sa.false())


def _equal(kind: sa.ColumnElement[str], text: sa.ColumnElement[str], value: Any) -> sa.ColumnElement[bool]:
    if isinstance(value, bool):
        return sa.and_(kind == "boolean", text == ("true" if value else "false"))
    if isinstance(value, str):
        return sa.and_(kind == "string", text == value)
    same = sa.cast(text, sa.Double()) == sa.literal(float(value), sa.Double())
    return sa.case((kind == "number", same), else_=sa.false())
