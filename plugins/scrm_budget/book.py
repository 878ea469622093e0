"""What events do to budgets: plain Python on rows that were loaded, without a database.

`Book` holds the budgets and lines that a batch touches. Every change of a line's money is a line of the journal, and what a line
keeps is the sum of them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from scrm.api import Announcement, Journal, LogEvent, derive_id

from .events import CROSSED
from .models import entries
from .rules import LONGEST_NAME, BudgetRules

RESERVE = "reserve"
NONE, REMAINING, CAPPED, NEGATIVE = "NONE", "REMAINING", "CAPPED", "NEGATIVE"


@dataclass(slots=True)
class Budget:
    """One budget, as its row is."""

    id: uuid.UUID
    chain_id: uuid.UUID
    previous_id: uuid.UUID | None
    name: str
    opens_on: date
    ends_on: date
    closes_on: date
    currency: str
    timezone: str
    rollover: str
    rollover_cap: int | None
    ranges: Mapping[str, Any]
    cause_percent: int
    home: bool
    closed_on: date | None = None

    def closed(self, day: date) -> bool:
        """Whether it takes nothing any more on this day but what reverses something."""
        return day >= self.closes_on or (self.closed_on is not None and day >= self.closed_on)

    def carries(self, rest: int) -> int:
        """What a line takes over of what was left of the line before."""
        if self.rollover == NONE:
            return 0
        if self.rollover == NEGATIVE:
            return rest
        return max(rest, 0) if self.rollover_cap is None else min(max(rest, 0), self.rollover_cap)


@dataclass(slots=True)
class Line:
    """One line, as its row is; the reserve is the one with place 0."""

    id: uuid.UUID
    budget_id: uuid.UUID
    previous_id: uuid.UUID | None
    category: str
    place: int
    policy: str
    planned: int = 0
    allocated: int = 0
    carrying: int = 0
    committed: int = 0
    spent: int = 0
    cap_per_day: int | None = None
    cap_per_user: int | None = None
    expected_roi: int | None = None
    cause: str | None = None
    note: str | None = None

    @property
    def rest(self) -> int:
        """What is left when it is closed: nothing is committed any more then."""
        return self.allocated + self.carrying - self.spent


@dataclass(slots=True)
class Commitment:
    """Money that is kept for something until its deadline."""

    id: uuid.UUID
    line_id: uuid.UUID
    person_id: uuid.UUID | None
    amount: int
    counts_on: date
    reference: str | None
    created_at: datetime
    expires_at: datetime
    spent: int = 0
    released: int = 0
    state: str = "OPEN"
    resolved_at: datetime | None = None

    @property
    def left(self) -> int:
        """What it still keeps, if it is open."""
        return self.amount - self.spent - self.released


@dataclass(slots=True)
class Person:
    """An account, with the last touch that is known."""

    id: uuid.UUID
    user_id: uuid.UUID
    holder_id: uuid.UUID
    touched_at: datetime | None = None
    channel_id: uuid.UUID | None = None
    campaign: str | None = None


@dataclass(slots=True)
class Revenue:
    """A payment or a refund, with the touch that its order came from."""

    id: uuid.UUID
    person_id: uuid.UUID
    order_id: str
    amount: int
    currency: str
    occurred_at: datetime
    day: date
    known: bool = False
    channel_id: uuid.UUID | None = None
    campaign: str | None = None


@dataclass
class Book:
    """The rows that a batch touches, and what is to be written when it is folded."""

    rules: BudgetRules
    budgets: dict[uuid.UUID, Budget] = field(default_factory=dict)
    lines: dict[uuid.UUID, Line] = field(default_factory=dict)
    commitments: dict[uuid.UUID, Commitment] = field(default_factory=dict)
    people: dict[uuid.UUID, list[Person]] = field(default_factory=dict)
    earlier: dict[uuid.UUID, tuple[uuid.UUID | None, str | None] | None] = field(default_factory=dict)
    """By order that came after a newer touch: the last touch before it, channel and campaign, if there was one."""
    """Accounts by who holds them, the holder's own first."""
    orders: dict[tuple[uuid.UUID, str], list[Revenue]] = field(default_factory=dict)
    """What is known of an order, by holder."""
    begun: bool = False
    """Whether there were budgets before."""
    earned: dict[tuple[date, str, uuid.UUID | None, str | None], int] = field(default_factory=dict)
    """What days earned more, by currency, channel and campaign."""
    sources: dict[uuid.UUID, dict[str, uuid.UUID | None]] = field(default_factory=dict)
    """Channels (by id as hex digits) and campaigns of each line."""
    crossed: set[tuple[uuid.UUID, uuid.UUID | None, int]] = field(default_factory=set)
    journal: Journal = field(default_factory=lambda: Journal(entries))
    crossings: list[dict[str, Any]] = field(default_factory=list)
    announcements: list[Announcement] = field(default_factory=list)

    def day(self, event: LogEvent) -> date:
        """The business day of an event."""
        return self.rules.day(event.occurred_at)

    def of_budget(self, budget_id: uuid.UUID) -> list[Line]:
        """The lines of a budget, the reserve first."""
        return sorted((line for line in self.lines.values() if line.budget_id == budget_id), key=lambda line: line.place)

    def own(self, user_id: uuid.UUID) -> Person:
        """A person's own account."""
        return self.people[user_id][0]

    # ---- money

    def post(self, event: LogEvent, line: Line, kind: str, amount: int, **more: Any) -> uuid.UUID | None:
        """Write a line of the journal and let it count; nothing for no money."""
        if not amount:
            return None
        self.count(line, kind, amount, more.get("commitment_id") is not None)
        days = {"counts_on": self.day(event), "cap_day": self.day(event)}
        said = {"budget_id": line.budget_id, "line_id": line.id, "amount": amount, **days, **more}
        return self.journal.line(event, kind, **said)

    def count(self, line: Line, kind: str, amount: int, committed: bool = False) -> None:
        """Add to what a line keeps."""
        if kind == "COMMIT":
            line.committed += amount
        elif kind == "RELEASE":
            line.committed -= amount
        elif kind == "SPEND":
            line.spent += amount
            line.committed -= amount if committed else 0
        elif kind == "REFUND":
            line.spent -= amount
        else:
            line.allocated += amount

    def move(self, event: LogEvent, giver: Line, taker: Line, amount: int, part: object = 0, **more: Any) -> None:
        """Move money from one line to another, by a linked pair."""
        self.count(giver, "TRANSFER_OUT", -amount)
        self.count(taker, "TRANSFER_IN", amount)
        said = {"budget_id": giver.budget_id, "counts_on": self.day(event), "cap_day": self.day(event), **more}
        left, came = {"line_id": giver.id, "amount": -amount}, {"line_id": taker.id, "amount": amount}
        self.journal.pair(event, {**said, **left}, {**said, **came}, part=part)

    def free(self, event: LogEvent, commitment: Commitment, state: str, at: datetime, part: object) -> None:
        """End a commitment: what it still keeps is free again."""
        line, left = self.lines[commitment.line_id], commitment.left
        said = {"commitment_id": commitment.id, "person_id": commitment.person_id, "reference": commitment.reference}
        self.post(event, line, "RELEASE", left, part=part, occurred_at=at, counts_on=self.rules.day(at), **said)
        commitment.released += left
        commitment.state, commitment.resolved_at = state, at

    def sweep(self, event: LogEvent, line_ids: Iterable[uuid.UUID]) -> None:
        """Write down which commitments of these lines have ended by their deadline."""
        wanted = set(line_ids)
        over = (one for one in self.commitments.values() if one.line_id in wanted and one.state == "OPEN")
        for one in sorted(over, key=lambda one: (one.expires_at, one.id)):
            if one.expires_at <= event.received_at:
                self.free(event, one, "EXPIRED", one.expires_at, one.id.hex)

    # ---- what follows from a change

    def settle(self, event: LogEvent, touched: Iterable[uuid.UUID]) -> None:
        """Hand on what lines leave to those that follow them, and announce which thresholds are crossed."""
        lines = [self.lines[key] for key in dict.fromkeys(touched)]
        for line in lines:
            self.carry(line)
        for line in lines:
            self.cross(event, line.budget_id, line, [line])
        for budget_id in dict.fromkeys(line.budget_id for line in lines):
            self.cross(event, budget_id, None, self.of_budget(budget_id))

    def carry(self, line: Line) -> None:
        """Bring the lines that follow a line to what it leaves."""
        for following in [each for each in self.lines.values() if each.previous_id == line.id]:
            following.carrying = self.budgets[following.budget_id].carries(line.rest)
            self.carry(following)

    def carried(self, line: Line, day: date) -> int:
        """What a line has from the one before, which is nothing before that is closed."""
        previous_id = self.budgets[line.budget_id].previous_id
        previous = self.budgets.get(previous_id) if previous_id is not None else None
        return line.carrying if previous is not None and previous.closed(day) else 0

    def cross(self, event: LogEvent, budget_id: uuid.UUID, line: Line | None, lines: list[Line]) -> None:
        """Announce the thresholds that are crossed for the first time, of a line or of a whole budget."""
        spent = sum(each.spent for each in lines)
        funds = sum(each.allocated + self.carried(each, self.day(event)) for each in lines)
        for percent in self.rules.thresholds:
            key = budget_id, line.id if line else None, percent
            if spent <= 0 or spent * 100 < percent * funds or key in self.crossed:
                continue
            self.crossed.add(key)
            part = f"{(line.id if line else budget_id).hex}.{percent}"
            crossing_id = derive_id(event.id, "crossing", part)
            row = {"id": crossing_id, "budget_id": budget_id, "line_id": line.id if line else None, "percent": percent}
            self.crossings.append({**row, "at": event.occurred_at, "spent": spent, "funds": funds, "event_id": event.id})
            said = {"crossing": crossing_id.hex, "budget": budget_id.hex, "line": line.id.hex if line else None}
            currency = self.budgets[budget_id].currency
            more = {"percent": percent, "spent": spent, "funds": funds, "amount": spent, "currency": currency}
            self.announcements.append(Announcement(CROSSED, event, None, {**said, **more}, key=part))

    # ---- what somebody came through

    def touch(self, event: LogEvent, user_id: uuid.UUID) -> None:
        """Remember a touch, if none that came later is known."""
        campaign = campaign_of(event)
        person = self.own(user_id)
        if event.channel_id is None and campaign is None:
            return
        if person.touched_at is None or person.touched_at <= event.occurred_at:
            person.touched_at, person.channel_id, person.campaign = event.occurred_at, event.channel_id, campaign

    def came_through(self, event: LogEvent, user_id: uuid.UUID) -> tuple[uuid.UUID | None, str | None]:
        """The last touch before an order: its own campaign, else the newest within the window, else its own channel."""
        own = campaign_of(event)
        if own is not None:
            return event.channel_id, own
        if event.id in self.earlier:
            return self.earlier[event.id] or (event.channel_id, None)
        since = event.occurred_at - timedelta(days=self.rules.attribution_days)
        known = [(one.touched_at, one) for one in self.people[user_id] if one.touched_at is not None]
        last = max(((at, one) for at, one in known if since <= at <= event.occurred_at), key=lambda pair: pair[0], default=None)
        return (last[1].channel_id, last[1].campaign) if last is not None else (event.channel_id, None)

    def order(self, event: LogEvent, user_id: uuid.UUID, sign: int) -> None:
        """Write down a payment (1) or a refund (-1); a refund that came before its order waits for it."""
        assert event.amount_minor is not None
        key = event.order_id
        known = self.orders.setdefault((user_id, key), [])
        made = Revenue(
            id=derive_id(event.id, "revenue"),
            person_id=self.own(user_id).id,
            order_id=key,
            amount=sign * event.amount_minor,
            currency=event.currency or self.rules.currency,
            occurred_at=event.occurred_at,
            day=self.day(event),
        )
        first = next((one for one in known if one.known), None)
        if first is not None:
            made.known, made.channel_id, made.campaign = True, first.channel_id, first.campaign
        elif sign > 0:
            channel_id, campaign = self.came_through(event, user_id)
            for one in known:
                one.known, one.channel_id, one.campaign = True, channel_id, campaign
                self.earn(one)
            made.known, made.channel_id, made.campaign = True, channel_id, campaign
        if made.known:
            self.earn(made)
        known.append(made)

    def earn(self, one: Revenue) -> None:
        """Let a payment or a refund whose touch is known count for its day."""
        key = one.day, one.currency, one.channel_id, one.campaign
        self.earned[key] = self.earned.get(key, 0) + one.amount

    # ---- what costs something

    def payer(self, event: LogEvent, category: str | None) -> Line | None:
        """The line that pays for an event: the one with its campaign, else its channel, else of a category; of the newest budget
        that is open on its day, in its currency."""
        day, currency = self.day(event), event.currency or self.rules.currency
        found = [one for one in self.budgets.values() if one.opens_on <= day < one.ends_on and one.currency == currency]
        open_now = [one for one in found if not one.closed(self.rules.day(event.received_at))]
        order = sorted(open_now, key=lambda one: (one.opens_on, one.id), reverse=True)
        candidates = [line for budget in order for line in self.of_budget(budget.id) if line.place]
        channel = event.channel_id.hex if event.channel_id is not None else None
        for key in (campaign_of(event), channel):
            named = (line for line in candidates if key is not None and key in self.sources.get(line.id, {}))
            line = next(named, None)
            if line is not None:
                return line
        return next((line for line in candidates if line.category == category), None)


def campaign_of(event: LogEvent) -> str | None:
    """The campaign that an event names."""
    return campaign_in(event.properties)


def campaign_in(properties: Mapping[str, Any]) -> str | None:
    """The campaign that properties name; one that is longer than a line may name is none."""
    said = properties.get("campaign")
    return said if isinstance(said, str) and 0 < len(said) <= LONGEST_NAME else None


def pairs(changes: Mapping[uuid.UUID, int]) -> Iterator[tuple[uuid.UUID, uuid.UUID, int]]:
    """Moves from who gives to who gets, as few as may be in their order, that make these changes."""
    giving = iter([(key, -change) for key, change in changes.items() if change < 0])
    giver, there = next(giving, (None, 0))
    for taker, wanted in changes.items():
        while wanted > 0 and giver is not None:
            amount = min(wanted, there)
            yield giver, taker, amount
            wanted, there = wanted - amount, there - amount
            if not there:
                giver, there = next(giving, (None, 0))
