"""What a plugin needs that keeps books: rows as they were found and as they became, and lines that are written once.

A handler loads rows into dataclasses, folds its events over them in plain Python, and stores what came of it: `FoundRows` knows
which rows are new and which have changed, a `Journal` collects new lines of an append-only table, and `append_only` lets the
database refuse every other change to it.
"""

from __future__ import annotations

import functools
import operator
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from typing import Any

import sqlalchemy as sa
from alembic import op

from scrm.db import Tx
from scrm.events.records import Event, derive_id
from scrm.rowset import insert_rows, update_rows

OUT, IN = "TRANSFER_OUT", "TRANSFER_IN"


@functools.cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))


@functools.cache
def _getter(kind: Any) -> Callable[[Any], tuple[Any, ...]]:
    return operator.attrgetter(*_names(kind))


def _values(row: Any) -> tuple[Any, ...]:
    kind: Any = type(row)
    return _getter(kind)(row)


def as_row(row: Any) -> dict[str, Any]:
    """A dataclass with the fields of a table's columns as a row to write, by the names of the columns."""
    kind: Any = type(row)
    return dict(zip(_names(kind), _values(row), strict=True))


@dataclass
class FoundRows:
    """Rows, as dataclasses with an `id`, as they were found; those of several tables may be kept together."""

    _before: dict[uuid.UUID, tuple[Any, ...]] = field(default_factory=dict)

    def keep(self, rows: Iterable[Any]) -> None:
        """Remember rows as they are now."""
        self._before |= {row.id: _values(row) for row in rows}

    def store(self, tx: Tx, table: sa.Table, rows: Iterable[Any], changing: Sequence[str]) -> None:
        """Insert the rows that were not kept, and set the `changing` columns of those that are not as they were: two
        statements at most. Fields that are no columns are passed over."""
        new, changed = [], []
        for row in rows:
            before = self._before.get(row.id)
            if before is None:
                new.append(as_row(row))
            elif _values(row) != before:
                changed.append(as_row(row))
        insert_rows(tx, table, new)
        update_rows(tx, table, changing, changed)


@dataclass
class Journal:
    """New lines of an append-only table. It has `id`, `kind`, `event_id`, `occurred_at`, `recorded_at`, for pairs `pair_id`,
    and what columns the plugin likes."""

    table: sa.Table
    lines: list[dict[str, Any]] = field(default_factory=list)

    def line(self, event: Event, kind: str, *, part: object = 0, **said: Any) -> uuid.UUID:
        """Write a line that follows from an event, and give its id, which follows from the event, the kind and the part:
        `part` tells several of one kind and event apart. What is not said is null."""
        written = line_id(event.id, kind, part)
        known = {"id": written, "kind": kind, "event_id": event.id}
        times = {"occurred_at": event.occurred_at, "recorded_at": event.received_at}
        self.lines.append({**_blank(self.table), **known, **times, **said})
        return written

    def pair(
        self, event: Event, giver: Mapping[str, Any], taker: Mapping[str, Any], *, part: object = 0
    ) -> tuple[uuid.UUID, uuid.UUID]:
        """Write the two lines of a transfer, TRANSFER_OUT and TRANSFER_IN, each with the other's id as its `pair_id`."""
        into = line_id(event.id, IN, part)
        out = self.line(event, OUT, part=part, **{**giver, "pair_id": into})
        return out, self.line(event, IN, part=part, **{**taker, "pair_id": out})

    def store(self, tx: Tx) -> None:
        """Insert the lines: one statement."""
        insert_rows(tx, self.table, self.lines)


@functools.cache
def _blank(table: sa.Table) -> dict[str, None]:
    return dict.fromkeys(table.c.keys())


def line_id(event_id: uuid.UUID, kind: str, part: object = 0) -> uuid.UUID:
    """The id of the line of this kind and part that follows from an event, written or not."""
    return derive_id(event_id, "entry", kind, part)


def absorbed_into(tx: Tx, merges: sa.FromClause, account_id: uuid.UUID) -> list[uuid.UUID]:
    """An account and all that were absorbed into it, at whatever remove, and still are. A row of `merges` is a merge of two
    accounts: `kept_id`, `absorbed_id`, and `undone_by`, null while it stands."""
    found, edge = [account_id], [account_id]
    while edge:
        inner = sa.select(merges.c.absorbed_id).where(merges.c.kept_id.in_(edge), merges.c.undone_by.is_(None))
        edge = sorted({row.absorbed_id for row in tx.rows(inner)} - set(found))
        found += edge
    return found


def exported(tx: Tx, kinds: Mapping[str, sa.Select[Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows of these queries by kind, as the hook `export` hands them over: ids as hex digits, times and days as text."""
    return {kind: [_as_json(row._mapping) for row in tx.rows(statement)] for kind, statement in kinds.items()}


def _as_json(row: Mapping[Any, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, uuid.UUID):
            said[str(name)] = value.hex
        else:
            said[str(name)] = value.isoformat() if isinstance(value, date) else value
    return said


def append_only(table: str, *key: str) -> None:
    """In a migration: let the database refuse to update, delete, replace or truncate rows of a table; doing it again changes
    nothing. `key` are the columns of its primary key, `id` unless said."""
    if op.get_bind().dialect.name == "sqlite":
        for change in ("update", "delete"):
            _refuse(table, f"no_{change}", f"before {change} on {table}")
        same = " and ".join(f"{name} = new.{name}" for name in key or ("id",))
        # `insert or replace` deletes without saying so.
        _refuse(table, "no_replace", f"before insert on {table} when exists (select 1 from {table} where {same})")
        return
    op.execute(
        f"create or replace function {table}_kept() returns trigger language plpgsql as "
        f"$$ begin raise exception '{table} is append-only'; end $$"
    )
    for name, what in (("kept", "update or delete"), ("kept_whole", "truncate")):
        each = "row" if name == "kept" else "statement"
        op.execute(f"drop trigger if exists {table}_{name} on {table}")
        op.execute(f"create trigger {table}_{name} before {what} on {table} for each {each} execute function {table}_kept()")


def _refuse(table: str, name: str, when: str) -> None:
    op.execute(f"create trigger if not exists {table}_{name} {when} begin select raise(abort, '{table} is append-only'); end")
