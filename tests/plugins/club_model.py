"""The rules of levels a second time: everything that was said is kept, and every value is computed anew from it.

Reviews happen on the stroke of midnight here. In the club they happen when the job comes, or with somebody's next event; a
history is lived in both at once, and compared when the job has run.
"""

from __future__ import annotations

import calendar
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from scrm.testing.client import drain, run_jobs
from tests.plugins.club import Club, bounds

PEOPLE = 3
KEYS = (None, "bronze", "silver", "gold")
SPEND, ORDERS = (0, 300, 600), (0, 2, 3)
LEVELS = bounds("spend", *SPEND, orders=ORDERS)
Step = tuple[str, int, int, int]
"""What happens, to whom (two numbers), and how much."""
KINDS = ("pay",) * 6 + ("refund", "refund", "late", "pin", "unpin") + ("wait",) * 6 + ("job",) * 3 + ("merge", "merge", "unmerge")


@dataclass(frozen=True)
class Scheme:
    window: str
    match: str
    downgrade: str
    grace: int

    @property
    def rules(self) -> dict[str, Any]:
        return {"levels": LEVELS, "review": "MONTH", **vars(self)}


@dataclass(eq=False)
class Order:
    name: str
    first: date | None = None
    paid: list[tuple[date, int]] = field(default_factory=list)
    back: list[tuple[date, int]] = field(default_factory=list)


@dataclass(eq=False)
class Person:
    number: int
    orders: list[Order] = field(default_factory=list)
    known: bool = False
    rank: int = 1
    since: datetime | None = None
    failed: int = 0
    pin: tuple[int, datetime] | None = None
    seen: date = date.min
    reviewed: date = date.min
    history: list[tuple[str, str | None, str | None, datetime]] = field(default_factory=list)


@dataclass(eq=False)
class Merge:
    kept: int
    absorbed: int
    real: bool
    took_pin: bool = False
    key: str = ""


class Model:
    """Everybody, at a local time."""

    def __init__(self, scheme: Scheme, now: datetime) -> None:
        self.scheme, self.now = scheme, now
        self.people = [Person(number) for number in range(PEOPLE)]
        self.into: dict[int, int] = {}
        self.merges: list[Merge] = []

    # ---- who is who

    def root(self, number: int) -> int:
        while number in self.into:
            number = self.into[number]
        return number

    def roots(self) -> list[int]:
        return [number for number in range(PEOPLE) if number not in self.into]

    def group(self, number: int) -> list[Person]:
        return [person for person in self.people if self.root(person.number) == number]

    # ---- values

    def opens(self, day: date) -> date:
        """The first day that counts as of a day."""
        if self.scheme.window == "LIFETIME":
            return date.min
        if self.scheme.window == "CALENDAR_YEAR":
            return date(day.year, 1, 1)
        last = calendar.monthrange(day.year - 1, day.month)[1]
        return date(day.year - 1, day.month, min(day.day, last)) + timedelta(days=1)

    def values(self, number: int, day: date) -> tuple[int, int]:
        spend = count = 0
        for order in (order for person in self.group(number) for order in person.orders):
            if order.first is not None and self.opens(day) <= order.first <= day:
                paid = sum(amount for when, amount in order.paid if when <= day)
                back = sum(amount for when, amount in order.back if when <= day)
                spend += max(paid - back, 0)
                count += paid > back
        return spend, count

    def level(self, values: tuple[int, int]) -> int:
        enough = all if self.scheme.match == "ALL" else any
        fits = [enough((values[0] >= spend, values[1] >= orders)) for spend, orders in zip(SPEND, ORDERS, strict=True)]
        return max(rank for rank, fit in enumerate(fits, 1) if fit)

    # ---- levels

    def move(self, person: Person, cause: str, rank: int, at: datetime) -> None:
        if rank != person.rank:
            person.history.append((cause, KEYS[person.rank], KEYS[rank], at))
            person.rank, person.since, person.failed = rank, at, 0

    def period(self) -> date:
        return self.now.date().replace(day=1)

    def pass_time(self, time: timedelta) -> None:
        """Time passes, and at each midnight that begins a month everybody is reviewed."""
        end = self.now + time
        while (following := (self.period() + timedelta(days=32)).replace(day=1)) <= end.date():
            self.now = datetime.combine(following, datetime.min.time())
            for number in self.roots():
                if self.people[number].known:
                    self.review(number, following)
        self.now = end

    def review(self, number: int, month: date) -> None:
        person, at = self.people[number], datetime.combine(month, datetime.min.time())
        if person.pin is not None and person.pin[1] <= at:
            person.pin = None
        reached = max(self.level(self.values(number, month - timedelta(days=1))), person.pin[0] if person.pin else 0)
        person.reviewed = month
        if reached >= person.rank or self.scheme.downgrade == "NEVER":
            person.failed = 0
            self.move(person, "REVIEW", max(reached, person.rank), at)
        elif person.failed < self.scheme.grace:
            person.failed += 1
        else:
            person.failed = 0
            self.move(person, "REVIEW", person.rank - 1 if self.scheme.downgrade == "ONE_DOWN" else reached, at)

    def meet(self, number: int, day: date) -> Person:
        person = self.people[number]
        if not person.known:
            person.known, person.reviewed = True, self.period()
        person.seen = max(person.seen, day)
        return person

    def rise(self, number: int, at: datetime, cause: str = "UPGRADE", least: int = 0) -> None:
        person = self.people[number]
        day = max(person.seen, person.reviewed - timedelta(days=1))
        rank = max(self.level(self.values(number, day)), least)
        if rank > person.rank:
            self.move(person, cause, rank, max(at, person.since or at))

    # ---- what happens

    def order(self, number: int, name: str) -> Order:
        known = [(person, order) for person in self.group(number) for order in person.orders if order.name == name]
        if known:
            return min(known, key=lambda one: (not one[1].paid, one[0].number != number))[1]
        self.people[number].orders.append(Order(name))
        return self.people[number].orders[-1]

    def trade(self, number: int, name: str, amount: int, at: datetime) -> None:
        number = self.root(number)
        self.meet(number, at.date())
        order = self.order(number, name)
        if amount > 0:
            order.first = order.first or at.date()
            order.paid.append((at.date(), amount))
        else:
            order.back.append((at.date(), -amount))
        self.rise(number, at)

    def give(self, number: int, rank: int, until: datetime) -> None:
        person = self.meet(self.root(number), self.now.date())
        person.pin = rank, until
        self.move(person, "PIN", rank, self.now)

    def take_back(self, number: int) -> bool:
        person = self.people[self.root(number)]
        if person.pin is None or person.pin[1] <= self.now:
            return False
        self.meet(person.number, self.now.date())
        floor, person.pin = person.pin[0], None
        if person.rank <= floor:
            self.move(person, "UNPIN", min(self.level(self.values(person.number, person.seen)), person.rank), self.now)
        return True

    def merge(self, kept: int, absorbed: int) -> Merge:
        made = Merge(kept, absorbed, self.people[absorbed].known)
        if made.real:
            survivor, other = self.meet(kept, self.now.date()), self.meet(absorbed, self.now.date())
            if other.pin is not None and other.pin[1] > self.now and (survivor.pin is None or other.pin > survivor.pin):
                survivor.pin, made.took_pin = other.pin, True
        self.into[absorbed] = kept
        if made.real:
            self.rise(kept, self.now, "MERGE", self.people[absorbed].rank)
        self.merges.append(made)
        return made

    def unmerge(self, merge: Merge) -> None:
        self.merges.remove(merge)
        holder, other = self.people[self.root(merge.kept)], self.people[merge.absorbed]
        if merge.real:
            self.meet(holder.number, self.now.date())
            if merge.took_pin and holder.pin == other.pin:
                holder.pin = None
        del self.into[merge.absorbed]
        if merge.real:  # it was not reviewed while it was part of another
            month = (other.reviewed + timedelta(days=32)).replace(day=1)
            while month <= self.now.date():
                self.review(other.number, month)
                month = (month + timedelta(days=32)).replace(day=1)
            self.meet(other.number, self.now.date())

    # ---- what is shown

    def valid_until(self, person: Person) -> date | None:
        if person.rank == 1 or self.scheme.downgrade == "NEVER":
            return None
        months = [self.period()]
        for _ in range(60):
            months.append((months[-1] + timedelta(days=32)).replace(day=1))
        held = person.pin is not None and person.pin[0] >= person.rank
        ends = person.pin[1] if held and person.pin is not None else self.now
        coming = [month for month in months[1:] if datetime.combine(month, datetime.min.time()) >= ends]
        return coming[self.scheme.grace - person.failed]

    def shown(self, number: int) -> dict[str, Any]:
        person, values = self.people[number], self.values(number, self.now.date())
        history = sorted((line for each in self.group(number) for line in each.history), key=lambda line: line[3])
        return {
            "tier": KEYS[person.rank],
            "projected": KEYS[self.level(values)],
            "values": values,
            "valid until": self.valid_until(person),
            "history": sorted(history, key=repr),
        }


def history(seed: int, length: int, kinds: Sequence[str] = KINDS) -> list[Step]:
    """Random steps."""
    chance = random.Random(seed)
    return [
        (chance.choice(kinds), chance.randrange(PEOPLE), chance.randrange(PEOPLE), chance.randint(1, 400)) for _ in range(length)
    ]


FIELDS = """tier { key } projectedTier { key } progress { value } validUntil
  history(first: 100) { nodes { cause at from { key } to { key } } }"""


class Life:
    """One history, lived twice."""

    def __init__(self, club: Club, scheme: Scheme) -> None:
        self.club = club
        self.model = Model(scheme, club.now.replace(tzinfo=None))
        self.people: list[str] = []

    async def live(self, steps: Sequence[Step]) -> None:
        """Do every step in both; compare everybody after some, when the job has run, and at the end."""
        self.people = [await self.club.member() for _ in range(PEOPLE)]
        for number, step in enumerate(steps):
            self.wait(timedelta(minutes=1))
            await self.do(*step)
            if step[0] == "job" or number == len(steps) - 1:
                await run_jobs(self.club.client, self.club.now)
                await drain(self.club.client)
                await self.club.review()
                await self.compare(list(self.said(steps[: number + 1])))
        await self.club.check()

    async def compare(self, said: Any) -> None:
        for number in self.model.roots():
            found = await self.club.membership(self.people[number], FIELDS)
            lines = [
                (line["cause"], *(line[end] and line[end]["key"] for end in ("from", "to")), self.local(line["at"]))
                for line in found["history"]["nodes"]
            ]
            until = self.local(found["validUntil"]) if found["validUntil"] else None
            assert until is None or until.time() == datetime.min.time()
            shown = {
                "tier": found["tier"]["key"],
                "projected": found["projectedTier"] and found["projectedTier"]["key"],
                "values": tuple(int(row["value"]) for row in found["progress"]),
                "valid until": until.date() if until else None,
                "history": sorted(lines, key=repr),
            }
            assert shown == self.model.shown(number), (number, said)

    def local(self, text: str) -> datetime:
        return datetime.fromisoformat(text).astimezone(self.club.now.tzinfo).replace(tzinfo=None)

    def said(self, steps: Sequence[Step]) -> Iterator[str]:
        for kind, one, other, amount in steps:
            yield f"{kind} {one} {other} {amount}"

    def wait(self, time: timedelta) -> None:
        self.model.pass_time(time)
        self.club.set_time(self.model.now.isoformat())

    def some_time(self, amount: int) -> timedelta:
        """Some days, or until the last day of a month, or the first."""
        if amount % 3:
            return timedelta(days=amount % 90 + 1)
        following = (self.model.now + timedelta(days=33)).replace(day=1)
        return following - timedelta(days=amount % 2) - self.model.now

    async def do(self, kind: str, one: int, other: int, amount: int) -> None:
        user, name, model = self.people[one], f"order {one}-{other % 2}", self.model
        if kind == "pay":
            model.trade(one, name, amount, model.now)
            await self.club.pay(user, name, amount)
        elif kind == "late":  # earlier in this month
            at = max(datetime.combine(model.period(), datetime.min.time()), model.now - timedelta(hours=amount))
            model.trade(one, name, amount, at)
            await self.club.pay(user, name, amount, at.isoformat())
        elif kind == "refund":
            model.trade(one, name, -amount, model.now)
            await self.club.refund(user, name, amount)
        elif kind == "pin":
            until = (model.now + timedelta(days=amount % 90 + 1)).replace(hour=0, minute=0)
            model.give(one, other % 3 + 1, until)
            assert (await self.club.set_tier(user, str(KEYS[other % 3 + 1]), until.isoformat()))["errors"] == []
        elif kind == "unpin":
            done = model.take_back(one)
            errors = (await self.club.clear_tier(user))["errors"]
            assert [error["code"] for error in errors] == ([] if done else ["TIER_NOT_SET"])
        elif kind == "wait":
            self.wait(self.some_time(amount))
        elif kind == "merge" and one != other and one not in model.into and other not in model.into:
            merge = model.merge(one, other)
            merge.key = await self.club.merge(user, self.people[other])
        elif kind == "unmerge" and model.merges:
            merge = model.merges[amount % len(model.merges)]
            model.unmerge(merge)
            await self.club.unmerge(merge.key)
