"""Who reads the log, and how far each has come."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import Row

from scrm.db import Database, Tx
from scrm.errors import ScrmError
from scrm.events.models import consumers, events
from scrm.events.rules import Timeline, configure, current_rules, read_timeline
from scrm.events.sequencer import head
from scrm.indicators.service import offered_by_core
from scrm.plugin import Contribution, Handler, Indicator, NoRules, Rules
from scrm.watch import Hang, Watch

CORE = "core"
EVERY = "*"
"""As the type of a handler: whatever happens that its plugin has no other handler for, registered or not."""
ACTIVE, DEGRADED, PAUSED = "ACTIVE", "DEGRADED", "PAUSED"
DISABLED = "disabled in the settings"
"""Why a consumer is paused whose plugin is not enabled."""
HOOKS = {"merge": "user.merged", "unmerge": "user.unmerged", "erase": "user.erased"}
"""The hooks that follow what core does to a person, and the event that says so."""

_LOCK = 0x7363  # first half of the advisory locks that keep two workers off one consumer
_TRY = sa.text(f"select pg_try_advisory_xact_lock({_LOCK}, hashtext(:name))")
_WAIT = sa.text(f"select pg_advisory_xact_lock({_LOCK}, hashtext(:name))")


class ReadsTheLog(Protocol):
    """A loaded plugin, as far as consumers care."""

    @property
    def name(self) -> str: ...
    @property
    def contribution(self) -> Contribution: ...
    @property
    def rules(self) -> Rules: ...
    @property
    def hooks(self) -> object: ...
    @property
    def indicators(self) -> Mapping[str, tuple[str, Indicator]]: ...


class ConsumerSettings(Protocol):
    """The settings that matter here."""

    @property
    def zone(self) -> ZoneInfo: ...
    @property
    def currency(self) -> str: ...
    @property
    def announcement_depth(self) -> int: ...


Around = Callable[[Sequence[Any], Callable[[], None]], AbstractContextManager[None]]


def unwatched(_events: Sequence[Any], _end_statement: Callable[[], None]) -> AbstractContextManager[None]:
    """Nobody looks whether the call returns."""
    return nullcontext()


@dataclass(frozen=True)
class Consumer:
    """One reader of the log: its handlers, its hooks for what happens to people, and the model of its rules."""

    name: str
    handlers: Sequence[Handler]
    zone: ZoneInfo
    hooks: object = None
    rules_model: type[Rules] = NoRules
    initial_rules: Rules = field(default_factory=NoRules)
    announcement_depth: int = 8
    tables: frozenset[str] = frozenset()
    """What its handlers may write."""
    facts: frozenset[str] = frozenset()
    """Event types that only its own decisions, announcements and jobs may have said."""
    around: Around = unwatched
    """Put around every call of its code: given the events, and what ends a statement that runs for it."""
    statement_seconds: float = 60.0
    """How long one statement of it may take on PostgreSQL, which ends it then: that is the handler's failure."""
    indicators: Mapping[str, tuple[str, Indicator]] = field(default_factory=dict)
    """Those of the core and of every active plugin by key, each with who offers it."""
    known_rules: dict[uuid.UUID | None, Rules] = field(default_factory=dict)
    """The rules by the event that configured them, as far as they were asked for."""
    hung: set[uuid.UUID] = field(default_factory=set)
    """Events on which it did not return before this process began: not tried again until somebody asks for it."""

    @cached_property
    def routes(self) -> Mapping[str, tuple[Callable[..., Any], ...]]:
        """Per event type whom to call, in the order of declaration."""
        found: dict[str, list[Callable[..., Any]]] = {}
        for handler in self.handlers:
            for type_ in (*handler.types, *handler.optional):
                found.setdefault(type_, []).append(handler.handle)
        return {type_: tuple(handles) for type_, handles in found.items()}

    @cached_property
    def ahead(self) -> Mapping[str, Callable[..., Any]]:
        """Per event type what reads ahead for it."""
        return {type_: read for handler in self.handlers for type_, read in handler.ahead.items()}

    def calls(self, type_: str) -> tuple[Callable[..., Any], ...]:
        """Whom to call for an event of this type."""
        return self.routes.get(type_) or self.routes.get(EVERY, ())

    def reads(self, named: Collection[str] | None) -> sa.ColumnElement[bool]:
        """The condition on an event that it is for this consumer; `named` are the types its rules name, or None for every type.
        Its own facts are not believed to anybody else, who may have got in while nobody knew whose they are.

        It is for a stretch of the log, found by position: an index of the types would find all there ever were."""
        every = EVERY in self.routes
        wanted = sorted({*self.types, *(named or ())}) if every else self.types
        mine = sa.true() if every and named is None else events.c.type.concat("").in_(wanted)
        if not self.facts:
            return mine
        said = sa.or_(
            events.c.source.in_([f"plugin:{self.name}", f"job:{self.name}"]), sa.func.substr(events.c.source, 1, 9) == "mutation:"
        )
        return mine & sa.or_(events.c.type.concat("").not_in(sorted(self.facts)), said)

    @cached_property
    def types(self) -> tuple[str, ...]:
        """Every event type that it names itself."""
        hooked = {type_ for name, type_ in HOOKS.items() if callable(getattr(self.hooks, name, None))}
        return tuple(sorted({*self.routes, *hooked} - {EVERY}))

    @property
    def follows_people(self) -> bool:
        """Whether it does anything when people are merged or parted."""
        return any(callable(getattr(self.hooks, name, None)) for name in ("merge", "unmerge"))

    def rules_of(self, tx: Tx, change: uuid.UUID | None) -> Rules:
        """The rules that this event configured, which is the last that did; None where none did."""
        if change not in self.known_rules:
            self.known_rules[change] = self.timeline(tx).latest
        return self.known_rules[change]

    def timeline(self, tx: Tx) -> Timeline:
        """Its rules over the log."""
        return read_timeline(tx, self.name, self.rules_model, self.initial_rules)


def consumer_of(plugin: ReadsTheLog, settings: ConsumerSettings) -> Consumer:
    """A plugin as a reader of the log."""
    brought = plugin.contribution
    depth = settings.announcement_depth
    tables = frozenset(brought.tables.tables if brought.tables is not None else ())
    handlers = tuple(brought.handlers)
    facts = frozenset(kind.name for kind in brought.event_types if kind.own) | {one.event_type for one in brought.decisions}
    offered = {**offered_by_core(settings.currency, settings.zone), **plugin.indicators}
    found = Consumer(plugin.name, handlers, settings.zone, plugin.hooks, brought.rules, plugin.rules, depth, tables, facts)
    return replace(found, indicators=offered)


def core_consumer(handlers: Sequence[Handler], settings: ConsumerSettings) -> Consumer:
    """The core as a reader of the log: no rules, no hooks."""
    return Consumer(CORE, tuple(handlers), settings.zone, announcement_depth=settings.announcement_depth)


def watched(consumer: Consumer, watch: Watch | None) -> Consumer:
    """The same, with every call of its code watched."""
    if watch is None:
        return consumer

    def around(events: Sequence[Any], end_statement: Callable[[], None]) -> AbstractContextManager[None]:
        return watch.calling(Hang(consumer.name, event_id=events[0].id if len(events) == 1 else None), end_statement)

    return replace(consumer, around=around, statement_seconds=watch.after * 0.8)


def enable(tx: Tx, consumer: Consumer, at: datetime) -> bool:
    """Give the consumer a place at the start of the log, with all there is so far as history; its rules go into the log.

    Returns whether it is new; one that has a place keeps it, and what it has missed while it was disabled is history to it.
    """
    place = sa.select(consumers.c.state, consumers.c.reason).where(consumers.c.plugin == consumer.name)
    row = tx.row(place)
    if row is None and tx.dialect != "sqlite":
        tx.execute(_WAIT, {"name": consumer.name})
        row = tx.row(place)
    if row is not None:
        if (row.state, row.reason) == (PAUSED, DISABLED):
            fresh = {
                "state": ACTIVE,
                "reason": None,
                "since": at,
                "failures": 0,
                "next_attempt_at": None,
                "backfill_to": head(tx),
            }
            tx.execute(sa.update(consumers).where(consumers.c.plugin == consumer.name).values(fresh))
        return False
    backfill_to = 0 if consumer.name == CORE else head(tx)
    fresh = {"plugin": consumer.name, "cursor": 0, "state": ACTIVE, "since": at, "backfill_to": backfill_to, "failures": 0}
    tx.execute(sa.insert(consumers).values(fresh))
    if consumer.rules_model.model_fields and current_rules(tx, consumer.name) is None:
        configure(tx, consumer.name, consumer.initial_rules, at=at, zone=consumer.zone)
    return True


def disable(tx: Tx, plugin: str, at: datetime) -> None:
    """Note that a plugin is disabled, so that what happens meanwhile is history when it is enabled again; one that was paused
    stays so."""
    resting = {"state": PAUSED, "reason": DISABLED, "since": at}
    tx.execute(sa.update(consumers).where(consumers.c.plugin == plugin, consumers.c.state != PAUSED).values(resting))


def is_alone(tx: Tx, name: str) -> bool:
    """Whether no other worker is at it until this transaction ends; on SQLite nobody knows."""
    return tx.dialect == "sqlite" or bool(tx.scalar(_TRY, {"name": name}))


def hold(tx: Tx, name: str, *, wait: bool = False) -> Row[Any] | None:
    """The consumer's row, for this transaction alone; None where it has none, or without `wait` where somebody else has it."""
    if tx.dialect != "sqlite":
        taken = tx.scalar(_WAIT if wait else _TRY, {"name": name})
        if not wait and not taken:
            return None
    return tx.row(sa.select(consumers).where(consumers.c.plugin == name).with_for_update())


def pause(tx: Tx, plugin: str, reason: str, at: datetime) -> str:
    """Stop a plugin's consumer and its decisions when what runs has ended; returns the state it was in.

    Raises:
        ScrmError: nobody of that name reads the log.
    """
    row = _need(hold(tx, plugin, wait=True), plugin)
    tx.execute(sa.update(consumers).where(consumers.c.plugin == plugin).values(state=PAUSED, reason=reason, since=at))
    return str(row.state)


def resume(tx: Tx, plugin: str, at: datetime) -> None:
    """Let a paused or degraded consumer go on at once.

    Raises:
        ScrmError: nobody of that name reads the log.
    """
    _need(hold(tx, plugin, wait=True), plugin)
    fresh = {"state": ACTIVE, "reason": None, "since": at, "failures": 0, "next_attempt_at": None}
    tx.execute(sa.update(consumers).where(consumers.c.plugin == plugin).values(fresh))


def _need(row: Row[Any] | None, plugin: str) -> Row[Any]:
    if row is None:
        raise ScrmError("PLUGIN_NOT_FOUND", f"plugin {plugin} has no place in the log; enable it and run scrm db upgrade")
    return row


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a consumer has come. `backfill` is the share of the history it found that it has read, 0 to 1, or None."""

    plugin: str
    state: str
    reason: str | None
    since: datetime
    cursor: int
    lag: int
    backfill: float | None
    moved_at: datetime | None
    waiting_since: datetime | None = None


def progress(tx: Tx) -> list[Progress]:
    """How far everybody has come, by name."""
    top = head(tx)
    unread = sa.select(events.c.received_at).where(events.c.position > consumers.c.cursor).order_by(events.c.position).limit(1)
    waiting = unread.correlate(consumers).scalar_subquery().label("waiting_since")
    return [
        Progress(
            plugin=row.plugin,
            state=row.state,
            reason=row.reason,
            since=row.since,
            cursor=row.cursor,
            lag=max(top - row.cursor, 0),
            backfill=min(row.cursor / row.backfill_to, 1.0) if row.backfill_to else None,
            moved_at=row.moved_at,
            waiting_since=row.waiting_since,
        )
        for row in tx.rows(sa.select(consumers, waiting).order_by(consumers.c.plugin))
    ]


def lowest_cursor(tx: Tx, names: Sequence[str]) -> int:
    """How far the slowest of these has come; 0 where one has no place."""
    cursors = [row.cursor for row in tx.rows(sa.select(consumers.c.cursor).where(consumers.c.plugin.in_(names)))]
    return min(cursors) if len(cursors) == len(set(names)) else 0


async def wait_for(db: Database, names: Sequence[str], position: int, seconds: float) -> bool:
    """Wait until these consumers have passed the position; False where they have not within that time."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    pause_for = 0.01
    while names and await db.read(lowest_cursor, names) < position:
        if loop.time() + pause_for > until:
            return False
        await asyncio.sleep(pause_for)
        pause_for = min(pause_for * 1.5, 0.1)
    return True


def out_of_turn_row(plugin: str, event_id: uuid.UUID, after: int) -> dict[str, Any]:
    """What the log keeps of an event applied elsewhere than at its position."""
    return {"plugin": plugin, "event_id": event_id, "after": after}
