"""Rows handed to the database as one JSON parameter, to select from, join with and write."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

from scrm.db import Id, Tx, instant_text, json_rows


def row_set(tx: Tx, name: str, columns: Mapping[str, TypeEngine[Any]], rows: Sequence[Mapping[str, Any]]) -> sa.FromClause:
    """A table of these rows: `rows` say every column, by name. One statement whatever their number."""
    data = json_rows([{key: _plain(value) for key, value in row.items()} for row in rows])
    if tx.dialect == "sqlite":
        each = sa.func.json_each(sa.literal(data, sa.Text())).table_valued("value", name=f"{name}_each")
        taken = [_of_json(each.c.value, key, kind).label(key) for key, kind in columns.items()]
        return sa.select(*taken).subquery(name)
    typed = [sa.column(key, kind) for key, kind in columns.items()]
    recordset = sa.func.json_to_recordset(sa.cast(sa.literal(data, sa.Text()), postgresql.JSON()))
    return recordset.table_valued(*typed, name=name).render_derived(with_types=True)


def id_set(tx: Tx, name: str, ids: Iterable[uuid.UUID]) -> sa.FromClause:
    """A table of one column, `id`."""
    return row_set(tx, name, {"id": Id}, [{"id": value} for value in ids])


def _of_json(value: sa.ColumnElement[Any], key: str, kind: TypeEngine[Any]) -> sa.ColumnElement[Any]:
    return sa.type_coerce(sa.func.json_extract(value, f"$.{key}"), kind)


def _plain(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return value.hex
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, date):
        return value.isoformat()
    return value


def upsert(tx: Tx, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """An insert that knows `on_conflict_do_nothing` and `on_conflict_do_update`, the same words on both engines."""
    return sqlite.insert(table) if tx.dialect == "sqlite" else postgresql.insert(table)
