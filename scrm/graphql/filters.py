"""Filters and orders of a list, as SQL. A comparison with a missing value is false, never unknown, so `not` means what it
says."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.sql import operators as sql_operators
from sqlalchemy.sql.elements import ColumnElement, UnaryExpression

from scrm.db import Text
from scrm.errors import ScrmError
from scrm.graphql.encoding import key_kind
from scrm.graphql.model import BoundInput, Model
from scrm.graphql.scalars import Direction
from scrm.graphql.sources import CombineSource, OperatorSource, OrderingSource, WhereSource
from scrm.sql import AnyRow, Row, Value, member, position_of

Permit = Callable[[str | None, str, bool], None]
"""Raises unless the caller has the scope, and `pii:read` where the last is true; the second names the field."""


def operators(expression: ColumnElement[Any], given: Mapping[str, Any]) -> ColumnElement[bool]:
    """Every operator of a StringFilter, IntFilter, DateTimeFilter or DateFilter that was given, on one expression."""
    return sa.and_(sa.true(), *(_operator(expression, name, value) for name, value in given.items()))


def _operator(expression: ColumnElement[Any], name: str, value: Any) -> ColumnElement[bool]:
    if name == "is_null":
        return sa.true() if value is None else expression.is_(None) if value else expression.is_not(None)
    if value is None:
        if name in ("eq", "ne"):
            return expression.is_(None) if name == "eq" else expression.is_not(None)
        raise ScrmError("INVALID_FILTER", f"the operator {name!r} takes no null; leave it out, or use isNull", path=("filter",))
    if name == "ne":
        return sa.or_(expression != value, expression.is_(None))
    if name == "not_in":
        return sa.or_(sa.not_(member(expression, value)), expression.is_(None))
    return sa.and_(expression.is_not(None), _PLAIN[name](expression, value))


_PLAIN: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "eq": lambda left, right: left == right,
    "gt": lambda left, right: left > right,
    "gte": lambda left, right: left >= right,
    "lt": lambda left, right: left < right,
    "lte": lambda left, right: left <= right,
    "in_": member,
    "contains": lambda left, right: position_of(right, left) > 0,
    "starts_with": lambda left, right: position_of(right, left) == 1,
}


_MEMBERS = 32


class Filters:
    """Turns a filter input into a condition on a row."""

    def __init__(self, model: Model, permit: Permit, pii: bool) -> None:
        self.model = model
        self._permit = permit
        self._pii = pii

    def condition(self, row: AnyRow, given: Any) -> ColumnElement[bool]:
        """All of the fields that were given must hold."""
        inputs = {bound.python_name: bound for bound in self.model.inputs[given.type_name].values()}
        return sa.and_(sa.true(), *(self._field(row, inputs[name], value) for name, value in given.items()))

    def _field(self, row: AnyRow, bound: BoundInput, value: Any) -> ColumnElement[bool]:
        source = bound.source
        if isinstance(source, CombineSource):
            return sa.true() if value is None else self._combine(row, source.how, value)
        personal = bool(getattr(source, "personal", False))
        self._permit(bound.scope, f"filter {bound.name}", personal)
        if value is None:
            return sa.true()
        if isinstance(source, OperatorSource):
            return operators(source.build(row), value)
        assert isinstance(source, WhereSource)
        if source.personal_keys and not self._pii:
            _guard_keys(value, self.model.personal_keys.get(source.personal_keys, frozenset()))
        return sa.func.coalesce(source.build(row, value), sa.false())

    def _combine(self, row: AnyRow, how: str, values: Sequence[Any]) -> ColumnElement[bool]:
        parts = [sa.func.coalesce(self.condition(row, value), sa.false()) for value in values]
        if how == "or":
            return sa.or_(sa.false(), *_grouped(sa.or_, parts))
        return sa.and_(sa.true(), *_grouped(sa.and_, parts if how == "and" else [sa.not_(part) for part in parts]))

    def says_nothing(self, given: Any) -> bool:
        """Whether a filter leaves out nobody because it names nothing: no field, null everywhere, or such filters combined."""
        inputs = {bound.python_name: bound for bound in self.model.inputs[given.type_name].values()}
        return all(self._nothing(inputs[name].source, value) for name, value in given.items())

    def _nothing(self, source: Any, value: Any) -> bool:
        if value is None:
            return True
        if isinstance(source, CombineSource):
            return all(self.says_nothing(each) for each in value)
        return isinstance(source, OperatorSource) and all(name == "is_null" and said is None for name, said in value.items())


def _grouped(combine: Callable[..., ColumnElement[bool]], parts: Sequence[ColumnElement[bool]]) -> list[ColumnElement[bool]]:
    """The same conditions, many of them a few together: SQLite nests one level for each member of a long `and` or `or`, and has
    a limit. They are never unknown, so `coalesce` changes nothing but that they stay together."""
    if len(parts) <= _MEMBERS:
        return list(parts)
    size = -(-len(parts) // _MEMBERS)
    chunks = [parts[start : start + size] for start in range(0, len(parts), size)]
    return [sa.func.coalesce(combine(*_grouped(combine, chunk)), sa.false()) for chunk in chunks]


def _guard_keys(value: Any, personal: frozenset[str]) -> None:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            for name, part in item.items():
                if name == "key" and isinstance(part, Value):
                    item[name] = part.converted("key", Text, lambda key, _: _checked_key(key, personal))
                elif isinstance(part, list | dict):
                    _guard_keys(part, personal)


def _checked_key(key: str, personal: frozenset[str]) -> str:
    if key in personal:
        raise ScrmError("FORBIDDEN", f"filtering on the personal key {key!r} needs the scope pii:read")
    return key


@dataclass(frozen=True, slots=True)
class OrderKey:
    """One key of an order. Its name and direction are what a cursor knows it by."""

    name: str
    expression: ColumnElement[Any]
    descending: bool
    nullable: bool


def order_keys(
    model: Model, permit: Permit, row: Row, table: Any, default: Sequence[Any], given: Sequence[Any] | None
) -> list[OrderKey]:
    """The keys a list is sorted by: the caller's or the default's, then the primary key so that no two rows tie."""
    keys = [_given_key(model, permit, row, item) for item in given or ()] or [_default_key(row, item) for item in default]
    descending = keys[-1].descending if keys else True
    named = {str(key.expression) for key in keys}
    for column in getattr(table, "primary_key", ()):
        expression = row.c[column.name]
        if str(expression) not in named:
            keys.append(OrderKey(column.name, expression, descending, False))
    return keys


def _given_key(model: Model, permit: Permit, row: Row, item: Any) -> OrderKey:
    named = [(name, direction) for name, direction in item.items() if direction is not None]
    if len(named) != 1:
        raise ScrmError("INVALID_ORDER", f"each orderBy names exactly one field; got {len(named)}", path=("orderBy",))
    name, direction = named[0]
    bound = next(each for each in model.inputs[item.type_name].values() if each.python_name == name)
    source = bound.source
    assert isinstance(source, OrderingSource)
    permit(bound.scope, f"orderBy {bound.name}", source.personal)
    return OrderKey(bound.name, source.build(row), direction is Direction.DESC, source.nullable)


_MODIFIERS = (sql_operators.desc_op, sql_operators.asc_op, sql_operators.nulls_first_op, sql_operators.nulls_last_op)
"""Nulls come last whatever an order says of them."""


def _default_key(row: Row, item: Any) -> OrderKey:
    descending, column = False, item
    while isinstance(column, UnaryExpression) and column.modifier in _MODIFIERS:
        descending = descending or column.modifier is sql_operators.desc_op
        column = column.element
    nullable = bool(getattr(column, "nullable", True))
    return OrderKey(getattr(column, "name", None) or str(column), row.adapt(column), descending, nullable)


def order_by(keys: Sequence[OrderKey], *, backward: bool) -> list[Any]:
    """The ORDER BY; backward is the exact reverse, nulls first."""
    clauses = []
    for key in keys:
        clause = key.expression.desc() if key.descending != backward else key.expression.asc()
        if key.nullable:
            clause = clause.nulls_first() if backward else clause.nulls_last()
        clauses.append(clause)
    return clauses


OTHER_CURSOR = "the cursor is not one of this list in this order; use the endCursor of its last page"


def mark_of(place: str, keys: Sequence[OrderKey]) -> str:
    """What the cursors of one list in one order begin with, so that another's are known to be another's."""
    said = [place, *(f"{key.name}{'-' if key.descending else '+'}" for key in keys)]
    return f"{zlib.crc32(' '.join(said).encode()):08x}"


def beyond(keys: Sequence[OrderKey], cursor: Value, mark: str, *, backward: bool) -> ColumnElement[bool]:
    """The rows after a cursor in this order, or before it."""
    values = [_cursor_value(cursor, index, mark, len(keys), key) for index, key in enumerate(keys)]
    if not any(key.nullable for key in keys) and len({key.descending for key in keys}) == 1:
        left, right = sa.tuple_(*(key.expression for key in keys)), sa.tuple_(*values)
        return left < right if keys[0].descending != backward else left > right
    options = []
    for index, key in enumerate(keys):
        same = [_same(keys[before], values[before]) for before in range(index)]
        options.append(sa.and_(*same, _past(key, values[index], backward)))
    return sa.or_(*options)


def _same(key: OrderKey, value: Value) -> ColumnElement[bool]:
    equal = key.expression == value
    return sa.or_(equal, sa.and_(key.expression.is_(None), value.is_(None))) if key.nullable else equal


def _past(key: OrderKey, value: Value, backward: bool) -> ColumnElement[bool]:
    past = key.expression < value if key.descending != backward else key.expression > value
    if not key.nullable:
        return past
    if backward:
        return sa.or_(past, sa.and_(value.is_(None), key.expression.is_not(None)))
    return sa.or_(past, sa.and_(value.is_not(None), key.expression.is_(None)))


def _cursor_value(cursor: Value, index: int, mark: str, count: int, key: OrderKey) -> Value:
    kind = key_kind(key.expression)

    def read(text: str) -> Any:
        said = read_cursor(text, mark, count)[index]
        return said if kind == "text" else _READ[kind](said)

    return cursor.converted(f"k{index}", key.expression.type, _coded(read))


def _coded(read: Callable[[str], Any]) -> Callable[[str, Any], Any]:
    def convert(text: str, _moment: Any) -> Any:
        try:
            return read(text)
        except (ValueError, TypeError, OverflowError, ArithmeticError):
            raise ScrmError("INVALID_CURSOR", OTHER_CURSOR) from None

    return convert


def read_cursor(text: str, mark: str, count: int) -> list[Any]:
    """The order keys of a cursor and the instant of its first page, as text.

    Raises:
        ValueError: it is of another list or another order, or has another shape.
    """
    parts = orjson.loads(text)
    if not isinstance(parts, list) or len(parts) != count + 2 or not all(part is None or isinstance(part, str) for part in parts):
        raise ValueError(text)
    if parts[0] != mark:
        raise ValueError(text)
    return parts[1:]


def _read_int(text: str | None) -> int | None:
    return None if text is None else int(text)


def _instant(text: str | None) -> Any:
    return None if text is None else _aware(text)


def _aware(text: str) -> Any:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(text)
    return instant


_READ: dict[str, Callable[[Any], Any]] = {
    "instant": _instant,
    "int": _read_int,
    "bool": lambda text: None if text is None else bool(int(text)),
    "float": lambda text: None if text is None else float(text),
    "decimal": lambda text: None if text is None else Decimal(text),
    "date": lambda text: None if text is None else date.fromisoformat(text),
    "id": lambda text: None if text is None else UUID(hex=text),
}
