"""Events that a plugin could not apply: set aside, later ones of the person behind them, tried again, at last left to people."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row
from sqlalchemy.exc import DBAPIError

from scrm.audit import audit
from scrm.bounded import HangingError
from scrm.db import Tx
from scrm.due import LONGEST_WAIT, due
from scrm.errors import ScrmError, words_of
from scrm.events.consumers import ACTIVE, Consumer, hold, out_of_turn_row
from scrm.events.handling import EVENT_COLUMNS, Applying, describe, event_of, give, is_trouble, with_rules
from scrm.events.log import share_owners
from scrm.events.models import events, out_of_turn, parked_events
from scrm.events.records import Event
from scrm.events.rules import Timeline
from scrm.rowset import id_set

RETRYING, DEAD, BEHIND, SKIPPED = "RETRYING", "DEAD", "BEHIND", "SKIPPED"
ATTEMPTS = 8
"""After so many an event is dead: a person's turn."""

_ENDED = "57014"
"""PostgreSQL's word for a statement that took too long."""
_RELEASED_AT_ONCE = 200
_LINKS = ("user.merged", "user.unmerged")


def back_off(attempts: int) -> timedelta:
    """How long to wait after the n-th failure: 2 s, 4 s, 8 s, … an hour at most."""
    return min(timedelta(seconds=2**attempts), LONGEST_WAIT)


def people_of(event: Event) -> tuple[uuid.UUID, ...]:
    """Whose order of events this one is part of: both people of a merge."""
    if event.type in _LINKS:
        return uuid.UUID(event.properties["kept"]), uuid.UUID(event.properties["absorbed"])
    return () if event.user_id is None else (event.user_id,)


def is_any_parked(tx: Tx, plugins: Sequence[str], event_ids: Iterable[uuid.UUID]) -> bool:
    """Whether one of these plugins has not applied one of these events, because it failed or waits behind one that did."""
    mine = id_set(tx, "mine", list(event_ids))
    aside = sa.exists().where(
        parked_events.c.event_id == mine.c.id, parked_events.c.plugin.in_(plugins), parked_events.c.state != SKIPPED
    )
    return tx.scalar(sa.select(mine.c.id).where(aside).limit(1)) is not None


class Blocked:
    """Whose events wait. People that a waiting merge ties together wait as one group, which has one key."""

    def __init__(self, tx: Tx, plugin: str) -> None:
        self._tx = tx
        self._plugin = plugin
        self._key: dict[uuid.UUID, str] = {}
        waiting = (parked_events.c.plugin == plugin, parked_events.c.state != SKIPPED)
        joined = parked_events.join(events, events.c.id == parked_events.c.event_id)
        people = sa.select(parked_events.c.key, events.c.recorded_user_id).select_from(joined).where(*waiting).distinct()
        for row in tx.rows(people):
            if row.recorded_user_id is not None:
                self._key[row.recorded_user_id] = row.key
        if not self._key:
            return
        links = sa.select(parked_events.c.key, events.c.properties).select_from(joined).where(*waiting, events.c.type.in_(_LINKS))
        for row in tx.rows(links):
            self._key[uuid.UUID(row.properties["kept"])] = self._key[uuid.UUID(row.properties["absorbed"])] = row.key

    def __bool__(self) -> bool:
        return bool(self._key)

    def waits(self, event: Event) -> bool:
        """Whether an earlier event of its people is parked."""
        return any(person in self._key for person in people_of(event))

    def add(self, event: Event) -> str:
        """Let the people of this event wait from here on; returns their group's key."""
        people = people_of(event)
        if not people:
            return f"event:{event.id.hex}"
        known = sorted({self._key[person] for person in people if person in self._key})
        key = known[0] if known else people[0].hex
        for other in known[1:]:
            same = (parked_events.c.plugin == self._plugin, parked_events.c.key == other)
            self._tx.execute(sa.update(parked_events).where(*same).values(key=key))
            self._key.update({person: key for person, old in self._key.items() if old == other})
        self._key.update(dict.fromkeys(people, key))
        return key


HUNG = "it did not return, and its worker had to be started again"


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with an event. What hung is not tried again by itself: each try would hold others up as long."""

    text: str
    hung: bool = False


def failure_of(error: BaseException) -> Failure:
    """What a call raised, as it is kept."""
    raw = error.orig if isinstance(error, DBAPIError) else error
    ended = isinstance(error, DBAPIError) and getattr(raw, "sqlstate", None) == _ENDED
    ended = ended or (isinstance(raw, sqlite3.OperationalError) and words_of(raw) == "interrupted")
    return Failure(describe(error), ended or isinstance(error, HangingError))


def park(tx: Tx, consumer: Consumer, blocked: Blocked, event: Event, failure: Failure | None, at: datetime) -> None:
    """Set one event aside: to be tried again if it failed, for people if it hung, else behind an earlier one."""
    row = {"plugin": consumer.name, "event_id": event.id, "position": event.position, "key": blocked.add(event), "parked_at": at}
    row |= {"attempts": 0 if failure is None else 1, "error": failure.text if failure is not None else None}
    state = BEHIND if failure is None else DEAD if failure.hung else RETRYING
    row |= {"state": state, "next_attempt_at": at + back_off(1) if state == RETRYING else None}
    tx.execute(sa.insert(parked_events).values(row))


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of the parked events that were due."""

    applied: int = 0
    failed: int = 0


def retry_due(tx: Tx, consumer: Consumer, *, at: datetime, limit: int = 50) -> Retried:
    """Try the parked events that are due; behind one that succeeds its person's later events follow in order."""
    share_owners(tx)
    place = hold(tx, consumer.name)
    if place is None or place.state != ACTIVE:
        return Retried()
    tx.limit_statements(consumer.statement_seconds)
    waiting = (
        sa.select(parked_events.c.event_id)
        .where(parked_events.c.plugin == consumer.name, parked_events.c.state == RETRYING)
        .where(due(parked_events.c.next_attempt_at, at))
        .order_by(parked_events.c.position)
        .limit(limit)
    )
    attempt = _Attempt(tx, consumer, place, consumer.timeline(tx), at)
    for row in tx.rows(waiting):
        attempt.of(row.event_id)
    return Retried(attempt.applied, attempt.failed)


class _Attempt:
    def __init__(self, tx: Tx, consumer: Consumer, place: Row[Any], timeline: Timeline, at: datetime) -> None:
        self._tx, self._consumer, self._place, self._timeline, self._at = tx, consumer, place, timeline, at
        self.applied = self.failed = 0

    def of(self, event_id: uuid.UUID) -> None:
        row = self._parked(parked_events.c.event_id == event_id)
        if row is None or not self._apply(row):
            return
        for _ in range(_RELEASED_AT_ONCE):
            following = self._first_behind(row.key)
            if following is None or not self._apply(following):
                return
        release(self._tx, self._consumer.name, row.key, self._at)

    def _first_behind(self, key: str) -> Row[Any] | None:
        return self._parked(parked_events.c.key == key, first_of=key)

    def _parked(self, where: sa.ColumnElement[bool], first_of: str | None = None) -> Row[Any] | None:
        statement = (
            sa.select(*EVENT_COLUMNS, parked_events.c.key, parked_events.c.state, parked_events.c.attempts)
            .join(events, events.c.id == parked_events.c.event_id)
            .where(parked_events.c.plugin == self._consumer.name, parked_events.c.state != SKIPPED, where)
            .order_by(parked_events.c.position)
            .limit(1)
        )
        row = self._tx.row(statement)
        return None if row is None or (first_of is not None and row.state != BEHIND) else row

    def _apply(self, row: Row[Any]) -> bool:
        mine = (parked_events.c.plugin == self._consumer.name, parked_events.c.event_id == row.id)
        event, after = event_of(row), self._place.cursor
        try:
            with self._tx.connection.begin_nested():
                if event.id in self._consumer.hung:
                    raise HangingError(HUNG)
                scope = Applying(self._tx, self._consumer, after=after, backfill_to=self._place.backfill_to, at=self._at)
                give(self._consumer, scope, with_rules([event], self._timeline))
                scope.close()
                self._tx.execute(sa.insert(out_of_turn).values(out_of_turn_row(self._consumer.name, event.id, after)))
        except BaseException as error:
            if is_trouble(error):
                raise
            attempts, failure = row.attempts + 1, failure_of(error)
            self._consumer.hung.discard(event.id)
            state = DEAD if attempts >= ATTEMPTS or failure.hung else RETRYING
            retry_at = self._at + back_off(attempts) if state == RETRYING else None
            changed = {"state": state, "attempts": attempts, "error": failure.text, "next_attempt_at": retry_at}
            self._tx.execute(sa.update(parked_events).where(*mine).values(changed))
            self.failed += 1
            return False
        self._tx.execute(sa.delete(parked_events).where(*mine))
        self.applied += 1
        return True


def release(tx: Tx, plugin: str, key: str, at: datetime) -> None:
    """Let the first event of a group be tried at once, if it only waits behind one that is gone."""
    group = (parked_events.c.plugin == plugin, parked_events.c.key == key, parked_events.c.state != SKIPPED)
    columns = (parked_events.c.event_id, parked_events.c.state)
    first = tx.row(sa.select(*columns).where(*group).order_by(parked_events.c.position).limit(1))
    if first is None or first.state != BEHIND:
        return
    mine = (parked_events.c.plugin == plugin, parked_events.c.event_id == first.event_id)
    tx.execute(sa.update(parked_events).where(*mine).values(state=RETRYING, next_attempt_at=at))


def retry(tx: Tx, plugin: str, event_ids: Iterable[uuid.UUID] | None, *, at: datetime) -> int:
    """Let parked events, these or all that failed, be tried again at once by the worker; returns how many."""
    waiting = [parked_events.c.plugin == plugin, parked_events.c.state.in_([RETRYING, DEAD])]
    if event_ids is not None:
        waiting.append(parked_events.c.event_id.in_(list(event_ids)))
    fresh = {"state": RETRYING, "attempts": 0, "next_attempt_at": at}
    return tx.execute(sa.update(parked_events).where(*waiting).values(fresh)).rowcount


def skip(tx: Tx, plugin: str, event_id: uuid.UUID, *, at: datetime, actor: str) -> None:
    """Give a failed event up: the plugin never applies it, and those behind it go on.

    Raises:
        ScrmError: it has not failed there.
    """
    hold(tx, plugin, wait=True)
    mine = (parked_events.c.plugin == plugin, parked_events.c.event_id == event_id)
    failed = parked_events.c.state.in_([RETRYING, DEAD])
    key = tx.scalar(sa.select(parked_events.c.key).where(*mine, failed))
    if key is None:
        raise ScrmError(
            "NOT_PARKED", f"event {event_id.hex} has not failed in plugin {plugin}; scrm plugins show {plugin} lists what has"
        )
    tx.execute(sa.update(parked_events).where(*mine).values(state=SKIPPED, next_attempt_at=None))
    release(tx, plugin, key, at)
    audit(tx, actor, "plugin.event_skipped", event_id.hex, {"plugin": plugin}, at=at)


def parked_ids(tx: Tx, plugin: str) -> Sequence[uuid.UUID]:
    """Every event that is set aside or given up."""
    return [row.event_id for row in tx.rows(sa.select(parked_events.c.event_id).where(parked_events.c.plugin == plugin))]
