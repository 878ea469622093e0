"""How each database writes JSON: the same text from both."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.expression import FromClause
from sqlalchemy.sql.functions import FunctionElement

from scrm.db import Instant
from scrm.graphql.scalars import SAFE
from scrm.sql import Row

Pairs = list[tuple[str, ColumnElement[Any]]]
ROW = '"#"'
MARKED: sa.BindParameter[str] = sa.bindparam("mark", type_=sa.Text(), unique=False)
"""What a text begins with where Python fills in a value: another word in each request, so that nobody can have stored it."""


class Encoding(Protocol):
    """Builds JSON inside a statement. Every expression it returns is JSON ready to stand in an object or a list."""

    def leaf(self, kind: str, expression: ColumnElement[Any]) -> ColumnElement[Any]: ...
    def checked(self, kind: str, expression: ColumnElement[Any], among: Sequence[str] = ()) -> ColumnElement[Any]: ...
    def node_id(self, type_name: str, key: ColumnElement[Any]) -> ColumnElement[Any]: ...
    def null(self) -> ColumnElement[Any]: ...
    def text(self, value: str) -> ColumnElement[Any]: ...
    def object(self, pairs: Pairs) -> ColumnElement[Any]: ...
    def object_from(self, pairs: Pairs, source: sa.Select[Any]) -> ColumnElement[Any]: ...
    def list_from(self, pairs: Pairs, source: FromClause) -> ColumnElement[Any]: ...
    def gather(self, item: ColumnElement[Any], keep: ColumnElement[bool] | None) -> ColumnElement[Any]: ...
    def cursor(self, mark: str, keys: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]: ...
    def quoted(self, text: ColumnElement[Any]) -> ColumnElement[Any]: ...
    def unless_null(self, test: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[Any]: ...
    def page_from(self, pairs: Pairs, source: FromClause) -> ColumnElement[Any]: ...
    def marked(self, mark: ColumnElement[Any], needed: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]: ...


def raw(text: str, type_: Any = None) -> ColumnElement[Any]:
    """SQL as it stands."""
    return sa.literal_column(text, type_)


def _string(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _is_safe(expression: ColumnElement[Any]) -> ColumnElement[bool]:
    return expression.between(raw(str(-SAFE)), raw(str(SAFE)))


class PostgresEncoding:
    """Rows become objects (`row_to_json`, `json_agg`): their column names are the response keys, their order is kept."""

    def leaf(self, kind: str, expression: ColumnElement[Any]) -> ColumnElement[Any]:
        if kind == "datetime":
            return sa.func.to_char(sa.func.timezone(raw("'UTC'"), expression), raw("""'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""))
        if kind == "bigint":
            as_text = sa.func.to_json(sa.cast(expression, sa.Text))
            return sa.case((_is_safe(expression), sa.func.to_json(expression)), else_=as_text)
        return expression

    def checked(self, kind: str, expression: ColumnElement[Any], among: Sequence[str] = ()) -> ColumnElement[Any]:
        """A leaf of which it is not sure that it has the type it is declared with: the statement fails where it has another, and
        where an enum has a value that is none `among` its own."""
        checks: dict[str, Callable[[], ColumnElement[Any]]] = {
            "text": lambda: sa.cast(expression, sa.Text),
            "enum": lambda: _one_of(expression, among),
            "int": lambda: sa.cast(expression, sa.Integer),
            "bigint": lambda: sa.cast(expression, sa.BigInteger),
            # What is not finite is a text in JSON, and its quotes are in no number.
            "float": lambda: sa.cast(sa.cast(sa.func.to_json(sa.cast(expression, sa.Double)), sa.Text), sa.Double),
            "bool": lambda: expression.op("and", is_comparison=True)(raw("true")),  # a cast would take numbers
            "date": lambda: sa.func.to_char(sa.cast(expression.op("+")(raw("0")), sa.Date), raw("'YYYY-MM-DD'")),  # and 'today'
            "datetime": lambda: sa.cast(expression, sa.DateTime(timezone=True)),
            "list": lambda: _listed(expression),
        }
        known = kind in checks and not isinstance(expression, sa.Null)
        return self.leaf(kind, checks[kind]() if known else expression)

    def node_id(self, type_name: str, key: ColumnElement[Any]) -> ColumnElement[Any]:
        return raw(_string(f"{type_name}_"), sa.Text()).concat(sa.func.replace(sa.cast(key, sa.Text), raw("'-'"), raw("''")))

    def null(self) -> ColumnElement[Any]:
        return raw("null::json")

    def text(self, value: str) -> ColumnElement[Any]:
        return raw(_string(value) + "::text")

    def object(self, pairs: Pairs) -> ColumnElement[Any]:
        return self._row(sa.select(*self._labelled(pairs)))

    def object_from(self, pairs: Pairs, source: sa.Select[Any]) -> ColumnElement[Any]:
        return self._row(source.with_only_columns(*self._labelled(pairs), maintain_column_froms=True))

    def list_from(self, pairs: Pairs, source: FromClause) -> ColumnElement[Any]:
        inner = sa.select(*self._labelled(pairs)).select_from(source).alias("#")
        return sa.select(raw(f"coalesce(json_agg({ROW}), '[]'::json)")).select_from(inner).scalar_subquery()

    def gather(self, item: ColumnElement[Any], keep: ColumnElement[bool] | None) -> ColumnElement[Any]:
        listed: ColumnElement[Any] = sa.func.json_agg(item)
        return sa.func.coalesce(listed if keep is None else sa.func.json_agg(item).filter(keep), raw("'[]'::json"))

    def cursor(self, mark: str, keys: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]:
        parts = [sa.func.coalesce(sa.cast(sa.func.to_json(_key_text(key, self)), sa.Text), raw("'null'")) for key in keys]
        return _joined([_mark(mark), *parts])

    def quoted(self, text: ColumnElement[Any]) -> ColumnElement[Any]:
        return text

    def page_from(self, pairs: Pairs, source: FromClause) -> ColumnElement[Any]:
        return self.object_from(pairs, sa.select().select_from(source))

    def unless_null(self, test: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[Any]:
        return sa.case((test.is_not(None), value), else_=sa.null())

    def marked(self, mark: ColumnElement[Any], needed: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]:
        return mark.concat(sa.cast(sa.func.json_build_array(*needed), sa.Text))

    def _labelled(self, pairs: Pairs) -> list[ColumnElement[Any]]:
        return [expression.label(key) for key, expression in pairs]

    def _row(self, select: sa.Select[Any]) -> ColumnElement[Any]:
        return sa.select(raw(f"row_to_json({ROW})")).select_from(select.alias("#")).scalar_subquery()


class SqliteEncoding:
    """JSON is built as text: no limit on keys, and no part is parsed twice.

    SQLite's parser has a stack of a hundred places until 3.46, so what is nested is written with as few brackets as can be.
    """

    def leaf(self, kind: str, expression: ColumnElement[Any]) -> ColumnElement[Any]:
        if kind == "text":
            return sa.func.json_quote(expression)
        if kind == "float":
            return sa.func.coalesce(shortest(expression), raw("'null'"))
        if kind == "bool":
            return sa.case((expression.is_(None), raw("'null'")), (expression, raw("'true'")), else_=raw("'false'"))
        if kind == "int":
            return sa.func.coalesce(sa.cast(expression, sa.Text), raw("'null'"))
        if kind == "bigint":
            text = sa.cast(expression, sa.Text)
            quoted = raw("'\"'", sa.Text()).concat(text).concat(raw("'\"'"))
            return sa.case((expression.is_(None), raw("'null'")), (_is_safe(expression), text), else_=quoted)
        if kind == "json":
            return sa.func.coalesce(sa.type_coerce(expression, sa.Text), raw("'null'"))
        return self._wrapped(expression)

    def checked(self, kind: str, expression: ColumnElement[Any], among: Sequence[str] = ()) -> ColumnElement[Any]:
        """A leaf of which it is not sure that it has the type it is declared with: the statement fails where it has another, and
        where an enum has a value that is none `among` its own."""
        if isinstance(expression, sa.Null):
            return self.null()
        if kind == "json":
            return sa.func.coalesce(sa.func.json(expression, type_=sa.Text()), raw("'null'"))
        return _Checked(kind, expression, among)

    def _wrapped(self, expression: ColumnElement[Any]) -> ColumnElement[Any]:
        # A parameter stays as it is: another type would leave its value unconverted.
        text = expression if isinstance(expression, sa.BindParameter) else sa.type_coerce(expression, sa.Text())
        return sa.func.coalesce(raw("'\"'", sa.Text()).concat(text).concat(raw("'\"'")), raw("'null'"))

    def node_id(self, type_name: str, key: ColumnElement[Any]) -> ColumnElement[Any]:
        return raw(f"'\"{type_name}_'", sa.Text()).concat(sa.type_coerce(key, sa.Text())).concat(raw("'\"'"))

    def null(self) -> ColumnElement[Any]:
        return raw("'null'")

    def text(self, value: str) -> ColumnElement[Any]:
        return raw(_string(f'"{value}"'))

    def object(self, pairs: Pairs) -> ColumnElement[Any]:
        text: ColumnElement[Any] = raw("'{'", sa.Text())
        for number, (key, expression) in enumerate(pairs):
            text = text.concat(raw(_string(f'{"," if number else ""}"{key}":'))).concat(_json(expression))
        return text.concat(raw("'}'"))

    def object_from(self, pairs: Pairs, source: sa.Select[Any]) -> ColumnElement[Any]:
        return source.with_only_columns(self.object(pairs), maintain_column_froms=True).scalar_subquery()

    def list_from(self, pairs: Pairs, source: FromClause) -> ColumnElement[Any]:
        inner = sa.select(self.object(pairs).label("j")).select_from(source).alias("#")
        return _Whole(sa.select(self.gather(raw(f"{ROW}.j"), None)).select_from(inner))

    def gather(self, item: ColumnElement[Any], keep: ColumnElement[bool] | None) -> ColumnElement[Any]:
        joined: Any = sa.func.group_concat(item, raw("','"))
        joined = joined if keep is None else joined.filter(keep)
        return sa.func.printf(raw("'[%s]'"), joined, type_=sa.Text())

    def cursor(self, mark: str, keys: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]:
        return _joined([_mark(mark), *[sa.func.json_quote(_key_text(key, self)) for key in keys]])

    def quoted(self, text: ColumnElement[Any]) -> ColumnElement[Any]:
        return sa.func.json_quote(text)

    def page_from(self, pairs: Pairs, source: FromClause) -> ColumnElement[Any]:
        return _Whole(sa.select(self.object(pairs)).select_from(source))

    def unless_null(self, test: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[Any]:
        return sa.case((test.is_not(None), value), else_=raw("'null'"))

    def marked(self, mark: ColumnElement[Any], needed: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]:
        return sa.func.json_quote(mark.concat(_joined(needed)))


class _Whole(sa.ScalarSelect[Any]):
    """A scalar subquery that always has a row."""

    inherit_cache = True


def _json(expression: ColumnElement[Any]) -> ColumnElement[Any]:
    """A part of an object; a scalar subquery without a row is null."""
    if isinstance(expression, sa.ScalarSelect) and not isinstance(expression, _Whole):
        return sa.func.coalesce(expression, raw("'null'"))
    return expression


PARENTS = "parents"
"""The parameter of a part's statement: its parents' columns, a JSON list of lists."""


def stored(columns: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]:
    """Columns as SQLite keeps them, in a JSON list."""
    return _joined([_stored(column) for column in columns])


def _stored(column: ColumnElement[Any]) -> ColumnElement[Any]:
    if isinstance(column.type, sa.Float):
        return sa.func.coalesce(shortest(column), raw("'null'"))
    return sa.func.json_quote(sa.cast(column, sa.Text) if isinstance(column.type, sa.JSON) else column)


def parents_from(parent: Row, value: ColumnElement[Any]) -> sa.Select[Any]:
    """A value below rows whose columns come as a parameter: (place in the list, value) of each."""
    given = sa.func.json_each(sa.bindparam(PARENTS, type_=sa.Text(), unique=False)).alias("#j")
    columns = [sa.func.json_extract(raw('"#j".value'), raw(f"'$[{n}]'")).label(name) for n, name in enumerate(parent.used)]
    rows = sa.select(raw('"#j".key').label("#"), *columns).select_from(given).alias(parent.alias)
    return sa.select(raw(f"{parent.alias}.{ROW}"), value.label("#")).select_from(rows)


def _joined(parts: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]:
    text: ColumnElement[Any] = raw("'['", sa.Text())
    for number, part in enumerate(parts):
        text = (text.concat(raw("','")) if number else text).concat(part)
    return text.concat(raw("']'"))


def _mark(mark: str) -> ColumnElement[Any]:
    return raw(_string(f'"{mark}"'), sa.Text())


def _key_text(key: ColumnElement[Any], encoding: PostgresEncoding | SqliteEncoding) -> ColumnElement[Any]:
    kind = key_kind(key)
    if kind == "instant":
        return (
            PostgresEncoding().leaf("datetime", key) if isinstance(encoding, PostgresEncoding) else sa.type_coerce(key, sa.Text())
        )
    if kind == "id" and isinstance(encoding, PostgresEncoding):
        return sa.func.replace(sa.cast(key, sa.Text), raw("'-'"), raw("''"))
    if kind == "float" and isinstance(encoding, SqliteEncoding):
        return shortest(key)
    if kind == "bool":
        return sa.cast(sa.cast(key, sa.Integer), sa.Text)
    return sa.type_coerce(key, sa.Text()) if kind in ("text", "id") else sa.cast(key, sa.Text)


class _Checked(FunctionElement[str]):
    """A value as JSON, where it is of its kind; else an error, which malformed JSON is to SQLite. It is computed once."""

    type = sa.Text()
    inherit_cache = False

    def __init__(self, kind: str, expression: ColumnElement[Any], among: Sequence[str] = ()) -> None:
        super().__init__(expression)
        self.kind = kind
        self.among = ", ".join(map(_string, among))


_OF_KIND = {
    "text": "typeof(n.x) in ('text', 'integer') then json_quote(cast(n.x as text))",
    "enum": "typeof(n.x) = 'text' and n.x in ({among}) then json_quote(n.x)",
    "int": "typeof(n.x) = 'integer' and n.x between -2147483648 and 2147483647 then n.x",
    "bigint": f"typeof(n.x) = 'integer' then iif(n.x between -{SAFE} and {SAFE}, n.x, '\"' || n.x || '\"')",
    "bool": "typeof(n.x) = 'integer' and n.x in (0, 1) then iif(n.x, 'true', 'false')",
    "float": "typeof(n.x) in ('integer', 'real') and abs(n.x) < 9e999 then {shortest}",
    "date": "n.x = date(n.x) then json_quote(n.x)",
    "datetime": "n.x glob '????-??-??T??:??:*Z' and julianday(n.x) > 0 then json_quote(n.x)",
    "list": "json_type(n.x) = 'array' then json(n.x)",
}


@compiles(_Checked, "sqlite")
def _checked_sqlite(element: _Checked, compiler: Any, **kw: Any) -> str:
    value = compiler.process(element.clauses, **kw)
    then = (
        _OF_KIND[element.kind]
        .replace("{among}", element.among)
        .replace("{shortest}", f"case {_TRIES} else printf('%!.17g', n.x) end")
    )
    return f"(select case when n.x is null then 'null' when {then} else json('') end from (select {value} as x) n)"


def _one_of(expression: ColumnElement[Any], among: Sequence[str]) -> ColumnElement[Any]:
    """A text on PostgreSQL that is one of these, computed once; no other text is a number, which is how it fails."""
    made = sa.select(sa.cast(expression, sa.Text).label("x")).offset(raw("0")).subquery("n")
    wrong = sa.cast(sa.cast(made.c.x.concat(raw("' is no value'")), sa.Integer), sa.Text)
    known = made.c.x.is_(None) | made.c.x.in_([raw(_string(value)) for value in among])
    return sa.select(sa.case((known, made.c.x), else_=wrong)).scalar_subquery()


def _listed(expression: ColumnElement[Any]) -> ColumnElement[Any]:
    """JSON on PostgreSQL that is a list, computed once."""
    made = sa.select(sa.func.to_json(expression).label("x")).offset(raw("0")).subquery("n")
    return sa.select(sa.case((sa.func.json_array_length(made.c.x) >= raw("0"), made.c.x))).scalar_subquery()


class shortest(FunctionElement[str]):
    """A float as the shortest text that reads as the same float; SQLite's own loses the last digits."""

    type = sa.Text()
    inherit_cache = True


_TRIES = " ".join(f"when cast(printf('%.{n}g', n.x) as real) = n.x then printf('%.{n}g', n.x)" for n in (15, 16))


@compiles(shortest, "sqlite")
def _shortest_sqlite(element: shortest, compiler: Any, **kw: Any) -> str:
    number = compiler.process(element.clauses, **kw)
    return f"(select case when n.x is null then null {_TRIES} else printf('%!.17g', n.x) end from (select {number} as x) n)"


def key_kind(key: ColumnElement[Any]) -> str:
    """What an order key is, for its text in a cursor."""
    type_: Any = key.type
    if type(type_).__name__ == "Instant":
        return "instant"
    if isinstance(type_, sa.Uuid):
        return "id"
    if isinstance(type_, sa.Date):
        return "date"
    if isinstance(type_, sa.Boolean):
        return "bool"
    if isinstance(type_, sa.Integer):
        return "int"
    if isinstance(type_, sa.Float):
        return "float"
    return "decimal" if isinstance(type_, sa.Numeric) else "text"


def leaf_kind(expression: ColumnElement[Any]) -> str:
    """How a column is written that no field of the schema shows."""
    type_ = expression.type
    if isinstance(type_, Instant):
        return "datetime"
    if isinstance(type_, sa.Boolean):
        return "bool"
    if isinstance(type_, sa.Integer):
        return "int"
    if isinstance(type_, sa.Float):
        return "float"
    return "json" if isinstance(type_, sa.JSON) else "text"


def _uuid(text: str) -> uuid.UUID:
    return uuid.UUID(int=int(text.replace("-", ""), 16))


def decoder(type_: Any) -> Callable[[Any], Any]:
    """From a column's JSON to what Python holds: the same on both engines."""
    read: Callable[[Any], Any] | None = None
    if isinstance(type_, sa.Uuid):
        read = _uuid
    elif isinstance(type_, Instant):
        read = datetime.fromisoformat
    elif isinstance(type_, sa.Date):
        read = date.fromisoformat
    return (lambda value: value) if read is None else lambda value: None if value is None else read(value)
