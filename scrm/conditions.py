"""Conditions on the properties of an event: `[{"key": "category", "eq": "shoes"}]`, all of which must hold.

The same words mean the same in SQL, over the log, and in Python, on one event. A property that is absent, or null, fits no
operator but `exists: false`; values of another kind than the operator's never fit.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from scrm.errors import ScrmError
from scrm.sql import json_kind, json_text, position_of
from scrm.text import check_text

LARGEST = 20
"""Conditions in one filter."""

_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
OPERATORS = frozenset({"eq", "ne", "in", "notIn", "contains", "startsWith", "exists", *_COMPARE})


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of one property."""

    key: str
    operator: str
    value: Any

    def sql(self, properties: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """The test on a column of properties."""
        value, name = self.value, self.operator
        text = json_text(properties, sa.literal(self.key))
        kind = json_kind(properties, sa.literal(self.key))
        if name == "exists":
            return text.is_not(None) if value else text.is_(None)
        if name == "contains":
            return sa.and_(kind == "string", position_of(sa.literal(value), text) > 0)
        if name == "startsWith":
            return sa.and_(kind == "string", position_of(sa.literal(value), text) == 1)
        if name in ("in", "notIn"):
            among = sa.or_(*(_equal(kind, text, one) for one in value))
            return among if name == "in" else sa.and_(text.is_not(None), ~among)
        if name in ("eq", "ne"):
            same = _equal(kind, text, value)
            return same if name == "eq" else sa.and_(text.is_not(None), ~same)
        number: sa.ColumnElement[Any] = sa.cast(text, sa.Double())
        compared = _COMPARE[name](number, sa.literal(float(value), sa.Double()))
        return sa.case((kind == "number", compared), else_=sa.false())

    def fits(self, properties: Mapping[str, Any]) -> bool:
        """The test on the properties of one event."""
        value, name, found = self.value, self.operator, properties.get(self.key)
        if name == "exists":
            return (found is not None) == bool(value)
        if found is None:
            return False
        if name in ("contains", "startsWith"):
            return isinstance(found, str) and (value in found if name == "contains" else found.startswith(value))
        if name in ("in", "notIn"):
            return any(_same(found, one) for one in value) == (name == "in")
        if name in ("eq", "ne"):
            return _same(found, value) == (name == "eq")
        return _is_number(found) and bool(_COMPARE[name](_double(found), _double(value)))

    @property
    def said(self) -> dict[str, Any]:
        """As it was written."""
        return {"key": self.key, self.operator: self.value}


class PropertyFilter(tuple[Condition, ...]):
    """Conditions that must all hold, as a field of a plugin's rules: `filter: PropertyFilter = PropertyFilter()`. There,
    `{"category": "shoes"}` is short for `[{"key": "category", "eq": "shoes"}]`."""

    __slots__ = ()

    def fits(self, properties: Mapping[str, Any]) -> bool:
        """Whether all conditions hold for the properties of an event."""
        return all(condition.fits(properties) for condition in self)

    def sql(self, properties: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
        """The same over a column of properties."""
        return sa.and_(sa.true(), *(condition.sql(properties) for condition in self))

    @property
    def keys(self) -> frozenset[str]:
        """The properties that it looks at."""
        return frozenset(condition.key for condition in self)

    @property
    def never(self) -> str | None:
        """Why no event can fit, where two of its conditions say so."""
        for first in self:
            for other in self:
                if first is not other and first.key == other.key and _exclude(first, other):
                    return f"{first.key} cannot be {_words(first)} and {_words(other)}"
        return None

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(said: Any) -> PropertyFilter:
            if isinstance(said, PropertyFilter):
                return said
            if isinstance(said, Mapping) and "key" not in said:
                said = [{"key": key, "eq": value} for key, value in said.items()]
            try:
                return cls(parse_conditions(said))
            except ScrmError as error:
                raise ValueError(str(error)) from None

        def write(said: PropertyFilter) -> list[dict[str, Any]]:
            return [condition.said for condition in said]

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(write)
        )


def parse_conditions(said: Any, path: tuple[str, ...] = ("filter",)) -> tuple[Condition, ...]:
    """The conditions behind the JSON.

    Raises:
        ScrmError: `INVALID_RULE`, with the place under `path`.
    """
    if not isinstance(said, list | tuple) or len(said) > LARGEST:
        raise invalid(path, f"is not a list of at most {LARGEST} conditions")
    return tuple(test for n, item in enumerate(said) for test in _conditions(item, (*path, str(n))))


def invalid(path: Sequence[str], said: str) -> ScrmError:
    """A rule has something wrong at a place."""
    return ScrmError("INVALID_RULE", f"{'.'.join(path)} {said}", path=tuple(path))


def _conditions(item: Any, path: tuple[str, ...]) -> Iterable[Condition]:
    if not isinstance(item, Mapping) or not isinstance(item.get("key"), str) or not item["key"]:
        raise invalid(path, 'is not a condition as {"key": "category", "eq": "shoes"}')
    tests = [name for name in item if name != "key"]
    unknown = next((name for name in tests if name not in OPERATORS), None)
    if unknown is not None or not tests:
        raise invalid((*path, unknown or "key"), f"has no known operator; use {', '.join(sorted(OPERATORS))}")
    key = check_text(item["key"], (*path, "key"))
    for name in tests:
        _check_value(name, item[name], (*path, name))
    return [Condition(key, name, item[name]) for name in tests]


def _check_value(name: str, value: Any, path: tuple[str, ...]) -> None:
    def scalar(one: Any) -> bool:
        return isinstance(one, str | bool | int) or (isinstance(one, float) and math.isfinite(one))

    fits, expected = scalar(value) and not isinstance(value, str | bool), "a number"
    if name in ("in", "notIn"):
        fits, expected = isinstance(value, list) and 1 <= len(value) <= 200 and all(map(scalar, value)), "a list of 1 to 200"
    elif name == "exists":
        fits, expected = isinstance(value, bool), "true or false"
    elif name in ("contains", "startsWith"):
        fits, expected = isinstance(value, str), "text"
    elif name in ("eq", "ne"):
        fits, expected = scalar(value), "text, a number, true or false"
    if not fits:
        raise invalid(path, f"is {value!r}; expected {expected}")
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str):
            check_text(text, path)


def _equal(kind: sa.ColumnElement[str], text: sa.ColumnElement[str], value: Any) -> sa.ColumnElement[bool]:
    if isinstance(value, bool):
        return sa.and_(kind == "boolean", text == ("true" if value else "false"))
    if isinstance(value, str):
        return sa.and_(kind == "string", text == value)
    same = sa.cast(text, sa.Double()) == sa.literal(float(value), sa.Double())
    return sa.case((kind == "number", same), else_=sa.false())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _double(value: float) -> float:
    """As databases compute with it."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _same(found: Any, value: Any) -> bool:
    if isinstance(value, bool) or isinstance(found, bool):
        return found is value
    if isinstance(value, str):
        return isinstance(found, str) and found == value
    return _is_number(found) and _double(found) == _double(value)


def _exclude(first: Condition, other: Condition) -> bool:
    """Whether nothing can pass both tests of one property; some pairs that exclude each other are not seen."""
    if first.operator == "exists" and first.value is False:
        return other.operator != "exists" or other.value is True
    if first.operator == "eq":
        return other.operator != "exists" and not other.fits({first.key: first.value})
    if first.operator == "in":
        return other.operator != "exists" and not any(other.fits({first.key: one}) for one in first.value)
    if first.operator in ("gt", "gte") and other.operator in ("lt", "lte"):
        whole = first.operator == "gte" and other.operator == "lte"
        return bool(first.value > other.value or (first.value == other.value and not whole))
    return False


def _words(condition: Condition) -> str:
    return f"{condition.operator} {condition.value!r}"
