"""What becomes of a batch of events: load the rows they touch, fold, store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime

from scrm.api import EVERY, Handler, HandlerTx, LogEvent

from .book import PAID, REFUNDED, Book, Person
from .events import CLEARED, DUE, GRANTED, SET
from .review import review_part
from .rows import load
from .rules import EARNED, TiersRules
from .scheme import keep_scheme

NAME = "tiers"
CONFIGURED = "plugin.configured"
ANNOUNCED = "plugin:"
"""Announcements come from such a source; nobody outside can record one."""
OWN = (SET, CLEARED, GRANTED, DUE)


def follow(tx: HandlerTx, batch: Sequence[LogEvent], rules: TiersRules) -> None:
    """Count what people did, raise levels, review them when that is due."""
    wanted = [event for event in batch if _concerns(event, rules)]
    if not wanted:
        return
    keep_scheme(tx, rules)
    waiting: list[LogEvent] = []
    for event in wanted:
        if event.type == DUE:
            _follow_people(tx, waiting, rules)
            waiting = []
            review_part(tx, event, rules)
        elif event.user_id is not None:
            waiting.append(event)
    _follow_people(tx, waiting, rules)


handler = Handler((*OWN, PAID, REFUNDED, CONFIGURED, EVERY), follow, optional=(EARNED,))


def _concerns(event: LogEvent, rules: TiersRules) -> bool:
    if event.type == CONFIGURED:
        return event.properties.get("plugin") == NAME
    return event.type in (*OWN, PAID, REFUNDED, EARNED) or any(task.fits(event.type, event.properties) for task in rules.tasks)


def _follow_people(tx: HandlerTx, batch: Sequence[LogEvent], rules: TiersRules) -> None:
    if not batch:
        return
    loaded = load(tx, batch, rules)
    for event in batch:
        if event.type == SET and not rules.rank(event.properties["tier"]):
            tx.leave_out(event, f"the scheme has no level {event.properties['tier']}")
        else:
            apply(loaded.book, event)
    loaded.store(tx)


def apply(book: Book, event: LogEvent) -> None:
    """Apply one event to the book."""
    assert event.user_id is not None
    person = book.people[event.user_id]
    book.see(person, event)
    day, said = book.rules.day(event.occurred_at), event.properties
    if event.type in (PAID, REFUNDED):
        _apply_order(book, person, event, day)
    elif event.type == EARNED:
        _apply_points(book, person, event, day)
    elif event.type == GRANTED:
        book.count(person, person.main.id, day, day, (0, 0, 0, said["growth"]))
    elif event.type == SET:
        book.pin(person, event, said["tier"], datetime.fromisoformat(said["until"]).astimezone(UTC))
    elif event.type == CLEARED:
        book.unpin(person, event)
    for task in book.rules.tasks:
        if task.fits(event.type, said):
            book.task(person, task.key, day, task.growth, task.per_day, task.lifetime)
    if event.type not in (SET, CLEARED):
        book.rise(person, event)
    book.tell(person.main, event, event.occurred_at)


def _apply_order(book: Book, person: Person, event: LogEvent, day: date) -> None:
    if not event.amount_minor or event.currency != book.rules.currency:
        return
    order = book.order(person, event)
    if event.type == PAID:
        book.change(person, order, day, paid=event.amount_minor)
    else:
        book.change(person, order, day, refunded=event.amount_minor)


def _apply_points(book: Book, person: Person, event: LogEvent, day: date) -> None:
    points = event.properties.get("points")
    announced = event.source.startswith(ANNOUNCED)
    if not announced or not isinstance(points, int) or isinstance(points, bool) or points <= 0:
        return
    if event.properties.get("orderId"):
        book.change(person, book.order(person, event), day, points=points)
    else:
        book.count(person, person.main.id, day, day, (0, 0, points, 0))
