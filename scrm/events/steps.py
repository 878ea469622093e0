"""One step of a consumer: the next events of the log are applied and its cursor moves, in one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.engine import Row

from scrm.db import Database, Tx
from scrm.due import is_due
from scrm.events.consumers import ACTIVE, DEGRADED, PAUSED, Consumer, hold, is_alone
from scrm.events.handling import EVENT_COLUMNS, Applying, ReadingAhead, event_of, give, is_trouble
from scrm.events.log import share_owners
from scrm.events.models import consumers, events, out_of_turn
from scrm.events.parked import HUNG, Blocked, Failure, failure_of, park
from scrm.events.records import Event
from scrm.events.rules import Timeline
from scrm.events.sequencer import head
from scrm.plugin import Rules

WINDOW = 20_000
"""A step looks at no more places of the log than this, however few of the events are its own."""

ONE_BY_ONE = 50
"""After a batch failed, so many of its events are tried alone in one transaction."""

FAILURES_TO_DEGRADE, TRIED_AT_ONCE = 5, 20
"""So many failed events in a row, each of other people since theirs wait behind them, and none applied: the plugin is broken,
not the event. In one batch more are tried, to find one that can be applied."""

HANGS_TO_DEGRADE = 2
"""So many events in a row from which it did not return."""

_SHORTEST, _LONGEST = timedelta(seconds=10), timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did. `idle`: there is nothing more to do now; `busy`: another worker is at it."""

    applied: int
    parked: int
    cursor: int
    head: int
    idle: bool
    busy: bool = False


class _BrokenError(Exception):
    """Nothing could be applied: what was set aside on the way comes back, and the cursor stays."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Ahead:
    """What was read for a consumer's next event before its step, and the place at which that was."""

    event_id: uuid.UUID
    cursor: int
    turn: int
    value: Any


async def advance(db: Database, consumer: Consumer, *, at: datetime, limit: int = 500) -> Step:
    """One step; what its first event reads of the log is read before, while others may write."""
    ahead = await db.read(read_ahead, consumer) if consumer.ahead else None
    return await db.write(step, consumer, at=at, limit=limit, ahead=ahead)


def read_ahead(tx: Tx, consumer: Consumer) -> Ahead | None:
    """What the handler of the consumer's next event wants to read, if it wants something; where its code fails, nothing: the step
    comes to it again.

    The log up to a place does not change, and the plugin's own tables are what its cursor and the events applied out of turn have
    made of them. While both are the same, what was read is what the handler would read; else it is thrown away.
    """
    place = tx.row(sa.select(consumers).where(consumers.c.plugin == consumer.name)) if is_alone(tx, consumer.name) else None
    top = head(tx)
    if place is None or place.state != ACTIVE or place.cursor >= top:
        return None
    tx.limit_statements(consumer.statement_seconds)
    timeline = consumer.timeline(tx)
    found = next_events(tx, consumer, timeline, place.cursor, min(top, place.cursor + WINDOW), 1)
    if not found or found[0].type not in consumer.ahead or found[0].id in consumer.hung:
        return None
    [event] = found
    scope = ReadingAhead(tx, consumer, after=place.cursor, backfill_to=place.backfill_to, at=event.received_at)
    try:
        with consumer.around([event], scope.end_statement):
            value = consumer.ahead[event.type](scope, event, timeline.at(event.position))
    except BaseException as error:
        if is_trouble(error):
            raise
        return None
    finally:
        scope.close()
    return Ahead(event.id, place.cursor, _turn(tx, consumer.name, place.cursor), value)


def _turn(tx: Tx, plugin: str, cursor: int) -> int:
    """The last event applied out of turn since the cursor came to its place; 0 for none."""
    since = (out_of_turn.c.plugin == plugin, out_of_turn.c.after == cursor)
    return int(tx.scalar(sa.select(sa.func.coalesce(sa.func.max(out_of_turn.c.n), 0)).where(*since)))


def _until_ahead(consumer: Consumer, batch: list[Event], upper: int) -> tuple[list[Event], int]:
    """The batch up to before the first event that reads ahead, unless it is the first of all; and to where it goes."""
    behind = next((place for place, event in enumerate(batch) if place and event.type in consumer.ahead), None)
    return (batch, upper) if behind is None else (batch[:behind], batch[behind - 1].position)


def step(tx: Tx, consumer: Consumer, *, at: datetime, limit: int = 500, ahead: Ahead | None = None) -> Step:
    """Apply the consumer's next events, at most `limit`, and move its cursor; a failure of its code is kept in its row.

    Raises: what the database raises where it is in trouble: nothing has happened then, and the step can be taken again.
    """
    share_owners(tx)
    place = hold(tx, consumer.name)
    if place is None:
        return Step(0, 0, 0, 0, idle=True, busy=True)
    tx.limit_statements(consumer.statement_seconds)
    top = head(tx)
    waits = place.state == DEGRADED and not is_due(place.next_attempt_at, at)
    if place.state == PAUSED or waits or place.cursor >= top:
        return Step(0, 0, place.cursor, top, idle=True)
    upper = min(top, place.cursor + WINDOW)
    timeline = consumer.timeline(tx)  # after `top`: it knows all rules that were in force up to there
    batch = next_events(tx, consumer, timeline, place.cursor, upper, limit)
    if len(batch) == limit:
        upper = batch[-1].position
    batch, upper = _until_ahead(consumer, batch, upper)
    if ahead is not None and (ahead.cursor, ahead.turn) != (place.cursor, _turn(tx, consumer.name, place.cursor)):
        ahead = None
    attempt = _Step(tx, consumer, timeline, place, at, ahead)
    try:
        attempt.prepare(batch)
        cursor = attempt.all_at_once(batch, upper) if place.state == ACTIVE else None
        if cursor is None:
            with tx.connection.begin_nested():
                cursor = attempt.one_by_one(batch, upper)
    except _BrokenError as broken:
        degrade(tx, place, broken.reason, at)
        return Step(0, 0, place.cursor, top, idle=True)
    attempt.move(cursor)
    return Step(attempt.applied, attempt.parked, cursor, top, idle=cursor >= top)


def next_events(tx: Tx, consumer: Consumer, timeline: Timeline, cursor: int, upper: int, limit: int) -> list[Event]:
    """The consumer's events after its cursor, without those it has applied out of turn."""
    applied = sa.exists().where(out_of_turn.c.plugin == consumer.name, out_of_turn.c.event_id == events.c.id)
    statement = sa.select(*EVENT_COLUMNS).where(consumer.reads(timeline.reads), ~applied).order_by(events.c.position)
    found: list[Event] = []
    width = 2 * limit
    while cursor < upper and len(found) < limit:  # a wider stretch each time: where it reads most events, one is enough
        end = min(upper, cursor + width)
        stretch = statement.where(events.c.position > cursor, events.c.position <= end).limit(limit - len(found))
        found += [event_of(row) for row in tx.rows(stretch)]
        cursor, width = end, width * 4
    return found


class _Step:
    def __init__(
        self, tx: Tx, consumer: Consumer, timeline: Timeline, place: Row[Any], at: datetime, ahead: Ahead | None
    ) -> None:
        self._tx, self._consumer, self._place, self._at = tx, consumer, place, at
        self._ahead = ahead
        self._timeline = timeline
        self._rules: dict[uuid.UUID, Rules] = {}
        self.applied = self.parked = self.failed = 0
        self.hung: Failure | None = None

    def prepare(self, batch: Sequence[Event]) -> None:
        """Find the rules in force at each event; rules that the plugin's model no longer takes are the plugin's failure."""
        try:
            self._rules = {event.id: self._timeline.at(event.position) for event in batch}
        except ValidationError as error:
            raise _BrokenError(f"its rules in the log do not fit its model: {error.error_count()} problems") from None

    def all_at_once(self, batch: Sequence[Event], upper: int) -> int | None:
        """Apply the batch whole; the new cursor, or None if it failed and nothing has happened."""
        if any(event.id in self._consumer.hung for event in batch):
            return None
        blocked = Blocked(self._tx, self._consumer.name)
        try:
            with self._tx.connection.begin_nested():
                ready, behind = [], []
                for event in batch:
                    if blocked and blocked.waits(event):
                        park(self._tx, self._consumer, blocked, event, None, self._at)
                        behind.append(event)
                    else:
                        ready.append(event)
                self._apply(ready, last=True)
        except BaseException as error:
            if is_trouble(error):
                raise
            return None
        self.applied, self.parked = len(ready), len(behind)
        return upper

    def one_by_one(self, batch: Sequence[Event], upper: int) -> int:
        """Apply the first events each alone, setting aside what fails and what comes behind it; the new cursor.

        Behind one that hung it stops: others have waited long enough for this transaction.
        """
        blocked = Blocked(self._tx, self._consumer.name)
        last = ""
        for event in batch[:ONE_BY_ONE]:
            if blocked.waits(event):
                park(self._tx, self._consumer, blocked, event, None, self._at)
                self.parked += 1
                continue
            failure = self._try(event)
            if failure is None:
                self.applied += 1
                continue
            self.failed += 1
            last = f"{event.id.hex} at {event.position}: {failure.text}"
            if not self.applied and self.failed >= TRIED_AT_ONCE:
                raise _BrokenError(f"{self.failed} events failed in a row; the last, {last}")
            park(self._tx, self._consumer, blocked, event, failure, self._at)
            self.parked += 1
            if failure.hung:
                self.hung = failure
                return event.position
        in_a_row = self._place.failures + self.failed
        if self.failed and not self.applied and in_a_row >= FAILURES_TO_DEGRADE:
            raise _BrokenError(f"{in_a_row} events failed in a row; the last, {last}")
        return upper if len(batch) <= ONE_BY_ONE else batch[ONE_BY_ONE - 1].position

    def _try(self, event: Event) -> Failure | None:
        if event.id in self._consumer.hung:
            self._consumer.hung.discard(event.id)
            return Failure(HUNG, hung=True)
        try:
            with self._tx.connection.begin_nested():
                self._apply([event])
        except BaseException as error:
            if is_trouble(error):
                raise
            return failure_of(error)
        return None

    def _apply(self, batch: Sequence[Event], *, last: bool = False) -> None:
        if not batch:
            return
        place = self._place
        scope = Applying(self._tx, self._consumer, after=place.cursor, backfill_to=place.backfill_to, at=self._at, number=last)
        if self._ahead is not None:
            scope.give_ahead(self._ahead.event_id, self._ahead.value)
        give(self._consumer, scope, [(event, self._rules[event.id]) for event in batch])
        scope.close()

    def move(self, cursor: int) -> None:
        """Move the cursor; what was applied says that the plugin is well."""
        changed: dict[str, Any] = {"cursor": cursor, "moved_at": self._at}
        if self.applied:
            changed |= {"failures": 0, "next_attempt_at": None}
            if self._place.state == DEGRADED:
                changed |= {"state": ACTIVE, "reason": None, "since": self._at}
        elif self.hung is not None:
            changed |= self._after_hanging(self.hung)
        elif self.failed:
            changed["failures"] = self._place.failures + self.failed
        self._tx.execute(sa.update(consumers).where(consumers.c.plugin == self._consumer.name).values(changed))

    def _after_hanging(self, failure: Failure) -> dict[str, Any]:
        if failure.text == HUNG:  # it has paused for that before this process began
            return {"next_attempt_at": None}
        if self._place.failures + 1 < HANGS_TO_DEGRADE:
            return {"failures": self._place.failures + 1}
        return degraded(self._place, f"it does not return from events; the last: {failure.text}", self._at)


def degrade(tx: Tx, place: Row[Any], reason: str, at: datetime) -> None:
    """Let the plugin rest, each time longer; its cursor stays."""
    tx.execute(sa.update(consumers).where(consumers.c.plugin == place.plugin).values(degraded(place, reason, at)))


def degraded(place: Row[Any], reason: str, at: datetime) -> dict[str, Any]:
    """What becomes of a consumer's row when it has to rest."""
    failures = place.failures + 1 if place.state == DEGRADED else min(place.failures + 1, FAILURES_TO_DEGRADE)
    wait = min(_SHORTEST * 2 ** min(max(failures - FAILURES_TO_DEGRADE, 0), 10), _LONGEST)
    changed = {"state": DEGRADED, "reason": reason, "failures": failures, "next_attempt_at": at + wait}
    return changed if place.state == DEGRADED else {**changed, "since": at}
