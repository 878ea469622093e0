"""What a handler runs in, and how events are given to it."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.engine import Connection, CursorResult, Row
from sqlalchemy.exc import DBAPIError, InterfaceError

from scrm.db import Id, Tx
from scrm.errors import ScrmError, name_of
from scrm.events.consumers import CORE, HOOKS, Consumer
from scrm.events.log import Entry, append, digest_of, owners, refuse_core_types
from scrm.events.models import events
from scrm.events.records import Announcement, Event, derive_id
from scrm.events.rules import Timeline
from scrm.models import outbox
from scrm.plugin import HandlerTx, Indicator, Rules
from scrm.rowset import row_set, upsert
from scrm.statements import Check, read_statement
from scrm.users.models import merges

_NOT_THE_PLUGIN = ("08", "40", "53", "57P", "58", "55P03")
"""SQLSTATEs of a database in trouble: connection, serialization, deadlock, resources, shutdown, system, no lock."""
_SQLITE_TROUBLE = ("locked", "busy", "disk", "unable to open", "readonly")

MOST_WAITING = 5_000
"""So many announcements of a handler are kept to be written at once; whoever has more to say needs no more memory for it."""

EVENT_COLUMNS = (
    events.c.id,
    events.c.position,
    events.c.type,
    events.c.recorded_user_id.label("user_id"),
    events.c.channel_id,
    events.c.occurred_at,
    events.c.received_at,
    events.c.business_date,
    events.c.amount_minor,
    events.c.currency,
    events.c.properties,
    events.c.source,
    events.c.external_id,
    events.c.cause_id,
    events.c.depth,
    events.c.backfill,
)
"""What an `Event` is read from, in the order of its fields: the owner is the one as of its position."""


Indicators = Mapping[str, tuple[str, Indicator]]
"""Indicators by key, each with who offers it."""


def event_of(row: Row[Any], *, position: int | None = None) -> Event:
    """An event as a handler sees it, from a row that begins with `EVENT_COLUMNS`; `position` where it shall see another."""
    event_id, place, *rest = row[: len(EVENT_COLUMNS)]
    return Event(event_id, (place or 0) if position is None else position, *rest)


class Guarded(HandlerTx):
    """A transaction without its connection, which ends with the call it was made for."""

    def __init__(self, tx: Tx, check: Check, indicators: Indicators | None = None) -> None:
        self.dialect = tx.dialect
        self._open = True
        self._check = check
        self._run = tx.checked
        self._tx: Callable[[], Tx] = lambda: tx
        self.indicators: Indicators = indicators or {}

    def execute(self, statement: sa.Executable, parameters: Any = None) -> CursorResult[Any]:
        """Run a statement; words that end or begin a transaction are refused, and so is writing what is somebody else's."""
        if not self._open:
            raise PermissionError("this transaction has ended; a handler may not keep it")
        return self._run(statement, parameters, self._check)

    @property
    def connection(self) -> Connection:
        """Refused.

        Raises:
            PermissionError: always.
        """
        raise PermissionError("the connection is the host's; use execute, rows, row and scalar")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What fails in here has changed nothing, and the transaction goes on."""
        with self._tx().connection.begin_nested():
            yield

    def close(self) -> None:
        """End it: whoever kept it finds it closed."""
        self._open = False


def reading(tx: Tx, indicators: Indicators | None = None) -> Tx:
    """A transaction that reads and locks, for decisions and jobs; `indicators` are those that it may ask for."""
    return Guarded(tx, partial(_refuse_writing, tx.dialect), indicators)


def _refuse_writing(dialect: str, statement: str) -> None:
    read = read_statement(statement, dialect)
    if read.writes or read.refused:
        raise PermissionError(
            f"only a handler writes; a decision, a job or a read may not send {read.refused or f'what writes {read.writes[0]}'}"
        )


class Applying(Guarded):
    """The transaction of a handler, with what it announces and sends, which `finish` writes; where no code of anybody's comes
    after that, it may `number` what it writes."""

    def __init__(self, tx: Tx, consumer: Consumer, *, after: int, backfill_to: int, at: datetime, number: bool = False) -> None:
        super().__init__(tx, self._refuse_others, consumer.indicators)
        self._consumer = consumer
        self._after = after
        self._backfill_to = backfill_to
        self._at = at
        self._number = number
        self._entries: dict[uuid.UUID, Entry] = {}
        self._messages: list[dict[str, Any]] = []
        self._ahead: dict[uuid.UUID, Any] = {}

    def _refuse_others(self, statement: str) -> None:
        consumer = self._consumer
        if consumer.name == CORE:
            return
        read = read_statement(statement, self.dialect)
        if read.refused:
            raise PermissionError(
                f"plugin {consumer.name} may not send {read.refused}; a handler selects, inserts, updates and deletes"
            )
        for table in read.writes:
            if table not in consumer.tables:
                raise PermissionError(f"plugin {consumer.name} may not write {table}; {_own_tables(consumer)}")

    def give_ahead(self, event_id: uuid.UUID, value: Any) -> None:
        """Let the handler find what was read ahead for this event."""
        self._ahead[event_id] = value

    def ahead(self, event: Event) -> Any:
        """What was read ahead for this event; None where nothing was."""
        return self._ahead.get(event.id)

    def announce(self, announcement: Announcement) -> uuid.UUID:
        """Record an event as an effect of the one being handled; doing it again changes nothing. Returns its id.

        Raises:
            ScrmError: announcements follow from announcements deeper than the setting allows.
        """
        cause, name = announcement.cause, self._consumer.name
        if name != CORE:
            refuse_core_types(announcement.type)
        if cause.depth >= self._consumer.announcement_depth:
            raise ScrmError(
                "ANNOUNCEMENT_TOO_DEEP",
                f"{announcement.type} would be announcement {cause.depth + 1} in a row;"
                f" announcement_depth allows {self._consumer.announcement_depth}",
            )
        event_id = derive_id(cause.id, name, announcement.type, announcement.key)
        self._entries[event_id] = Entry(
            id=event_id,
            type=announcement.type,
            user_id=announcement.user_id,
            channel_id=cause.channel_id,
            occurred_at=cause.occurred_at,
            received_at=self._at,
            business_date=cause.business_date,
            amount_minor=announcement.amount_minor,
            currency=announcement.currency,
            properties=dict(announcement.properties),
            source=CORE if name == CORE else f"plugin:{name}",
            external_id=f"{cause.id.hex}:{announcement.type}:{announcement.key}",
            late=False,
            digest=digest_of([announcement.amount_minor, announcement.currency, dict(announcement.properties)]),
            cause_id=cause.id,
            depth=cause.depth + 1,
            backfill=self._is_history(cause),
        )
        if len(self._entries) >= MOST_WAITING:
            self._write(number=False)
        return event_id

    def send(self, kind: str, payload: Mapping[str, Any], *, cause: Event, key: str = "0") -> None:
        """Put something into the outbox for the plugin's deliverer; nothing is sent for history that is being filled in."""
        if self._is_history(cause):
            return
        message = {
            "id": derive_id(cause.id, "outbox", self._consumer.name, kind, key),
            "plugin": self._consumer.name,
            "kind": kind,
        }
        state = {"state": "PENDING", "attempts": 0, "created_at": self._at, "next_attempt_at": self._at}
        self._messages.append({**message, **state, "payload": dict(payload)})

    def history(
        self,
        types: Sequence[str] | None,
        *,
        until: Event,
        users: Sequence[uuid.UUID] | None = None,
        since: datetime | None = None,
    ) -> sa.Subquery:
        """The log up to the position of `until` and its `occurred_at`, each event with its owner as of that position."""
        horizon = until.position or self._after
        owner: sa.ColumnElement[Any] = events.c.recorded_user_id
        source: sa.FromClause = events
        moved = _owners_at(self._tx(), horizon)
        if self.settled(until):
            owner = events.c.user_id  # the same, and it has an index
        elif moved:
            rows = [{"said": absorbed, "owner": kept} for absorbed, kept in moved.items()]
            said = row_set(self._tx(), "moved_owners", {"said": Id, "owner": Id}, rows)
            source = events.outerjoin(said, said.c.said == events.c.recorded_user_id)
            owner = sa.func.coalesce(said.c.owner, events.c.recorded_user_id, type_=Id)
        kept = [column for column in EVENT_COLUMNS if column.name != "user_id"]
        statement = (
            sa.select(*kept, owner.label("user_id"))
            .select_from(source)
            .where(events.c.position <= horizon, events.c.occurred_at <= until.occurred_at)
        )
        if types is not None:
            statement = statement.where(events.c.type.in_(types))
        if users is not None:
            statement = statement.where(owner.in_(users))
        if since is not None:
            statement = statement.where(events.c.occurred_at >= since)
        return statement.subquery()

    def view_until(self, until: Event) -> Tx:
        """The same to read with, where the log ends with this event."""
        view = Guarded(self._tx(), partial(_refuse_writing, self.dialect), self.indicators)
        view.log, view.log_is_settled = self.history(None, until=until), self.settled(until)
        return view

    def settled(self, until: Event) -> bool:
        """Whether everybody's events are whose they were at the place of this event: nobody was merged or parted since."""
        merged, undone = events.alias("merged"), events.alias("undone")
        later = (
            sa.select(sa.literal(1))
            .select_from(merges)
            .outerjoin(merged, merged.c.id == merges.c.event_id)
            .outerjoin(undone, undone.c.id == merges.c.undone_by)
            .where(
                sa.or_(
                    *(
                        _after(each, said, until.position or self._after)
                        for each, said in ((merged, merges.c.event_id), (undone, merges.c.undone_by))
                    )
                )
            )
        )
        return self._tx().scalar(later.limit(1)) is None

    def end_statement(self) -> None:
        """End the statement that runs now, from another thread; PostgreSQL does it by itself."""
        self._tx().end_statement()

    def finish(self) -> None:
        """Write what was announced and sent."""
        self._write(number=self._number)
        if self._messages:
            self.write_messages(self._tx(), self._messages)
        self._messages = []

    def _write(self, *, number: bool) -> None:
        if self._entries:
            self.write_entries(self._tx(), list(self._entries.values()), number=number)
        self._entries = {}

    def write_entries(self, tx: Tx, entries: Sequence[Entry], *, number: bool = False) -> None:
        """Record announcements for whoever their users are by now."""
        now = owners(tx, {entry.user_id for entry in entries if entry.user_id is not None})
        append(tx, [_owned(entry, now) for entry in entries], number=number)

    def write_messages(self, tx: Tx, messages: Sequence[Mapping[str, Any]]) -> None:
        """Put messages into the outbox; one that was put there before stays."""
        tx.execute(upsert(tx, outbox).on_conflict_do_nothing(index_elements=["id"]), list(messages))

    def _is_history(self, cause: Event) -> bool:
        return cause.backfill or 0 < cause.position <= self._backfill_to


class ReadingAhead(Applying):
    """The same before it is the handler's turn: it reads, and may change nothing."""

    def _refuse_others(self, statement: str) -> None:
        _refuse_writing(self.dialect, statement)

    def announce(self, announcement: Announcement) -> uuid.UUID:
        """Refused.

        Raises:
            PermissionError: always.
        """
        raise PermissionError("what reads ahead announces nothing; its handler does")

    def send(self, kind: str, payload: Mapping[str, Any], *, cause: Event, key: str = "0") -> None:
        """Refused.

        Raises:
            PermissionError: always.
        """
        raise PermissionError("what reads ahead sends nothing; its handler does")


def _after(event: sa.FromClause, said: sa.ColumnElement[Any], horizon: int) -> sa.ColumnElement[bool]:
    return sa.and_(said.is_not(None), sa.or_(event.c.position.is_(None), event.c.position > horizon))


def _own_tables(consumer: Consumer) -> str:
    return f"its own tables are {', '.join(sorted(consumer.tables))}" if consumer.tables else "it has no tables of its own"


def _owned(entry: Entry, now: Mapping[uuid.UUID, uuid.UUID]) -> Entry:
    owner = now.get(entry.user_id, entry.user_id) if entry.user_id is not None else None
    if owner == entry.user_id:
        return entry
    return replace(entry, user_id=owner)


def _owners_at(tx: Tx, horizon: int) -> dict[uuid.UUID, uuid.UUID]:
    """Whose each absorbed user's events are at this place in the log."""
    merged, undone = events.alias("merged"), events.alias("undone")
    statement = (
        sa.select(merges.c.absorbed_id, merges.c.kept_id)
        .join(merged, merged.c.id == merges.c.event_id)
        .outerjoin(undone, undone.c.id == merges.c.undone_by)
        .where(merged.c.position <= horizon, sa.or_(undone.c.position.is_(None), undone.c.position > horizon))
    )
    into = {row.absorbed_id: row.kept_id for row in tx.rows(statement)}
    found = {}
    for absorbed in into:
        owner, passed = into[absorbed], {absorbed}
        while owner in into and owner not in passed:
            passed.add(owner)
            owner = into[owner]
        found[absorbed] = owner
    return found


@dataclass(frozen=True, slots=True)
class _Run:
    type: str
    calls: tuple[Callable[..., Any], ...]
    rules: Rules
    events: list[Event]


def give(consumer: Consumer, scope: Applying, batch: Sequence[tuple[Event, Rules]]) -> None:
    """Call the consumer's handlers and hooks on events in their order, as many at once as share handler and rules."""
    for run in _runs(consumer, batch):
        for call in run.calls:
            with consumer.around(run.events, scope.end_statement):
                result = call(scope, run.events, run.rules)
            if inspect.iscoroutine(result):
                result.close()
            if inspect.isawaitable(result):
                raise TypeError("a handler must be a plain function, not async")
        hook = next((name for name, type_ in HOOKS.items() if type_ == run.type), None)
        if hook is not None:
            for event in run.events:
                with consumer.around([event], scope.end_statement):
                    _follow(consumer, scope, hook, event, run.rules)
    scope.finish()


def with_rules(batch: Iterable[Event], timeline: Timeline) -> list[tuple[Event, Rules]]:
    """Each event with the rules in force at it."""
    return [(event, timeline.at(event.position)) for event in batch]


def _runs(consumer: Consumer, batch: Sequence[tuple[Event, Rules]]) -> Iterator[_Run]:
    followed = set(HOOKS.values())

    def key(item: tuple[int, tuple[Event, Rules]]) -> tuple[Any, ...]:
        index, (event, rules) = item
        calls = consumer.calls(event.type)
        alone = len(calls) != 1 or event.type in followed
        return (index if alone else -1, tuple(map(id, calls)), id(rules))

    for _, items in groupby(enumerate(batch), key):
        members = [pair for _, pair in items]
        first, rules = members[0]
        yield _Run(first.type, consumer.calls(first.type), rules, [event for event, _ in members])


def _follow(consumer: Consumer, scope: Applying, hook: str, event: Event, rules: Rules) -> None:
    function = getattr(consumer.hooks, hook, None)
    if not callable(function):
        return
    said = event.properties
    if hook == "erase":
        function(scope, event, uuid.UUID(said["user"]), uuid.UUID(said["pseudonym"]))
        return
    people = uuid.UUID(said["kept"]), uuid.UUID(said["absorbed"])
    if hook == "unmerge":
        function(scope, event, *people, _merge_event(scope, uuid.UUID(said["merge"])), rules)
    else:
        function(scope, event, *people, rules)


def _merge_event(tx: Tx, merge: uuid.UUID) -> uuid.UUID:
    found = tx.scalar(sa.select(merges.c.event_id).where(sa.or_(merges.c.id == merge, merges.c.event_id == merge)))
    return found or merge


def is_trouble(error: BaseException) -> bool:
    """Whether it is the trouble of the database or the process, so that the step is tried again, and not a plugin's failure."""
    if isinstance(error, asyncio.CancelledError):
        return is_cancelled(error)
    if isinstance(error, GeneratorExit) or name_of(error) == "GreenletExit":
        return True
    try:
        return _is_the_databases(error)
    except BaseException:  # a plugin's own error may raise where it is looked at
        return False


def _is_the_databases(error: BaseException) -> bool:
    if isinstance(error, DBAPIError) and (error.connection_invalidated or isinstance(error, InterfaceError)):
        return True
    raw = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(raw, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_NOT_THE_PLUGIN)
    return isinstance(raw, sqlite3.OperationalError) and any(word in str(raw) for word in _SQLITE_TROUBLE)


def is_cancelled(error: BaseException) -> bool:
    """Whether it is the running task's own cancelling, and not something that was raised to look like it."""
    try:
        task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0


_ON_THE_WAY = ("/sqlalchemy/", "/scrm/events/", "/scrm/db.py", "/scrm/rowset.py")
"""What a statement goes through between whoever wrote it and the database."""


def describe(error: BaseException) -> str:
    """What failed and where, without any value: an exception's own words may hold personal data."""
    if isinstance(error, ScrmError) and type(error.code) is str:
        return error.code
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not any(part in frame.filename for part in _ON_THE_WAY)]
    where = theirs[-1] if theirs else (frames[-1] if frames else None)
    name = name_of(error)
    state = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
    if state:
        name = f"{name} {state}"
    if where is None:
        return name
    return f"{name} in {where.name} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"
