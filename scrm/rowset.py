"""Rows handed to the database as one JSON parameter, to select from, join with and write."""

from __future__ import annotations

import functools
import operator
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

from scrm.db import DriverText, Id, Instant, Tx, dumps, instant_text, json_rows

_ENCODER = msgspec.json.Encoder(uuid_format="hex")
_TIMELESS = (sa.Uuid, sa.Text, sa.Integer)
"""Columns whose values JSON says as SQLite keeps them, without a look at each."""


def row_set(tx: Tx, name: str, columns: Mapping[str, TypeEngine[Any]], rows: Sequence[Mapping[str, Any]]) -> sa.FromClause:
    """A table of these rows: `rows` say every column, by name. One statement whatever their number."""
    timeless = all(isinstance(kind, _TIMELESS) for kind in columns.values())
    data = _ENCODER.encode(rows).decode() if timeless else json_rows(rows)
    if tx.dialect == "sqlite":
        each = sa.func.json_each(sa.literal(data, sa.Text())).table_valued("value", name=f"{name}_each")
        taken = [_of_json(each.c.value, key, kind).label(key) for key, kind in columns.items()]
        return sa.select(*taken).subquery(name)
    typed = [sa.column(key, kind) for key, kind in columns.items()]
    recordset = sa.func.json_to_recordset(sa.cast(sa.literal(data, sa.Text()), postgresql.JSON()))
    return recordset.table_valued(*typed, name=name).render_derived(with_types=True)


def id_set(tx: Tx, name: str, ids: Iterable[uuid.UUID]) -> sa.FromClause:
    """A table of one column, `id`."""
    data = sa.literal(json_rows([value.hex for value in ids]), sa.Text())
    if tx.dialect == "sqlite":
        each = sa.func.json_each(data).table_valued("value", name=f"{name}_each")
        return sa.select(sa.type_coerce(each.c.value, Id).label("id")).subquery(name)
    item = sa.func.json_array_elements_text(sa.cast(data, postgresql.JSON())).column_valued(f"{name}_each")
    return sa.select(sa.cast(item, Id).label("id")).subquery(name)


def _of_json(value: sa.ColumnElement[Any], key: str, kind: TypeEngine[Any]) -> sa.ColumnElement[Any]:
    return sa.type_coerce(sa.func.json_extract(value, f"$.{key}"), kind)


def upsert(tx: Tx, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """An insert that knows `on_conflict_do_nothing` and `on_conflict_do_update`, the same words on both engines."""
    return sqlite.insert(table) if tx.dialect == "sqlite" else postgresql.insert(table)


def insert_rows(tx: Tx, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that say every column; one statement on PostgreSQL, one prepared one on SQLite, whatever their number."""
    if rows:
        _inserting(table).run(tx, rows)


def update_rows(tx: Tx, table: sa.Table, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Set these columns of rows found by their `id`; each row says its id and the new values. One statement, as `insert_rows`."""
    if rows:
        _updating(table, tuple(columns)).run(tx, rows)


class _Writing:
    """How one kind of rows is written: the texts are made once, and each column's values are made ready at once."""

    def __init__(self, table: sa.Table, names: tuple[str, ...]) -> None:
        self.names = names
        self._kinds = [table.c[name].type for name in names]
        self._lite = [_lite(kind) for kind in self._kinds]
        self._arrays = [_array(kind) for kind in self._kinds]
        quote = _POSTGRESQL.identifier_preparer.quote
        self.table = _POSTGRESQL.identifier_preparer.format_table(table)
        self.quoted = [quote(name) for name in names]
        given = ", ".join(f"cast(:c{n} as {array.sql}[])" for n, array in enumerate(self._arrays))
        self.said = f"unnest({given}) as said({', '.join(self.quoted)})"
        self.taken = [f"said.{name}{array.to}" for name, array in zip(self.quoted, self._arrays, strict=True)]
        self.sqlite, self.postgresql = self.texts()

    def texts(self) -> tuple[sa.TextClause, sa.TextClause]:
        """The statement on either engine."""
        raise NotImplementedError

    def run(self, tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows."""
        columns = [[row[name] for row in rows] for name in self.names]
        if tx.dialect == "sqlite":
            ready = (
                column if process is None else [None if value is None else process(value) for value in column]
                for column, process in zip(columns, self._lite, strict=True)
            )
            tx.execute(self.sqlite, list(zip(*ready, strict=True)))
            return
        ready = (
            column if array.ready is None else [None if value is None else array.ready(value) for value in column]
            for column, array in zip(columns, self._arrays, strict=True)
        )
        tx.execute(self.postgresql, {f"c{n}": column for n, column in enumerate(ready)})


class _Insert(_Writing):
    def texts(self) -> tuple[sa.TextClause, sa.TextClause]:
        into = f"insert into {self.table} ({', '.join(self.quoted)})"
        marks = ", ".join("?" * len(self.names))
        return DriverText(f"{into} values ({marks})"), sa.text(f"{into} select {', '.join(self.taken)} from {self.said}")


class _Update(_Writing):
    def texts(self) -> tuple[sa.TextClause, sa.TextClause]:
        *names, key = self.quoted
        *values, _ = self.taken
        marks = ", ".join(f"{name} = ?" for name in names)
        news = ", ".join(f"{name} = {value}" for name, value in zip(names, values, strict=True))
        one = DriverText(f"update {self.table} set {marks} where {key} = ?")
        return one, sa.text(f"update {self.table} set {news} from {self.said} where {self.table}.{key} = said.{key}")


@functools.lru_cache(maxsize=512)
def _inserting(table: sa.Table) -> _Writing:
    return _Insert(table, tuple(column.name for column in table.columns))


@functools.lru_cache(maxsize=512)
def _updating(table: sa.Table, columns: tuple[str, ...]) -> _Writing:
    return _Update(table, (*columns, "id"))


_POSTGRESQL: Any = postgresql.dialect()  # type: ignore[no-untyped-call]
_SQLITE: Any = sqlite.dialect(json_serializer=dumps)


def _lite(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """What makes a value one of SQLite's."""
    if kind is Id:
        return operator.attrgetter("hex")
    if isinstance(kind, Instant):
        return lambda value: instant_text(_aware(value))
    return kind.dialect_impl(_SQLITE).bind_processor(_SQLITE)


def _aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError(f"the time {value.isoformat()} has no zone")
    return value


class _Array(NamedTuple):
    """A column's values as an array of PostgreSQL: its type, what a value is made first, and what is said of it at the end."""

    sql: str
    ready: Callable[[Any], Any] | None = None
    to: str = ""


def _array(kind: TypeEngine[Any]) -> _Array:
    if isinstance(kind.dialect_impl(_POSTGRESQL), sa.JSON):
        return _Array("text", dumps, "::json")
    if isinstance(kind, Instant):
        return _Array("timestamptz", _aware)
    return _Array(kind.compile(_POSTGRESQL).partition(" COLLATE")[0])
