"""A second ledger, written another way: every point is an object of its own. Histories are lived in a shop and here at once."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import Tx
from scrm_loyalty.models import accounts, entries
from tests.plugins.shop import NUMBERS, Shop

VALIDITY, PENDING = 12, 1
PEOPLE = 3
RULES: dict[str, Any] = {"validity_days": VALIDITY, "pending_days": PENDING}

Step = tuple[str, int, int, int]
"""What happens, to whom (two numbers), and how much."""
KINDS = ("pay", "pay", "pay", "pay", "refund", "refund", "redeem", "redeem", "redeem", "wait", "wait", "wait", "merge", "unmerge")
HOLDING = (*KINDS, "hold", "hold", "hold", "hold", "capture", "capture", "release", "release")
CORRECTING = (*HOLDING, "undo", "undo", "undo", "undo", "adjust", "adjust", "transfer", "transfer", "redeem", "expire")


@dataclass(eq=False)
class Point:
    """One point: whose order earned it, who has it, from when to when, and what became of it."""

    home: int
    account: int
    earned: datetime
    available: datetime
    expires: datetime
    state: str = "free"
    moved: bool = False
    hold: Hold | None = None

    def free(self, now: datetime) -> bool:
        return self.state == "free" and (self.hold is None or not self.hold.holds(now))


@dataclass(eq=False)
class Hold:
    """Points that are kept, until when; `key` is its id in the shop."""

    account: int
    home: int
    points: list[Point]
    deadline: datetime
    state: str = "OPEN"
    key: str = ""

    def holds(self, now: datetime) -> bool:
        return self.state == "OPEN" and now < self.deadline


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


@dataclass(eq=False)
class Line:
    """A redemption, or an adjustment: its account, its points, and its id in the shop."""

    account: int
    points: list[Point]
    gave: bool = False
    redeemed: bool = True
    undone: bool = False
    key: str = ""


@dataclass
class Model:
    """What everybody has; `now` is local time."""

    now: datetime
    hour: datetime | None = None
    into: dict[int, int] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    merges: list[Merge] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
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
        others = [
            each for each in self.orders if each is not order and each.name == order.name and self.root(each.home) == account
        ]
        alike = [order, *sorted(others, key=lambda each: (not each.points, each.home != account))]
        points, paid = sum(len(each.points) for each in alike), sum(each.paid for each in alike)
        refunded = sum(each.refunded for each in alike)
        if not points or not refunded:
            return
        due = points * min(refunded, paid) // paid - sum(each.reversed for each in alike)
        for each in alike:
            for _ in range(min(max(due, 0), len(each.points) - each.reversed)):
                due -= 1
                self.reverse(account, each)

    def reverse(self, account: int, order: Order) -> None:
        order.reversed += 1
        own = [point for point in order.points if not point.moved]
        usable = [point for point in own if point.free(self.now) and point.expires > self.now]
        gone = sum(point.state == "expired" or (point.state == "free" and point.expires <= self.now) for point in own)
        if gone > order.waived:
            order.waived += 1
        elif usable:
            min(usable, key=lambda point: (point.expires, point.earned)).state = "reversed"
        else:
            self.debt[account] += 1

    def redeem(self, person: int, count: int) -> bool:
        account = self.root(person)
        usable = self.usable(account)
        if len(usable) < count:
            return False
        self.spend(account, usable[:count])
        return True

    def spend(self, account: int, points: list[Point]) -> None:
        for point in points:
            point.state = "spent"
        self.redeemed[account] += len(points)
        self.lines.append(Line(account, points))

    def usable(self, account: int) -> list[Point]:
        """What can be spent, in the order in which it is."""
        own = [point for point in self.points if point.account == account and point.free(self.now)]
        return soonest(point for point in own if point.available <= self.now < point.expires)

    def hold(self, person: int, count: int, time: timedelta) -> Hold | None:
        account = self.root(person)
        usable = self.usable(account)
        if len(usable) < count:
            return None
        made = Hold(account, account, usable[:count], self.now + time)
        for point in made.points:
            point.hold = made
        self.holds.append(made)
        return made

    def resolve(self, hold: Hold, count: int) -> str | None:
        """Spend so many of a hold, or release it (0); why not."""
        if hold.state != "OPEN":
            return "HOLD_ALREADY_RESOLVED"
        if not hold.holds(self.now):
            return "HOLD_EXPIRED"
        if count:
            self.spend(hold.account, soonest(hold.points)[:count])
        hold.state = "CAPTURED" if count else "RELEASED"
        return None

    def undo(self, line: Line) -> str | None:
        """Give back what a line took, or take back what it gave; why not."""
        if line.undone:
            return "ENTRY_ALREADY_REVERSED"
        if line.gave:
            alive = [point for point in line.points if point.free(self.now) and not point.moved and point.expires > self.now]
            if len(alive) < len(line.points):
                return "INSUFFICIENT_POINTS"
            for point in line.points:
                point.state = "spent"
        else:
            owes = self.root(line.account)
            repaid = min(self.debt[owes], len(line.points)) if line.redeemed else 0
            self.debt[owes] -= repaid
            for point in soonest(line.points)[repaid:]:
                point.state = "free"
            self.redeemed[line.account] -= len(line.points) if line.redeemed else 0
        line.undone = True
        return None

    def adjust(self, person: int, count: int) -> Line | None:
        account = self.root(person)
        if count < 0:
            usable = self.usable(account)[:-count]
            if len(usable) < -count:
                return None
            for point in usable:
                point.state = "spent"
            return Line(account, usable, redeemed=False)
        repaid = min(self.debt[account], count)
        self.debt[account] -= repaid
        until = self.now.replace(hour=0, minute=0) + timedelta(VALIDITY)
        made = [Point(account, account, self.now, self.now, until) for _ in range(count - repaid)]
        self.points += made
        return Line(account, made, gave=True)

    def transfer(self, person: int, other: int, count: int) -> str | None:
        giver, taker = self.root(person), self.root(other)
        if giver == taker:
            return "SAME_ACCOUNT"
        usable = self.usable(giver)[:count]
        if len(usable) < count:
            return "INSUFFICIENT_POINTS"
        for point in usable:
            point.account, point.home, point.moved, point.earned = taker, taker, True, self.now
        return None

    def expire(self) -> None:
        """Write off what had lapsed at the full hour, once an hour."""
        due = self.now.replace(minute=0)
        if due == self.hour:
            return
        self.hour = due
        for point in self.points:
            if point.free(due) and point.expires <= due and point.free(self.now):
                point.state = "expired"
                self.written_off[point.account] += 1

    def merge(self, kept: int, absorbed: int) -> Merge:
        made = Merge(kept, absorbed, self.debt[absorbed])
        self.move(absorbed, kept, set(range(PEOPLE)), made.debt)
        self.into[absorbed] = kept
        self.merges.append(made)
        for name in sorted({order.name for order in self.orders if self.root(order.home) == kept}):
            self.settle(kept, self.order(kept, name))
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
                if point.free(self.now) and point.expires <= self.now:
                    point.state = "expired"
                    self.written_off[giver] += 1
                hold = point.hold
                if point.state == "free" and hold is not None and hold.holds(self.now) and hold.home not in homes:
                    point.home, point.moved, point.earned = hold.home, True, self.now
                else:
                    point.account = taker
        for hold in self.holds:
            if hold.account == giver and hold.home in homes:
                hold.account = taker
        self.debt[giver] -= debt
        self.debt[taker] += debt

    def numbers(self, person: int) -> dict[str, int]:
        """What the person's account shows."""
        held = [each for each in range(PEOPLE) if self.root(each) == person]
        own = [point for point in self.points if point.account in held and point.state == "free"]
        free = [point for point in own if point.free(self.now)]
        alive = [point for point in free if point.expires > self.now]
        return {
            "balance": sum(point.available <= self.now for point in alive),
            "pending": sum(point.available > self.now for point in alive),
            "held": len(own) - len(free),
            "debt": sum(self.debt[each] for each in held),
            "earned": sum(self.earned[each] for each in held),
            "redeemed": sum(self.redeemed[each] for each in held),
            "expired": len(free) - len(alive) + self.written_off_of(person),
        }

    def written_off_of(self, person: int) -> int:
        """Points of the person that an entry says have expired."""
        return sum(self.written_off[each] for each in range(PEOPLE) if self.root(each) == person)


def soonest(points: Iterable[Point]) -> list[Point]:
    """Points in the order in which they are spent."""
    return sorted(points, key=lambda point: (point.expires, point.earned))


def sums(tx: Tx) -> dict[str, int]:
    """What all entries of each person sum to."""
    joined = sa.select(accounts.c.holder_id, sa.cast(sa.func.sum(entries.c.points), sa.BigInteger).label("points"))
    rows = tx.rows(joined.join(entries, entries.c.account_id == accounts.c.id).group_by(accounts.c.holder_id))
    return {f"User_{row.holder_id.hex}": row.points for row in rows}


def history(seed: int, length: int, kinds: Sequence[str] = KINDS) -> list[Step]:
    """Random steps."""
    chance = random.Random(seed)
    return [
        (chance.choice(kinds), chance.randrange(PEOPLE), chance.randrange(PEOPLE), chance.randint(1, 1_200))
        for _ in range(length)
    ]


def named(payload: dict[str, Any]) -> dict[str, str]:
    """The entry and the hold of a payload, by id."""
    return {part: payload[part]["id"] for part in ("entry", "hold") if payload.get(part)}


class Life:
    """One history, lived twice."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.model = Model(shop.now.replace(tzinfo=None))
        self.people: list[str] = []
        self.calls: list[tuple[str, str, dict[str, Any], dict[str, str]]] = []

    async def live(self, steps: Sequence[Step]) -> None:
        """Do every step in both, and compare everybody after each."""
        self.people = [await self.shop.member() for _ in range(PEOPLE)]
        await self.shop.expire()
        self.model.hour = self.model.now.replace(minute=0)
        for number, step in enumerate(steps):
            self.wait(timedelta(minutes=1))
            await self.do(*step)
            if number % 3 == 2:
                await self.again(step[3])
            asked = " ".join(
                f'p{person}: user(id: "{self.people[person]}") {{ points {{ {NUMBERS} held }} }}' for person in self.model.roots()
            )
            found = await self.shop.client.data(f"{{ {asked} }}")
            expected = {f"p{person}": {"points": self.model.numbers(person)} for person in self.model.roots()}
            assert found == expected, (number, step, list(self.said(steps[: number + 1])))
            await self.add_up({self.people[person]: self.model.numbers(person) for person in self.model.roots()})
        await self.shop.check()

    async def add_up(self, shown: dict[str, dict[str, int]]) -> None:
        """Σ entries = balance + pending + held + lapsed − debt, for everybody."""
        written = await self.shop.client.services.db.read(sums)
        off = {self.people[person]: self.model.written_off_of(person) for person in self.model.roots()}
        for user, own in shown.items():
            kept = own["balance"] + own["pending"] + own["held"] + own["expired"] - off[user] - own["debt"]
            assert written.get(user, 0) == kept, user

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
            payload = self.agree(
                await self.call("redeemPoints", userId=user, points=count), None if fits else "INSUFFICIENT_POINTS"
            )
            if fits:
                self.model.lines[-1].key = payload["entry"]["id"]
        elif kind == "hold":
            await self.hold(one, amount % 9 + 1, timedelta(days=amount % 5 + 1))
        elif kind in ("capture", "release") and self.model.holds:
            hold = self.model.holds[-1 - other % min(3, len(self.model.holds))]
            count = amount % len(hold.points) + 1 if kind == "capture" else 0
            code = self.model.resolve(hold, count)
            said: dict[str, Any] = {"holdId": hold.key, **({"points": count} if count else {})}
            payload = self.agree(await self.call("captureHold" if count else "releaseHold", **said), code)
            if count and not code:
                self.model.lines[-1].key = payload["entry"]["id"]
        elif kind == "undo" and self.model.lines:
            line = self.model.lines[-1 - other % min(3, len(self.model.lines))]
            code = self.model.undo(line)
            self.agree(await self.call("reversePointsEntry", entryId=line.key), code)
        elif kind == "adjust":
            await self.adjust(one, (amount % 7 + 1) * (1 if other % 2 else -1))
        elif kind == "transfer":
            code = self.model.transfer(one, other, amount % 6 + 1)
            said = {"userId": user, "toUserId": self.people[other], "points": amount % 6 + 1}
            self.agree(await self.call("transferPoints", **said), code)
        elif kind == "expire":
            self.model.expire()
            await self.shop.expire()
        elif kind == "wait":
            self.wait(timedelta(days=amount % 3 + 1))
        elif kind == "merge" and one != other and one not in self.model.into and other not in self.model.into:
            merge = self.model.merge(one, other)
            merge.key = await self.shop.merge(user, self.people[other])
        elif kind == "unmerge" and self.model.merges:
            merge = self.model.merges[amount % len(self.model.merges)]
            self.model.unmerge(merge)
            await self.shop.unmerge(merge.key)

    async def call(self, name: str, **said: Any) -> dict[str, Any]:
        """The payload of a mutation with a key of its own; what was done is remembered."""
        key = f"{self.people[0]}-{len(self.calls)}-{len(self.model.points)}-{self.model.now.isoformat()}"
        payload = await self.shop.do(name, key, **said)
        if not payload["errors"]:
            self.calls.append((name, key, said, named(payload)))
        return payload

    async def again(self, number: int) -> None:
        """Make an earlier call again, with its key: the same answer, and nothing happens."""
        if self.calls:
            name, key, said, answered = self.calls[number % len(self.calls)]
            payload = await self.shop.do(name, key, **said)
            assert (payload["errors"], named(payload)) == ([], answered), (name, said)

    def agree(self, payload: dict[str, Any], code: str | None) -> dict[str, Any]:
        """The payload, which is refused for this code, or for none."""
        assert [error["code"] for error in payload["errors"]] == ([code] if code else [])
        return payload

    async def adjust(self, person: int, count: int) -> None:
        line = self.model.adjust(person, count)
        said: dict[str, Any] = {"userId": self.people[person], "points": count, "reason": "counted anew"}
        payload = self.agree(await self.call("adjustPoints", **said), None if line else "INSUFFICIENT_POINTS")
        if line and line.points:
            line.key = payload["entry"]["id"]
            self.model.lines.append(line)

    async def hold(self, person: int, count: int, time: timedelta) -> None:
        made = self.model.hold(person, count, time)
        said: dict[str, Any] = {"userId": self.people[person], "points": count, "expiresInSeconds": int(time.total_seconds())}
        payload = self.agree(await self.call("holdPoints", **said), None if made else "INSUFFICIENT_POINTS")
        if made:
            made.key = payload["hold"]["id"]
