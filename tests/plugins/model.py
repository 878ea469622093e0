"""A second ledger, written another way: every point is an object of its own. Histories are lived in a shop and here at once."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.plugins.shop import NUMBERS, Shop

VALIDITY, PENDING = 12, 1
PEOPLE = 3
RULES: dict[str, Any] = {"validity_days": VALIDITY, "pending_days": PENDING}

Step = tuple[str, int, int, int]
"""What happens, to whom (two numbers), and how much."""
KINDS = ("pay", "pay", "pay", "pay", "refund", "refund", "redeem", "redeem", "redeem", "wait", "wait", "wait", "merge", "unmerge")


@dataclass(eq=False)
class Point:
    """One point: whose order earned it, who has it, from when to when, and what became of it."""

    home: int
    account: int
    earned: datetime
    available: datetime
    expires: datetime
    state: str = "free"


@dataclass(eq=False)
class Order:
    name: str
    home: int
    points: list[Point] = field(default_factory=list)
    paid: int = 0
    refunded: int = 0
    reversed: int = 0
    waived: int = 0


@dataclass(eq=False)
class Merge:
    kept: int
    absorbed: int
    debt: int
    key: str = ""


@dataclass
class Model:
    """What everybody has; `now` is local time."""

    now: datetime
    into: dict[int, int] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    merges: list[Merge] = field(default_factory=list)
    debt: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PEOPLE), 0))
    earned: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PEOPLE), 0))
    redeemed: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PEOPLE), 0))
    written_off: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PEOPLE), 0))

    def root(self, person: int) -> int:
        while person in self.into:
            person = self.into[person]
        return person

    def roots(self) -> list[int]:
        return [person for person in range(PEOPLE) if person not in self.into]

    def order(self, person: int, name: str) -> Order:
        own = self.root(person)
        known = [order for order in self.orders if order.name == name and self.root(order.home) == own]
        if known:
            return min(known, key=lambda order: (not order.points, order.home != own))
        self.orders.append(Order(name, own))
        return self.orders[-1]

    def pay(self, person: int, name: str, amount: int) -> None:
        account = self.root(person)
        order = self.order(person, name)
        if not order.points:
            order.home = account
        count = (order.paid + amount) // 100 - order.paid // 100
        order.paid += amount
        self.earned[account] += count
        midnight = self.now.replace(hour=0, minute=0)
        for _ in range(count):
            point = Point(order.home, account, self.now, midnight + timedelta(PENDING), midnight + timedelta(VALIDITY))
            if self.debt[account]:
                self.debt[account] -= 1
                point.state = "spent"
            order.points.append(point)
            self.points.append(point)
        self.settle(account, order)

    def refund(self, person: int, name: str, amount: int) -> None:
        order = self.order(person, name)
        order.refunded += amount
        self.settle(self.root(person), order)

    def settle(self, account: int, order: Order) -> None:
        if not order.points or not order.refunded:
            return
        due = len(order.points) * min(order.refunded, order.paid) // order.paid - order.reversed
        for _ in range(due):
            order.reversed += 1
            usable = [point for point in order.points if point.state == "free" and point.expires > self.now]
            gone = sum(
                point.state == "expired" or (point.state == "free" and point.expires <= self.now) for point in order.points
            )
            if usable:
                min(usable, key=lambda point: (point.expires, point.earned)).state = "reversed"
            elif gone > order.waived:
                order.waived += 1
            else:
                self.debt[account] += 1

    def redeem(self, person: int, count: int) -> bool:
        account = self.root(person)
        usable = [
            point
            for point in self.points
            if point.account == account and point.state == "free" and point.available <= self.now < point.expires
        ]
        if len(usable) < count:
            return False
        for point in sorted(usable, key=lambda point: (point.expires, point.earned))[:count]:
            point.state = "spent"
        self.redeemed[account] += count
        return True

    def merge(self, kept: int, absorbed: int) -> Merge:
        made = Merge(kept, absorbed, self.debt[absorbed])
        self.move(absorbed, kept, set(range(PEOPLE)), made.debt)
        self.into[absorbed] = kept
        self.merges.append(made)
        return made

    def unmerge(self, merge: Merge) -> None:
        holder = self.root(merge.kept)
        self.merges.remove(merge)
        del self.into[merge.absorbed]
        homes = {person for person in range(PEOPLE) if self.root(person) == merge.absorbed}
        debt = min(merge.debt, self.debt[holder])
        self.move(holder, merge.absorbed, homes, debt)
        here = merge.kept
        while here != holder:
            onward = next(each for each in self.merges if each.absorbed == here)
            onward.debt = max(onward.debt - debt, 0)
            here = onward.kept

    def move(self, giver: int, taker: int, homes: set[int], debt: int) -> None:
        for point in self.points:
            if point.account == giver and point.home in homes:
                if point.state == "free" and point.expires <= self.now:
                    point.state = "expired"
                    self.written_off[giver] += 1
                point.account = taker
        self.debt[giver] -= debt
        self.debt[taker] += debt

    def numbers(self, person: int) -> dict[str, int]:
        """What the person's account shows."""
        held = [each for each in range(PEOPLE) if self.root(each) == person]
        free = [point for point in self.points if point.account in held and point.state == "free"]
        alive = [point for point in free if point.expires > self.now]
        return {
            "balance": sum(point.available <= self.now for point in alive),
            "pending": sum(point.available > self.now for point in alive),
            "debt": sum(self.debt[each] for each in held),
            "earned": sum(self.earned[each] for each in held),
            "redeemed": sum(self.redeemed[each] for each in held),
            "expired": len(free) - len(alive) + sum(self.written_off[each] for each in held),
        }


def history(seed: int, length: int) -> list[Step]:
    """Random steps."""
    chance = random.Random(seed)
    return [
        (chance.choice(KINDS), chance.randrange(PEOPLE), chance.randrange(PEOPLE), chance.randint(1, 1_200))
        for _ in range(length)
    ]


class Life:
    """One history, lived twice."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.model = Model(shop.now.replace(tzinfo=None))
        self.people: list[str] = []

    async def live(self, steps: Sequence[Step]) -> None:
        """Do every step in both, and compare everybody after each."""
        self.people = [await self.shop.member() for _ in range(PEOPLE)]
        for number, step in enumerate(steps):
            self.wait(timedelta(minutes=1))
            await self.do(*step)
            asked = " ".join(
                f'p{person}: user(id: "{self.people[person]}") {{ points {{ {NUMBERS} }} }}' for person in self.model.roots()
            )
            found = await self.shop.client.data(f"{{ {asked} }}")
            expected = {f"p{person}": {"points": self.model.numbers(person)} for person in self.model.roots()}
            assert found == expected, (number, step, list(self.said(steps[: number + 1])))
        await self.shop.check()

    def said(self, steps: Sequence[Step]) -> Iterator[str]:
        for kind, one, other, amount in steps:
            yield f"{kind} {one} {other} {amount}"

    def wait(self, time: timedelta) -> None:
        self.model.now += time
        self.shop.set_time(self.model.now.isoformat())

    async def do(self, kind: str, one: int, other: int, amount: int) -> None:
        user, name = self.people[one], f"order {one}-{other % 2}"
        if kind == "pay":
            self.model.pay(one, name, 2 * amount)
            await self.shop.pay(user, name, 2 * amount)
        elif kind == "refund":
            self.model.refund(one, name, amount)
            await self.shop.refund(user, name, amount)
        elif kind == "redeem":
            count = amount % 11 + 1
            fits = self.model.redeem(one, count)
            errors = (await self.shop.redeem(user, count))["errors"]
            assert [error["code"] for error in errors] == ([] if fits else ["INSUFFICIENT_POINTS"])
        elif kind == "wait":
            self.wait(timedelta(days=amount % 3 + 1))
        elif kind == "merge" and one != other and one not in self.model.into and other not in self.model.into:
            merge = self.model.merge(one, other)
            merge.key = await self.shop.merge(user, self.people[other])
        elif kind == "unmerge" and self.model.merges:
            merge = self.model.merges[amount % len(self.model.merges)]
            self.model.unmerge(merge)
            await self.shop.unmerge(merge.key)
