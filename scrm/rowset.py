"""Rows handed to the database as one JSON parameter, to select from, join with and write."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

from scrm.db import Id, Tx, json_rows


def row_set(tx: Tx, name: str, columns: Mapping[str, TypeEngine[Any]], rows: Sequence[Mapping[str, Any]]) -> sa.FromClause:
    """A table of these rows: `rows` say every column, by name. One statement whatever their number."""
    data = json_rows(rows)
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
    if not rows:
        return
    if tx.dialect == "sqlite":
        tx.execute(sa.insert(table), list(rows))
        return
    columns = {column.name: column.type for column in table.columns}
    said = row_set(tx, "said", columns, rows)
    tx.execute(sa.insert(table).from_select(list(columns), sa.select(*(said.c[name] for name in columns))))


def update_rows(tx: Tx, table: sa.Table, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Set these columns of rows found by their `id`; each row says its id and the new values. One statement, as `insert_rows`."""
    if not rows:
        return
    if tx.dialect == "sqlite":
        found = [{f"to_{name}": row[name] for name in ("id", *columns)} for row in rows]
        to = {name: sa.bindparam(f"to_{name}", type_=table.c[name].type) for name in ("id", *columns)}
        tx.execute(sa.update(table).where(table.c.id == to["id"]).values({name: to[name] for name in columns}), found)
        return
    said = row_set(tx, "said", {name: table.c[name].type for name in ("id", *columns)}, rows)
    tx.execute(sa.update(table).where(table.c.id == said.c.id).values({name: said.c[name] for name in columns}))
