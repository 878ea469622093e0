"""Replay: a plugin's tables built again from the log, compared with the live ones row by row, put in their place if asked."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from scrm.db import MEASURED, Database, Tx, dumps, loads
from scrm.errors import ScrmError
from scrm.events.consumers import Consumer, ConsumerSettings, ReadsTheLog, consumer_of, pause, resume
from scrm.events.decide import SOURCE
from scrm.events.handling import EVENT_COLUMNS, Applying, describe, event_of, give, is_trouble
from scrm.events.log import Entry
from scrm.events.models import consumers, events, out_of_turn, parked_events
from scrm.events.records import Event
from scrm.events.rules import Timeline
from scrm.events.swap import swap_postgresql, swap_sqlite
from scrm.migrate import upgrade_owner
from scrm.plugin import Rules

ANNOUNCEMENTS = "announcements"
"""In a report, what the replay announces against what the log has of it."""

_WINDOW = 5_000
_BATCH = 500
_SHOWN = 20
_MOVES = 100
"""So many different changes of a word in a column are counted apart."""

Build = Callable[[Connection, ReadsTheLog, str | None], None]


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table: rows that are live, rows that the log gives, and how many of all differ. `sums` of its whole numbers by column,
    live and replayed, and `moves`: which word became which other in how many rows, by column; both where they differ."""

    live: int
    replayed: int
    differing: int
    sums: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    moves: Mapping[str, Sequence[tuple[str | None, str | None, int]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that differs: its key, and the columns that do, live and replayed; None where there is no such row."""

    table: str
    key: tuple[Any, ...]
    live: Mapping[str, Any] | None
    replayed: Mapping[str, Any] | None


@dataclass(frozen=True)
class ReplayReport:
    """What a replay found: `equal` when every table and every announcement is as live; `differences` shows the first few.
    `left_out`: facts that could not have been decided under the rules that are supposed."""

    plugin: str
    position: int
    events: int
    tables: Mapping[str, TableReport]
    differences: Sequence[Difference] = ()
    applied: bool = False
    left_out: int = 0

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not any(table.differing for table in self.tables.values())


async def replay(
    db: Database,
    settings: ConsumerSettings,
    plugin: ReadsTheLog,
    *,
    apply: bool = False,
    rules: Rules | None = None,
    build: Build = upgrade_owner,
) -> ReplayReport:
    """Build the plugin's tables from the log up to its cursor and compare; `rules` asks "what if these had always been in force".

    With `apply` the plugin is paused, and the tables take the place of the live ones.

    Raises:
        ScrmError: the plugin has no place in the log, fails on an event, or `rules` and `apply` are both given.
    """
    if apply and rules is not None:
        raise ScrmError("REPLAY_REFUSED", "a replay with other rules cannot be applied; configure the rules instead")
    consumer = consumer_of(plugin, settings)
    before = await db.write(pause, plugin.name, "a replay is being applied", db.clock()) if apply else None
    try:
        if db.dialect == "sqlite":
            report = await asyncio.to_thread(_on_sqlite, db, consumer, plugin, rules, build, apply)
        else:
            report = await _on_postgresql(db, consumer, plugin, rules, build, apply)
    finally:
        if before is not None and before != "PAUSED":
            await db.write(resume, plugin.name, db.clock())
    return report


class _Discard(Exception):
    def __init__(self, report: ReplayReport) -> None:
        super().__init__()
        self.report = report


async def _on_postgresql(
    db: Database, consumer: Consumer, plugin: ReadsTheLog, rules: Rules | None, build: Build, apply: bool
) -> ReplayReport:
    """The scratch is a schema that lives in one transaction, which ends in a rollback unless the tables are swapped."""
    scratch = f"replay_{plugin.name}_{uuid.uuid4().hex[:8]}"

    def run(tx: Tx) -> ReplayReport:
        connection = tx.connection
        connection.exec_driver_sql("set transaction isolation level repeatable read")
        home = str(connection.exec_driver_sql("select current_schema()").scalar())
        connection.exec_driver_sql(f'create schema "{scratch}"')
        connection.exec_driver_sql(f'set local search_path to "{scratch}"')
        build(connection, plugin, scratch)
        connection.exec_driver_sql(f'set local search_path to "{scratch}", "{home}"')
        report = _Replay(tx, consumer, plugin, rules, db.clock()).run(home, scratch)
        if not apply:
            raise _Discard(report)
        swap_postgresql(connection, [table.name for table in _tables(plugin)], home, scratch)
        return replace(report, applied=True)

    try:
        return await db.write(run)
    except _Discard as done:
        return done.report


def _on_sqlite(
    db: Database, consumer: Consumer, plugin: ReadsTheLog, rules: Rules | None, build: Build, apply: bool
) -> ReplayReport:
    """The scratch is a file; the live database is attached to it, to be read only."""
    live = Path(str(db.url.database)).resolve()
    with tempfile.TemporaryDirectory(prefix="scrm-replay-") as directory:
        file = Path(directory) / "scratch.db"
        engine = sa.create_engine(f"sqlite:///{file}", json_serializer=dumps, json_deserializer=loads, poolclass=sa.NullPool)
        sa.event.listen(engine, "connect", lambda connection, _record: _attach(connection, live))
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("begin"))
        with engine.connect() as connection, connection.begin():
            build(connection, plugin, None)
            report = _Replay(Tx(connection), consumer, plugin, rules, db.clock()).run("live", "main")
        engine.dispose()
        if apply:
            swap_sqlite(live, file, [table.name for table in _tables(plugin)])
            report = replace(report, applied=True)
    return report


def _attach(connection: Any, live: Path) -> None:
    connection.isolation_level = None
    connection.execute("pragma foreign_keys = on")
    connection.execute("attach database ? as live", (f"{live.as_uri()}?mode=ro",))


def _tables(plugin: ReadsTheLog) -> list[sa.Table]:
    metadata = plugin.contribution.tables
    return list(metadata.sorted_tables) if metadata is not None else []


class _Scratch(Applying):
    """A handler's transaction in a replay: nothing is recorded or sent; what is announced is compared with the log."""

    def __init__(
        self,
        tx: Tx,
        consumer: Consumer,
        after: int,
        backfill_to: int,
        at: datetime,
        announced: _Announced,
        *,
        supposing: bool,
    ) -> None:
        super().__init__(tx, consumer, after=after, backfill_to=backfill_to, at=at)
        self._announced = announced
        self._supposing = supposing

    def leave_out(self, event: Event, why: str) -> None:
        """Count it, where rules are supposed under which it might not have been decided."""
        if not self._supposing:
            super().leave_out(event, why)
        self._announced.left_out += 1

    def write_entries(self, tx: Tx, entries: Sequence[Entry], *, number: bool = False) -> None:
        """Compare."""
        self._announced.compare(tx, entries)

    def write_messages(self, tx: Tx, messages: Sequence[Mapping[str, Any]]) -> None:
        """Send nothing."""


@dataclass
class _Announced:
    seen: set[uuid.UUID] = field(default_factory=set)
    differing: int = 0
    left_out: int = 0
    differences: list[Difference] = field(default_factory=list)

    def compare(self, tx: Tx, entries: Sequence[Entry]) -> None:
        columns = (events.c.id, events.c.type, events.c.amount_minor, events.c.currency, events.c.properties)
        rows = {row.id: row for row in tx.rows(sa.select(*columns).where(events.c.id.in_([entry.id for entry in entries])))}
        for entry in entries:
            self.seen.add(entry.id)
            said = _said(entry)
            known = _said(rows[entry.id]) if entry.id in rows else None
            if said != known:
                self.add((entry.id.hex,), known, said)

    def missing(self, ids: Sequence[uuid.UUID]) -> None:
        for event_id in ids:
            if event_id not in self.seen:
                self.add((event_id.hex,), {}, None)

    def add(self, key: tuple[Any, ...], live: Mapping[str, Any] | None, replayed: Mapping[str, Any] | None) -> None:
        self.differing += 1
        if len(self.differences) < _SHOWN:
            self.differences.append(Difference(ANNOUNCEMENTS, key, live, replayed))


def _said(event: Any) -> dict[str, Any]:
    properties = loads(dumps(dict(event.properties)))
    return {"type": event.type, "amount_minor": event.amount_minor, "currency": event.currency, "properties": properties}


class _Replay:
    def __init__(self, tx: Tx, consumer: Consumer, plugin: ReadsTheLog, rules: Rules | None, at: datetime) -> None:
        self._tx, self._consumer, self._plugin, self._at = tx, consumer, plugin, at
        self._supposing = rules is not None
        self._announced = _Announced()
        self._timeline: Timeline = consumer.timeline(tx)
        if rules is not None:
            self._timeline = self._timeline.supposing(rules)
        self._events = 0
        place = tx.row(sa.select(consumers).where(consumers.c.plugin == consumer.name))
        if place is None:
            raise ScrmError("PLUGIN_NOT_FOUND", f"plugin {consumer.name} has no place in the log; run scrm db upgrade")
        self._cursor: int = place.cursor
        self._backfill_to: int = place.backfill_to

    def run(self, live: str, scratch: str) -> ReplayReport:
        for low in range(0, self._cursor + 1, _WINDOW):
            self._feed(self._applied(low, min(low + _WINDOW - 1, self._cursor)))
        tables, differences = {}, []
        for table in _tables(self._plugin):
            tables[table.name], shown = _compare(self._tx, table, live, scratch)
            differences += shown
        logged = [
            row.id for row in self._tx.rows(sa.select(events.c.id).where(events.c.source == f"plugin:{self._consumer.name}"))
        ]
        if logged or self._announced.seen:
            self._announced.missing(logged)
            tables[ANNOUNCEMENTS] = TableReport(len(logged), len(self._announced.seen), self._announced.differing)
            differences += self._announced.differences
        out = self._announced.left_out
        return ReplayReport(self._consumer.name, self._cursor, self._events, tables, differences[:_SHOWN], left_out=out)

    def _applied(self, low: int, high: int) -> list[tuple[int, Event, Rules, bool]]:
        """What was applied while the cursor stood from `low` to `high`, in that order: the cursor, the event, the rules in force,
        and whether it was applied alone."""
        name = self._consumer.name
        turned = sa.select(out_of_turn.c.event_id).where(out_of_turn.c.plugin == name)
        parked = sa.select(parked_events.c.event_id).where(parked_events.c.plugin == name)
        in_turn = sa.select(*EVENT_COLUMNS, events.c.position.label("after"), sa.literal(0).label("n")).where(
            events.c.position >= max(low, 1),
            events.c.position <= high,
            self._consumer.reads(self._timeline.reads),
            events.c.id.not_in(turned),
            events.c.id.not_in(parked),
        )
        elsewhere = (
            sa.select(*EVENT_COLUMNS, out_of_turn.c.after, out_of_turn.c.n)
            .join(events, events.c.id == out_of_turn.c.event_id)
            .where(out_of_turn.c.plugin == name, out_of_turn.c.after >= low, out_of_turn.c.after <= high)
        )
        rows = sorted([*self._tx.rows(in_turn), *self._tx.rows(elsewhere)], key=lambda row: (row.after, row.n))
        return [(row.after, self._event(row), self._in_force(row), row.n > 0) for row in rows]

    def _event(self, row: Row[Any]) -> Event:
        """A decision's event had no position when it was applied."""
        return event_of(row, position=0 if row.source.startswith(SOURCE) and row.n else None)

    def _in_force(self, row: Row[Any]) -> Rules:
        return self._timeline.latest if row.position is None else self._timeline.at(row.position)

    def _feed(self, applied: Sequence[tuple[int, Event, Rules, bool]]) -> None:
        batch: list[tuple[Event, Rules]] = []
        for after, event, rules, alone in applied:
            if alone or len(batch) == _BATCH:
                self._give(batch, after)
                batch = []
            batch.append((event, rules))
            if alone:
                self._give(batch, after)
                batch = []
        self._give(batch, self._cursor)

    def _give(self, batch: Sequence[tuple[Event, Rules]], after: int) -> None:
        if not batch:
            return
        given = self._tx, self._consumer, after, self._backfill_to, self._at, self._announced
        scope = _Scratch(*given, supposing=self._supposing)
        try:
            give(self._consumer, scope, batch)
        except BaseException as error:
            if is_trouble(error) or isinstance(error, ScrmError):
                raise
            first, last = batch[0][0], batch[-1][0]
            where = f"event {first.id.hex}" if first is last else f"events {first.position} to {last.position}"
            message = f"plugin {self._consumer.name} fails in a replay on {where}: {describe(error)}"
            raise ScrmError("REPLAY_FAILED", message) from error
        scope.close()
        self._events += len(batch)


def _compare(tx: Tx, table: sa.Table, live: str, scratch: str) -> tuple[TableReport, list[Difference]]:
    """Walk both tables in the order of their keys."""
    found = _Compared(table)
    for old, new in _walk(_read(tx, table, live, found.keys), _read(tx, table, scratch, found.keys), found.keys):
        found.add(old, new)
    return found.report(), found.shown


class _Compared:
    """What a walk over two tables finds."""

    def __init__(self, table: sa.Table) -> None:
        self.keys = [column.name for column in table.primary_key] or [column.name for column in table.columns]
        self.shown: list[Difference] = []
        self._table = table
        self._counts = {"live": 0, "replayed": 0, "differing": 0}
        compared = _compared(table)
        self._sums = {column.name: [0, 0] for column in compared if isinstance(column.type, sa.Integer)}
        words = [column.name for column in compared if isinstance(column.type, sa.String) and not column.primary_key]
        self._moves: dict[str, Counter[tuple[str | None, str | None]]] = {name: Counter() for name in words}

    def add(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        """Two rows with the same key; None where there is none."""
        self._counts["live"] += old is not None
        self._counts["replayed"] += new is not None
        for name, sums in self._sums.items():
            sums[0] += (old[name] or 0) if old is not None else 0
            sums[1] += (new[name] or 0) if new is not None else 0
        if old == new:
            return
        self._counts["differing"] += 1
        if old is not None and new is not None:
            for name, moves in self._moves.items():
                if old[name] != new[name] and len(moves) <= _MOVES:
                    moves[old[name], new[name]] += 1
        if len(self.shown) < _SHOWN:
            row = old if old is not None else new
            assert row is not None
            names = [name for name in row if old is None or new is None or old[name] != new[name]]
            key = tuple(row[name] for name in self.keys)
            self.shown.append(Difference(self._table.name, key, _only(old, names), _only(new, names)))

    def report(self) -> TableReport:
        """The numbers; words that become too many others are no matter of counting."""
        sums = {name: (old, new) for name, (old, new) in self._sums.items() if old != new}
        said = {name: found.most_common() for name, found in self._moves.items() if 0 < len(found) <= _MOVES}
        moves = {name: [(*words, count) for words, count in found] for name, found in said.items()}
        return TableReport(**self._counts, sums=sums, moves=moves)


def _only(row: Mapping[str, Any] | None, names: Sequence[str]) -> Mapping[str, Any] | None:
    return None if row is None else {name: row[name] for name in names}


def _compared(table: sa.Table) -> list[sa.Column[Any]]:
    """All columns but those that say how something went."""
    return [column for column in table.columns if not MEASURED.items() <= column.info.items()]


def _read(tx: Tx, table: sa.Table, schema: str, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    source = sa.table(table.name, *(sa.column(column.name, column.type) for column in table.columns), schema=schema)
    compared = [source.c[column.name] for column in _compared(table)]
    statement = sa.select(*compared).order_by(*(_sortable(tx, source.c[name]) for name in keys))
    for row in tx.execute(statement):
        yield dict(row._mapping)


def _sortable(tx: Tx, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """By code point on PostgreSQL too, so that the database and Python agree on the order."""
    words = isinstance(column.type, sa.String) and not isinstance(column.type, sa.Enum)
    return column.collate("C") if words and tx.dialect != "sqlite" else column.nulls_last()


def _walk(
    live: Iterator[dict[str, Any]], replayed: Iterator[dict[str, Any]], keys: Sequence[str]
) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """Pairs of rows with the same key, in order; None where one side has no such row."""

    def place(row: dict[str, Any]) -> tuple[tuple[bool, Any], ...]:
        return tuple((row[name] is None, row[name] if row[name] is not None else 0) for name in keys)

    old, new = next(live, None), next(replayed, None)
    while old is not None or new is not None:
        if new is None or (old is not None and place(old) < place(new)):
            yield old, None
            old = next(live, None)
        elif old is None or place(new) < place(old):
            yield None, new
            new = next(replayed, None)
        else:
            yield old, new
            old, new = next(live, None), next(replayed, None)
