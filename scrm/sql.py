"""What a request says, as parts of a statement: parameters that know where in the variables they come from, and rows without
a FROM."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, tzinfo
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, ColumnElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import replacement_traverse

from scrm.db import Id, Instant, Json, Text, dumps


@dataclass(frozen=True, slots=True)
class Slot:
    """A leaf of the request: where it stands in the coerced variables, or the constant written in the document."""

    path: tuple[Any, ...] = ()
    constant: Any = None

    def read(self, variables: Mapping[str, Any]) -> Any:
        """The leaf's value in this request."""
        if not self.path:
            return _filled(self.constant, variables)
        value: Any = variables
        for step in self.path:
            value = value[step]
        return value


def _filled(constant: Any, variables: Mapping[str, Any]) -> Any:
    if isinstance(constant, Slot):
        return constant.read(variables)
    if isinstance(constant, list):
        return [_filled(item, variables) for item in constant]
    if isinstance(constant, dict):
        return {key: _filled(item, variables) for key, item in constant.items()}
    return constant


class _Comparison(BinaryExpression[Any]):
    """A comparison with a parameter: true or false only in the database."""

    inherit_cache = True
    __visit_name__ = "binary"

    def __bool__(self) -> bool:
        raise TypeError("a request's value is known to the database only; compare it in SQL, not in Python")


@dataclass(frozen=True, slots=True)
class Moment:
    """When a request is answered: the instant, the business currency, and the zone of business days."""

    now: datetime
    currency: str
    zone: tzinfo = UTC

    @property
    def today(self) -> date:
        """The business day that the instant falls on."""
        return self.now.astimezone(self.zone).date()

    def at(self, instant: datetime) -> Moment:
        """The same at another instant."""
        return replace(self, now=instant)


Convert = Callable[[Any, Moment], Any]
"""Turns what the caller gave into what the database is asked."""


class Value(BindParameter[Any]):
    """One parameter of a statement, filled from the request each time the plan runs."""

    inherit_cache = True
    __visit_name__ = "bindparam"
    slot: Slot
    convert: Convert | None

    @classmethod
    def make(cls, key: str, slot: Slot, type_: Any, convert: Convert | None = None) -> Value:
        """A parameter named `key`, read from `slot`, passed through `convert` on the way."""
        value = cls(key, None, type_=type_, unique=False, required=False)
        value.slot = slot
        value.convert = convert
        return value

    def converted(self, suffix: str, type_: Any, convert: Convert) -> Value:
        """The same leaf read another way: `convert(value, moment)`."""
        return Value.make(f"{self.key}_{suffix}", self.slot, type_, convert)

    def together(self, other: Value, suffix: str, type_: Any, convert: Convert) -> Value:
        """This leaf and another read as one, for what depends on both: `convert([value, other's value], moment)`."""
        return Value.make(f"{self.key}_{suffix}", Slot(constant=[self.slot, other.slot]), type_, convert)

    def operate(self, op: Any, *other: Any, **kwargs: Any) -> Any:
        result = super().operate(op, *other, **kwargs)
        if isinstance(result, BinaryExpression):
            result.__class__ = _Comparison
        return result

    def __bool__(self) -> bool:
        raise TypeError("a request's value is known to the database only; it has no truth in Python")

    def __hash__(self) -> int:
        return id(self)


def of_moment(name: str, type_: Any, convert: Callable[[Moment], Any]) -> Value:
    """A parameter that follows from the request's moment, such as the day a year before: `convert(moment)`. `name` is the
    parameter's in the statement, so begin it with the plugin's."""
    return Value.make(name, Slot(constant=True), type_, lambda _, moment: convert(moment))


NOW: BindParameter[datetime] = sa.bindparam("now", type_=Instant(), unique=False)
"""The request's one instant; on a further page, the first page's."""

TODAY: BindParameter[date] = sa.bindparam("today", type_=sa.Date(), unique=False)
"""The business day of `NOW`."""

CURRENCY: BindParameter[str] = sa.bindparam("currency", type_=sa.Text(), unique=False)
"""The business currency: amounts in another enter no sum."""

SELF: BindParameter[uuid.UUID] = sa.bindparam("self", type_=Id, unique=False)
"""The user that the caller's token names."""


class ListOf(sa.types.TypeDecorator[Any]):
    """A list as one parameter: an array on PostgreSQL, JSON on SQLite."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, item: Any) -> None:
        super().__init__()
        self.item = sa.types.to_instance(item)

    def load_dialect_impl(self, dialect: Any) -> Any:
        return dialect.type_descriptor(sa.ARRAY(self.item) if dialect.name == "postgresql" else sa.Text())

    def process_bind_param(self, value: Sequence[Any] | None, dialect: Any) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        process = self.item.dialect_impl(dialect).bind_processor(dialect)
        return dumps([process(item) if process else item for item in value])


class member(FunctionElement[bool]):
    """`member(column, list)`: the column's value is in the list, which is one parameter."""

    type = sa.Boolean()
    inherit_cache = True
    _is_implicitly_boolean = True  # else it is compared with 1 on SQLite, which reads the whole table then and no index


def among(column: ColumnElement[Any], values: Iterable[Any] | str) -> ColumnElement[bool]:
    """The column's value is one of these, which are one parameter however many there are: the text of the statement stays. In a
    statement that is kept, `values` is the name under which it is told a list each time."""
    kind = ListOf(column.type)
    return member(column, sa.bindparam(values, type_=kind) if isinstance(values, str) else sa.bindparam(None, list(values), kind))


@compiles(member, "postgresql")
def _member_postgresql(element: member, compiler: Any, **kw: Any) -> str:
    column, values = element.clauses
    return f"{compiler.process(column, **kw)} = any({compiler.process(values, **kw)})"


@compiles(member, "sqlite")
def _member_sqlite(element: member, compiler: Any, **kw: Any) -> str:
    column, values = element.clauses
    return f"{compiler.process(column, **kw)} in (select value from json_each({compiler.process(values, **kw)}))"


class position_of(FunctionElement[int]):
    """`position_of(needle, haystack)`: 1-based place of a text in another, 0 if absent; case-sensitive and literal on both
    engines."""

    type = sa.Integer()
    inherit_cache = True


@compiles(position_of, "postgresql")
def _position_postgresql(element: position_of, compiler: Any, **kw: Any) -> str:
    needle, haystack = element.clauses
    return f"strpos({compiler.process(haystack, **kw)}, {compiler.process(needle, **kw)})"


@compiles(position_of, "sqlite")
def _position_sqlite(element: position_of, compiler: Any, **kw: Any) -> str:
    needle, haystack = element.clauses
    return f"instr({compiler.process(haystack, **kw)}, {compiler.process(needle, **kw)})"


class json_text(FunctionElement[str]):
    """`json_text(document, key)`: the value at a key of a JSON object as text; null if absent or null."""

    type = sa.Text()
    inherit_cache = True


class json_kind(FunctionElement[str]):
    """`json_kind(document, key)`: `string`, `number`, `boolean`, `null`, `object`, `array`, or null if absent."""

    type = sa.Text()
    inherit_cache = True


@compiles(json_text, "postgresql")
def _json_text_postgresql(element: json_text, compiler: Any, **kw: Any) -> str:
    document, key = element.clauses
    return f"({compiler.process(document, **kw)} ->> {compiler.process(key, **kw)})"


@compiles(json_text, "sqlite")
def _json_text_sqlite(element: json_text, compiler: Any, **kw: Any) -> str:
    document, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return (
        f"(select case type when 'true' then 'true' when 'false' then 'false' else cast(value as text) end "
        f"from json_each({document}) where key = {key} and type <> 'null')"
    )


@compiles(json_kind, "postgresql")
def _json_kind_postgresql(element: json_kind, compiler: Any, **kw: Any) -> str:
    document, key = element.clauses
    return f"json_typeof({compiler.process(document, **kw)} -> {compiler.process(key, **kw)})"


@compiles(json_kind, "sqlite")
def _json_kind_sqlite(element: json_kind, compiler: Any, **kw: Any) -> str:
    document, key = (compiler.process(clause, **kw) for clause in element.clauses)
    return (
        f"(select case type when 'text' then 'string' when 'integer' then 'number' when 'real' then 'number' "
        f"when 'true' then 'boolean' "
        f"when 'false' then 'boolean' else type end from json_each({document}) where key = {key})"
    )


class day_text(FunctionElement[str]):
    """`day_text(text)`: the day that a text starts with, as `2026-01-02`; null if it starts with something else."""

    type = Text
    inherit_cache = True


@compiles(day_text, "postgresql")
def _day_text_postgresql(element: day_text, compiler: Any, **kw: Any) -> str:
    text = compiler.process(element.clauses, **kw)
    return f"""(substring({text} from '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') collate "C")"""


@compiles(day_text, "sqlite")
def _day_text_sqlite(element: day_text, compiler: Any, **kw: Any) -> str:
    text = compiler.process(element.clauses, **kw)
    return f"case when {text} glob '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' then substr({text}, 1, 10) end"


class Columns:
    """The columns of a row by name."""

    def __init__(self, get: Callable[[str], ColumnElement[Any]]) -> None:
        self._get = get

    def __getattr__(self, name: str) -> ColumnElement[Any]:
        return self._get(name)

    def __getitem__(self, name: str) -> ColumnElement[Any]:
        return self._get(name)


class Row:
    """A row of a table inside a statement: typed columns without a FROM, so that nothing it is used in can forget to
    correlate."""

    def __init__(self, columns: Mapping[str, Any], alias: str) -> None:
        self.alias = alias
        self.used: dict[str, None] = {}
        self._columns = columns
        self.c = Columns(self._column)

    def _column(self, name: str) -> ColumnElement[Any]:
        try:
            type_ = self._columns[name].type
        except KeyError:
            raise AttributeError(f"the row has no column {name!r}; it has {', '.join(self._columns)}") from None
        self.used[name] = None
        return sa.literal_column(f"{self.alias}.{name}", type_)

    def nullable(self, name: str) -> bool:
        """Whether the column may be null."""
        return bool(getattr(self._columns[name], "nullable", True))

    def renamed(self, alias: str) -> Row:
        """A row of the same columns under another alias."""
        return Row(self._columns, alias)

    def adapt(self, expression: Any) -> Any:
        """The same expression with the table's own columns replaced by this row's."""

        def replace(element: Any, **_: Any) -> Any:
            return self._column(element.name) if isinstance(element, sa.Column) and element.name in self._columns else None

        return replacement_traverse(expression, {}, replace)


class Values:
    """Something that is read like a row, made of expressions."""

    def __init__(self, expressions: Mapping[str, ColumnElement[Any]]) -> None:
        self._expressions = expressions
        self.c = Columns(self._expressions.__getitem__)

    def renamed(self, alias: str) -> Row:
        """A row whose columns have these expressions' values."""
        return Row(self._expressions, alias)


class Held:
    """Something that Python holds, read like a row: its attributes are parameters, filled from the object when the plan runs."""

    def __init__(self, sample: object) -> None:
        self._sample = sample
        self.c = Columns(self._parameter)

    def _parameter(self, name: str) -> ColumnElement[Any]:
        value = getattr(self._sample, name)
        type_ = Id if isinstance(value, uuid.UUID) else sa.BigInteger() if isinstance(value, int) else sa.Text()
        return sa.bindparam(f"{HELD}{name}", type_=type_, unique=False)


HELD = "held_"
AnyRow = Row | Values | Held


class json_masked(FunctionElement[Any]):
    """`json_masked(document, keys, mask)`: a JSON object with the values at these keys replaced."""

    type = Json
    inherit_cache = True


@compiles(json_masked, "postgresql")
def _json_masked_postgresql(element: json_masked, compiler: Any, **kw: Any) -> str:
    document, keys, mask = (compiler.process(clause, **kw) for clause in element.clauses)
    return (
        f"(select coalesce(json_object_agg(e.key, case when e.key = any({keys}) then to_json(cast({mask} as text)) "
        f"else e.value end), '{{}}'::json) "
        f"from json_each({document}) e)"
    )


@compiles(json_masked, "sqlite")
def _json_masked_sqlite(element: json_masked, compiler: Any, **kw: Any) -> str:
    document, keys, mask = (compiler.process(clause, **kw) for clause in element.clauses)
    return (
        f"(select json_group_object(e.key, case when e.key in (select value from json_each({keys})) then {mask} "
        f"when e.type in ('object', 'array') then json(e.value) when e.type in ('true', 'false') then json(e.type) "
        f"else e.value end) "
        f"from json_each({document}) e)"
    )


class smaller(FunctionElement[int]):
    """The smaller of two numbers."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(smaller, "postgresql")
def _smaller_postgresql(element: smaller, compiler: Any, **kw: Any) -> str:
    return f"least({compiler.process(element.clauses, **kw)})"


@compiles(smaller, "sqlite")
def _smaller_sqlite(element: smaller, compiler: Any, **kw: Any) -> str:
    return f"min({compiler.process(element.clauses, **kw)})"


def settled(expression: Any, moment: Moment) -> Any:
    """The same expression with every parameter filled in, for a statement that runs once."""
    known = {"now": moment.now, "today": moment.today, "currency": moment.currency}

    def replace(element: Any, **_: Any) -> Any:
        if isinstance(element, Value):
            value = element.slot.read({})
            if value is not None and element.convert is not None:
                value = element.convert(value, moment)
            return sa.bindparam(None, value, element.type)
        if isinstance(element, BindParameter) and element.key in known:
            return sa.bindparam(None, known[element.key], element.type)
        return None

    return replacement_traverse(expression, {}, replace)
