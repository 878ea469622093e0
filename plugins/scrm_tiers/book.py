"""What people did and which level they have, as a fold over events: `Book` holds the rows that a batch touches.

Nothing here reads a database. A level rises with the event that reaches its bound; it falls at a review only, which is done as of
the last day of its period, whenever it is done: with the first event after it, or with the event that says it is due.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from scrm.api import Announcement, LogEvent, derive_id, instant_text

from .periods import opens_after, opens_on
from .rules import METRICS, TiersRules, Values

PAID, REFUNDED = "order.paid", "order.refunded"
CHANGED = "tier.changed"
SCHEME = "SCHEME"
"""Why `tier.changed` says what a level gives, where the level is the same."""
NOTHING: Values = (0, 0, 0, 0)
DayKey = tuple[uuid.UUID, date, date]
"""Account, the day it counts on, the day it was known."""


@dataclass(slots=True)
class Account:
    """One account, as its row is."""

    id: uuid.UUID
    user_id: uuid.UUID
    holder_id: uuid.UUID
    seen_on: date
    reviewed_on: date
    tier: str | None = None
    since: datetime | None = None
    valid_until: datetime | None = None
    pin: str | None = None
    pinned_until: datetime | None = None
    failures: int = 0
    changes: int = 0
    announced: str | None = None


@dataclass(slots=True)
class Order:
    """What is known of an order."""

    id: uuid.UUID
    account_id: uuid.UUID
    order_id: str
    counted_on: date | None = None
    paid: int = 0
    refunded: int = 0
    refunded_on: date | None = None
    points: int = 0

    @property
    def gross(self) -> Values:
        """What it counts for without refunds."""
        return self.paid, int(self.paid > 0), self.points, 0

    @property
    def cut(self) -> Values:
        """What its refunds take away: of points as much as of the amount, rounded once on their sum."""
        if not self.paid:
            return NOTHING
        back = min(self.refunded, self.paid)
        return back, int(back == self.paid), self.points * back // self.paid, 0


@dataclass(slots=True)
class Person:
    """Somebody with all accounts held; the level stands on `main`."""

    main: Account
    held: list[Account] = field(default_factory=list)
    days: dict[DayKey, Values] = field(default_factory=dict)

    def values(self, window: str, day: date) -> Values:
        """The sums as of a day: of what was known by then, what counts in the window that ends with it."""
        after = opens_after(window, day)
        found = [row for (_, counted, known), row in self.days.items() if after < counted <= day and known <= day]
        spend, orders, points, growth = (sum(column) for column in zip(NOTHING, *found, strict=True))
        return spend, orders, points, growth


@dataclass
class Book:
    """The rows that a batch touches, and what is to be written when it is folded."""

    rules: TiersRules
    people: dict[uuid.UUID, Person] = field(default_factory=dict)
    orders: dict[tuple[uuid.UUID, str], Order] = field(default_factory=dict)
    times: dict[tuple[uuid.UUID, str], dict[date, int]] = field(default_factory=dict)
    """How often each task was counted, by person and task."""
    counted: dict[DayKey, Values] = field(default_factory=dict)
    done: dict[tuple[uuid.UUID, str, date], int] = field(default_factory=lambda: defaultdict(int))
    transitions: list[dict[str, Any]] = field(default_factory=list)
    values: list[dict[str, Any]] = field(default_factory=list)
    announcements: list[Announcement] = field(default_factory=list)

    # ---- what people did

    def count(self, person: Person, account_id: uuid.UUID, counted_on: date, known_on: date, values: Values) -> None:
        """Let something count."""
        if values == NOTHING:
            return
        key = account_id, counted_on, known_on
        person.days[key] = _sum(person.days.get(key, NOTHING), values)
        self.counted[key] = _sum(self.counted.get(key, NOTHING), values)

    def order(self, person: Person, event: LogEvent) -> Order:
        """The order that an event speaks of; a new one is the person's own account's."""
        key = person.main.user_id, event.order_id
        order = self.orders.get(key)
        if order is None:
            order = Order(derive_id(event.id, "order", event.order_id), person.main.id, event.order_id)
            self.orders[key] = order
        return order

    def change(self, person: Person, order: Order, day: date, *, paid: int = 0, refunded: int = 0, points: int = 0) -> None:
        """Add to an order: what it brings counts on the day of its first payment, and so does what its refunds take away."""
        gross, cut = order.gross, order.cut
        order.paid += paid
        order.points += points
        order.refunded += refunded
        if refunded:
            order.refunded_on = max(order.refunded_on or day, day)
        else:
            order.counted_on = order.counted_on or day
        if order.counted_on is not None:
            self.count(person, order.account_id, order.counted_on, day, _less(order.gross, gross))
            known = day if refunded else max(day, order.refunded_on or day)
            self.count(person, order.account_id, order.counted_on, known, _less(cut, order.cut))

    def task(self, person: Person, key: str, day: date, growth: int, per_day: int | None, lifetime: int | None) -> None:
        """Give growth value for a task, unless it has been given as often as may be."""
        times = self.times.setdefault((person.main.user_id, key), {})
        if (per_day is not None and times.get(day, 0) >= per_day) or (lifetime is not None and sum(times.values()) >= lifetime):
            return
        times[day] = times.get(day, 0) + 1
        self.done[person.main.id, key, day] += 1
        self.count(person, person.main.id, day, day, (0, 0, 0, growth))

    # ---- which level they have

    def see(self, person: Person, event: LogEvent) -> None:
        """It is the day of this event: first come the reviews that were due before it. Of one that says a time to come, it is
        the day on which it came."""
        rules, main = self.rules, person.main
        day = rules.day(came_at(event))
        due = rules.review_after(main.reviewed_on)
        while due <= day:
            self.review(person, event, due, *(person.values(rules.window, as_of) for as_of in _as_of(main, _eve(due))))
            due = rules.review_after(due)
        main.seen_on = max(main.seen_on, rules.day(event.occurred_at))

    def rise(self, person: Person, event: LogEvent, cause: str = "UPGRADE", least: int = 0) -> None:
        """Give the level that the values reach by now, or `least`, if it is higher. One that the scheme does not have any more is
        neither: it waits for the review."""
        main = person.main
        reached, day, values = self._now(person)
        rank = max(reached, least)
        if not self.rules.lacks(main.tier) and rank > self.rules.held(main.tier):
            at = max(event.occurred_at, main.since or event.occurred_at)
            self.move(person, event, rank, cause, at, day, values)
        self.settle(main)

    def _now(self, person: Person) -> tuple[int, date, Values]:
        """The highest rank that is reached by now, as of which day, and the values then."""
        main, rules = person.main, self.rules
        over = _eve(rules.review_after(main.reviewed_on))
        days = _as_of(main, min(max(main.seen_on, _eve(main.reviewed_on)), over))
        found = [(rules.reached(values), day, values) for day in days for values in [person.values(rules.window, day)]]
        return max(found, key=lambda each: each[0])

    def review(self, person: Person, event: LogEvent, due: date, values: Values, ahead: Values = NOTHING) -> None:
        """Review a level on its day: `values` are as of the day before. `ahead` are those with what is known already of a day
        to come: a level that they reach was given, and does not fall."""
        rules, main = self.rules, person.main
        at = rules.midnight(due)
        if main.pinned_until is not None and main.pinned_until <= at:
            main.pin = main.pinned_until = None
        held, floor = rules.held(main.tier), rules.rank(main.pin)
        reached = max(rules.reached(values), rules.reached(ahead))
        gone = rules.lacks(main.tier)
        rank = max(reached, floor)
        if rank < held and not gone:
            rank = self._fall(main, held, rank)
        else:
            main.failures = 0
        main.reviewed_on = due
        if rank != held or gone:
            self.move(person, event, rank, "REVIEW", at, _eve(due), values)
        self.settle(main)
        self.tell(main, event, at)

    def _fall(self, main: Account, held: int, rank: int) -> int:
        """Where a failed review leaves somebody who has `held` and would be let fall to `rank`."""
        if self.rules.downgrade == "NEVER":
            return held
        if main.failures < self.rules.grace:
            main.failures += 1
            return held
        main.failures = 0
        return max(rank, held - 1) if self.rules.downgrade == "ONE_DOWN" else rank

    def move(self, person: Person, event: LogEvent, rank: int, cause: str, at: datetime, day: date, values: Values) -> None:
        """Give another level, write it down and announce it."""
        rules, main = self.rules, person.main
        before = rules.held(main.tier)
        left = main.tier if rules.lacks(main.tier) else rules.key(before)
        key = rules.key(rank)
        said = f"{main.id.hex}.{cause}.{day.isoformat()}"
        made = derive_id(event.id, "transition", said)
        row = {"id": made, "account_id": main.id, "number": main.changes + 1, "from_tier": left, "to_tier": key}
        window = {"counted_from": opens_on(rules.window, day), "counted_to": day}
        self.transitions.append({**row, "at": at, "cause": cause, "event_id": event.id, **window})
        for metric, value in zip(METRICS, values, strict=True):
            if metric in rules.metrics:
                required = rules.levels[rank - 1].bounds[metric] if rank else None
                asked = {"metric": metric.upper(), "place": METRICS.index(metric), "value": value, "required": required}
                self.values.append({"transition_id": made, **asked, "currency": rules.currency})
        main.tier, main.since, main.failures, main.changes = key, at, 0, main.changes + 1
        self.settle(main)
        self._announce(main, event, said, {"transition": made.hex, "from": left, "fromLevel": before, "cause": cause}, at)

    def tell(self, main: Account, event: LogEvent, at: datetime) -> None:
        """Announce what the level gives, if that is not what was announced last: the scheme changed, or everybody has it."""
        rules = self.rules
        rank = rules.held(main.tier)
        if not rules.lacks(main.tier) and rules.gives(rank) != main.announced:
            said = {"from": rules.key(rank), "fromLevel": rank, "cause": SCHEME}
            self._announce(main, event, f"{main.id.hex}.{SCHEME}", said, at)

    def _announce(self, main: Account, event: LogEvent, key: str, said: Mapping[str, Any], at: datetime) -> None:
        rules, rank = self.rules, self.rules.held(main.tier)
        level = rules.levels[rank - 1] if rank else None
        main.announced = rules.gives(rank)
        whole = {
            **said,
            "to": rules.key(rank),
            "toLevel": rank,
            "at": instant_text(at),
            "validUntil": instant_text(main.valid_until) if main.valid_until is not None else None,
            "multiplier": str(level.multiplier) if level else "1",
            "benefits": [benefit.model_dump(mode="json") for benefit in level.benefits] if level else [],
        }
        self.announcements.append(Announcement(CHANGED, event, main.user_id, whole, key=key))

    def pin(self, person: Person, event: LogEvent, key: str, until: datetime) -> None:
        """Give a level below which nothing lowers before the end."""
        main, rank = person.main, self.rules.rank(key)
        main.pin, main.pinned_until = key, until
        if rank and (rank != self.rules.held(main.tier) or self.rules.lacks(main.tier)):
            self._by_hand(person, event, rank, "PIN")
        self.settle(main)

    def unpin(self, person: Person, event: LogEvent) -> None:
        """End a pin: who has no more than it gave has what the values give."""
        main, rules = person.main, self.rules
        floor, held = rules.rank(main.pin), rules.held(main.tier)
        main.pin = main.pinned_until = None
        rank = max(self._now(person)[0], rules.base)
        if rank < held <= floor:
            self._by_hand(person, event, rank, "UNPIN")
        self.settle(main)

    def _by_hand(self, person: Person, event: LogEvent, rank: int, cause: str) -> None:
        _, day, values = self._now(person)
        self.move(person, event, rank, cause, event.occurred_at, day, values)

    def settle(self, main: Account) -> None:
        """Say until when the level is sure."""
        main.valid_until = valid_until(self.rules, main)


def valid_until(rules: TiersRules, main: Account) -> datetime | None:
    """The first review at which the level may fall, if nothing is done for it; null where it cannot."""
    held = rules.held(main.tier)
    if rules.lacks(main.tier):
        return rules.midnight(rules.review_after(main.reviewed_on))
    if rules.downgrade == "NEVER" or held <= rules.base:
        return None
    due = rules.review_after(main.reviewed_on)
    if main.pinned_until is not None and rules.rank(main.pin) >= held:
        due = max(due, rules.review_from(main.pinned_until))
    left = max(rules.grace - main.failures, 0)
    return rules.midnight(rules.review_after(due, left) if left else due)


def came_at(event: LogEvent) -> datetime:
    """When it happened, or came, if it says a time to come: events may be dated up to a day ahead."""
    return min(event.occurred_at, event.received_at)


def _as_of(main: Account, day: date) -> list[date]:
    """The days as of which somebody's values are looked at: a day, and a later one of which something is known already."""
    return [day, main.seen_on] if main.seen_on > day else [day]


def _eve(day: date) -> date:
    return date.fromordinal(day.toordinal() - 1)


def _sum(one: Values, other: Values) -> Values:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


def _less(one: Values, other: Values) -> Values:
    return one[0] - other[0], one[1] - other[1], one[2] - other[2], one[3] - other[3]
