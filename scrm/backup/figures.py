"""What a database holds, in figures that are the same wherever its rows are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from scrm.channels.models import channels
from scrm.db import Tx, metadata
from scrm.events.models import consumers, events, workers
from scrm.events.sequencer import head
from scrm.migrate import histories
from scrm.models import api_keys, imports
from scrm.presence import GONE_AFTER
from scrm.tags.models import tags
from scrm.users.models import users

PASSING = frozenset({workers.name})
"""Tables of what runs now: a backup has them without rows."""

_HELD = {"users": users, "events": events, "channels": channels, "tags": tags, "API keys": api_keys, "imports": imports}
_UNIT = 1_000_000


@dataclass(frozen=True)
class Figures:
    """Counts and sums: `amounts` in minor units by currency, `migrations` by owner, `cursors` by plugin, `rows` by table."""

    position: int
    events: int
    users: int
    amounts: Mapping[str, int]
    migrations: Mapping[str, str | None]
    cursors: Mapping[str, int]
    rows: Mapping[str, int]


def read_figures(tx: Tx) -> Figures:
    """The figures of the state that this transaction sees."""
    rows = {name: _count(tx, name) for name in _tables(tx) if name not in PASSING}
    return Figures(
        position=head(tx),
        events=_count(tx, events.name),
        users=_count(tx, users.name),
        amounts=_amounts(tx),
        migrations=histories(tx.connection),
        cursors={row.plugin: row.cursor for row in tx.rows(sa.select(consumers).order_by(consumers.c.plugin))},
        rows=rows,
    )


def differences(expected: Figures, found: Figures) -> list[str]:
    """Where two differ, one line each: the figure's name and both values."""
    lines = []
    for one in fields(Figures):
        before, after = getattr(expected, one.name), getattr(found, one.name)
        pairs = _by_key(one.name, before, after) if isinstance(before, Mapping) else [(one.name, before, after)]
        lines += [f"{name}: {a} in the backup, {b} in the database" for name, a, b in pairs if a != b]
    return lines


def _by_key(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted({*before, *after}):
        yield f"{name} {key}", before.get(key, "nothing"), after.get(key, "nothing")


def contents(tx: Tx) -> list[str]:
    """What would be lost with this database, in words; nothing where it is new, its tables made or not."""
    tables = _tables(tx)
    found = []
    for word, table in _HELD.items():
        if table.name in tables:
            query = sa.select(sa.func.count()).select_from(table)
            if table is events:
                query = query.where(events.c.type != "plugin.configured")
            count = tx.scalar(query)
            found += [f"{word}: {count}"] if count else []
    others = _others(tables, tuple(f"{owner}_" for owner in histories(tx.connection)))
    return [*found, *([f"tables that are not scrm's: {', '.join(others)}"] if others else [])]


def _others(tables: list[str], owned: tuple[str, ...]) -> list[str]:
    return [name for name in tables if name not in metadata.tables and not name.startswith(("alembic_version", *owned))]


@dataclass(frozen=True)
class Present:
    """A worker that was seen lately."""

    host: str
    pid: int
    seen_at: datetime


def present_workers(tx: Tx, at: datetime) -> list[Present]:
    """The workers that were seen within half a minute."""
    if workers.name not in _tables(tx):
        return []
    query = sa.select(workers).where(workers.c.seen_at >= at - GONE_AFTER)
    return [Present(row.host, row.pid, row.seen_at) for row in tx.rows(query.order_by(workers.c.host, workers.c.pid))]


def _tables(tx: Tx) -> list[str]:
    return sorted(sa.inspect(tx.connection).get_table_names())


def _count(tx: Tx, table: str) -> int:
    return int(tx.scalar(sa.select(sa.func.count()).select_from(sa.table(table))))


def _amounts(tx: Tx) -> dict[str, int]:
    """Summed in two parts: on SQLite a sum of large amounts would be larger than its numbers are."""
    amount = events.c.amount_minor
    parts = (sa.func.sum(amount.op("/")(_UNIT)).label("units"), sa.func.sum(amount.op("%")(_UNIT)).label("rest"))
    query = sa.select(events.c.currency, *parts).where(amount.is_not(None)).group_by(events.c.currency)
    return {str(row.currency): int(row.units) * _UNIT + int(row.rest) for row in tx.rows(query.order_by(events.c.currency))}
