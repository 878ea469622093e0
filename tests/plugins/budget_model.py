"""A second treasury, written another way: it keeps what happened and counts anew. Histories are lived in both at once."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from tests.plugins.shop import local
from tests.plugins.treasury import Treasury, money

LINES, PEOPLE = 3, 2
EACH, RESERVE, DAILY, PERSONAL = 20, 5, 25, 15
HOURS = 6
POLICIES = ("BLOCK", "BLOCK", "ALLOW")
MONTHS = ("2026-03-01", "2026-03-06", "2026-03-11", "2026-03-16")
"""First days of the budgets; each ends where the next begins."""
RULES: dict[str, Any] = {"thresholds": [50, 100], "costs": [{"event": "coupon.redeemed"}]}

Step = tuple[str, int, int, int]
"""What happens, to which line, for whom or which thing, and how much."""
KINDS = (
    *("commit",) * 4,
    *("spend",) * 3,
    *("use",) * 3,
    *("refund",) * 2,
    "release",
    "transfer",
    "transfer",
    "wait",
    "wait",
    "wait",
    "days",
    "merge",
    "cost",
    "again",
)


@dataclass(eq=False)
class Spending:
    """What one entry spent, and how much of it came back; `key` is its id in the treasury."""

    amount: int
    back: int = 0
    key: str = ""


@dataclass(eq=False)
class Draw:
    """What was committed until a deadline, or (without one) spent at once: on which day, for whom; `key` is its id."""

    line: int
    month: int
    person: int | None
    day: str
    amount: int
    deadline: datetime | None = None
    given_up: bool = False
    uses: list[Spending] = field(default_factory=list)
    key: str = ""

    def live(self, now: datetime) -> bool:
        return self.deadline is not None and now < self.deadline and not self.given_up and self.used < self.amount

    @property
    def used(self) -> int:
        return sum(use.amount for use in self.uses)

    @property
    def back(self) -> int:
        return sum(use.back for use in self.uses)

    def taken(self, now: datetime) -> int:
        """What counts for caps."""
        return (self.amount if self.live(now) else self.used) - self.back


@dataclass
class Model:
    """What happened, and nothing that follows from it: every number is counted anew. `now` is local time."""

    now: datetime
    draws: list[Draw] = field(default_factory=list)
    moves: list[tuple[int, int, int]] = field(default_factory=list)
    """Month, line, and how much it got or lost."""
    crossed: set[tuple[int, int | None, int]] = field(default_factory=set)
    merged: bool = False

    @property
    def month(self) -> int:
        """Which budget is open."""
        return max(n for n, start in enumerate(MONTHS[:-1]) if start <= self.now.date().isoformat())

    def spendings(self) -> list[tuple[Draw, Spending]]:
        return [(draw, use) for draw in self.draws for use in draw.uses if use.key]

    def allocated(self, month: int, line: int) -> int:
        moved = sum(amount for of_month, of_line, amount in self.moves if (of_month, of_line) == (month, line))
        return (EACH if line < LINES else RESERVE) + moved

    def spent(self, month: int, line: int) -> int:
        return sum(draw.used - draw.back for draw in self.draws if (draw.month, draw.line) == (month, line))

    def carried(self, month: int, line: int) -> int:
        """What was left of the line before; what is missing too."""
        if month == 0 or month > self.month:
            return 0
        return self.allocated(month - 1, line) + self.carried(month - 1, line) - self.spent(month - 1, line)

    def figures(self, month: int, line: int) -> tuple[int, int, int, int]:
        """Allocated, committed, spent, available."""
        own = [draw for draw in self.draws if (draw.month, draw.line) == (month, line)]
        kept = sum(draw.amount - draw.used for draw in own if draw.live(self.now))
        had, spent = self.allocated(month, line), self.spent(month, line)
        return had, kept, spent, had + self.carried(month, line) - kept - spent

    def take(self, line: int, person: int | None, amount: int, deadline: datetime | None = None) -> Draw | str:
        """Commit, or spend at once, of a line of the open budget; or why not."""
        day = self.now.date().isoformat()
        mine = [draw for draw in self.draws if (draw.month, draw.line) == (self.month, line)]
        if line == 1 and sum(draw.taken(self.now) for draw in mine if draw.day == day) + amount > DAILY:
            return "CAP_REACHED"
        same = [draw for draw in mine if draw.person is not None and (self.merged or draw.person == person)]
        if line == 1 and person is not None and sum(draw.taken(self.now) for draw in same) + amount > PERSONAL:
            return "CAP_REACHED"
        if POLICIES[line] == "BLOCK" and amount > self.figures(self.month, line)[3]:
            return "INSUFFICIENT_BUDGET"
        made = Draw(line, self.month, person, day, amount, deadline)
        self.draws.append(made)
        if deadline is None:
            made.uses.append(Spending(amount))
            self.cross(line)
        return made

    def use(self, draw: Draw, amount: int) -> Spending | str:
        """Spend so much of a commitment."""
        if draw.month < self.month:
            return "BUDGET_CLOSED"
        if not draw.live(self.now):
            return "COMMITMENT_ENDED"
        if amount > draw.amount - draw.used:
            return "COMMITMENT_TOO_SMALL"
        draw.uses.append(Spending(amount))
        self.cross(draw.line)
        return draw.uses[-1]

    def release(self, draw: Draw) -> str | None:
        if draw.month < self.month:
            return "BUDGET_CLOSED"
        if not draw.live(self.now):
            return "COMMITMENT_ENDED"
        draw.given_up = True
        return None

    def refund(self, spending: Spending, amount: int) -> str | None:
        if amount > spending.amount - spending.back:
            return "REFUND_TOO_LARGE"
        spending.back += amount
        return None

    def transfer(self, giver: int, taker: int, amount: int) -> str | None:
        if giver == taker:
            return "SAME_LINE"
        if self.figures(self.month, giver)[3] < amount:
            return "INSUFFICIENT_BUDGET"
        self.moves += [(self.month, giver, -amount), (self.month, taker, amount)]
        self.cross(giver)
        self.cross(taker)
        return None

    def cross(self, line: int) -> None:
        """Remember which thresholds are crossed: of a line, and of the open budget."""
        for key, lines in ((line, [line]), (None, list(range(LINES + 1)))):
            spent = sum(self.spent(self.month, each) for each in lines)
            funds = sum(self.allocated(self.month, each) + self.carried(self.month, each) for each in lines)
            for percent in RULES["thresholds"]:
                if key != LINES and spent > 0 and spent * 100 >= percent * funds:
                    self.crossed.add((self.month, key, percent))


class Life:
    """A history, lived in the treasury and in the model at once."""

    def __init__(self, brand: Treasury) -> None:
        self.brand = brand
        self.model = Model(brand.now)
        self.budgets: list[str] = []
        self.lines: list[list[str]] = []
        self.people: list[str] = []
        self.name = uuid.uuid4().hex

    async def begin(self) -> None:
        """Three budgets, each following the one before."""
        self.people = [await self.brand.member() for _ in range(PEOPLE)]
        for start, end in pairwise(MONTHS):
            said: dict[str, Any] = {"start": start, "end": end, "reserve": money(RESERVE), "rollover": "NEGATIVE"}
            lines: list[dict[str, Any]] = [
                {"category": f"l{n}", "amount": money(EACH), "policy": policy} for n, policy in enumerate(POLICIES)
            ]
            lines[1] |= {"capPerDay": money(DAILY), "capPerUser": money(PERSONAL), "campaigns": [self._campaign(start)]}
            before = {"previousId": self.budgets[-1]} if self.budgets else {}
            budget, own = await self.brand.budget(EACH * LINES + RESERVE, lines, **said, **before)
            self.budgets.append(budget)
            self.lines.append(list(own.values()))

    async def live(self, steps: Iterable[Step]) -> None:
        await self.begin()
        for step in steps:
            self.model.now = self.brand.now
            await getattr(self, f"do_{step[0]}")(*step[1:])
            self.model.now = self.brand.now
            await self.compare(step)
        await self.check_crossings()
        await self.brand.check()

    async def asked(self, wanted: Any, name: str, **said: Any) -> dict[str, Any] | None:
        """What the treasury answers is what the model says: a code, or that it is done."""
        payload = await self.brand.ask(name, **said)
        code = payload["errors"][0]["code"] if payload["errors"] else None
        assert code == (wanted if isinstance(wanted, str) else None), (name, said, payload["errors"])
        return payload if code is None else None

    def _campaign(self, start: str) -> str:
        return f"{start} {self.name}"

    def _line(self, line: int) -> str:
        return self.lines[self.model.month][line % LINES]

    async def do_commit(self, line: int, who: int, count: int) -> None:
        person = who % PEOPLE if who % 3 else None
        ends = local(f"{MONTHS[self.model.month + 1]}T00:00")
        made = self.model.take(line % LINES, person, count, min(self.brand.now + timedelta(hours=HOURS), ends))
        said = {"lineId": self._line(line), "amount": money(count), "expiresInSeconds": HOURS * 3_600}
        done = await self.asked(made, "commitBudget", **said, userId=self.people[person] if person is not None else None)
        if done is not None and isinstance(made, Draw):
            made.key = done["commitment"]["id"]

    async def do_spend(self, line: int, who: int, count: int) -> None:
        person = who % PEOPLE if who % 3 else None
        made = self.model.take(line % LINES, person, count)
        said = {"lineId": self._line(line), "amount": money(count)}
        done = await self.asked(made, "spendBudget", **said, userId=self.people[person] if person is not None else None)
        if done is not None and isinstance(made, Draw):
            made.uses[0].key = done["entry"]["id"]

    async def do_again(self, line: int, who: int, count: int) -> None:
        """The same request twice is done once."""
        key = f"again-{len(self.model.draws)}-{self.brand.now}"
        said: dict[str, Any] = {"lineId": self._line(2), "amount": money(count)}
        made = self.model.take(2, None, count)
        assert isinstance(made, Draw)
        first = await self.brand.ask("spendBudget", key=key, **said)
        assert await self.brand.ask("spendBudget", key=key, **said) == first
        made.uses[0].key = first["entry"]["id"]

    async def do_cost(self, line: int, who: int, count: int) -> None:
        """An event that costs something is spent, whatever there is."""
        made = Draw(1, self.model.month, who % PEOPLE, self.brand.now.date().isoformat(), count, None, False, [Spending(count)])
        self.model.draws.append(made)
        self.model.cross(1)
        said = {"couponId": "c", "cost": count, "campaign": self._campaign(MONTHS[self.model.month])}
        user = self.people[who % PEOPLE]
        await self.brand.send(self.brand.event("coupon.redeemed", user, None, None, None, properties=said))

    def _committed(self, which: int) -> Draw | None:
        """One of the newest commitments."""
        known = [draw for draw in self.model.draws if draw.key]
        return known[-1 - which % min(len(known), 4)] if known else None

    async def do_use(self, line: int, which: int, count: int) -> None:
        draw = self._committed(which)
        if draw is not None:
            made = self.model.use(draw, count)
            done = await self.asked(made, "spendBudget", commitmentId=draw.key, amount=money(count))
            if done is not None and isinstance(made, Spending):
                made.key = done["entry"]["id"]

    async def do_release(self, line: int, which: int, count: int) -> None:
        draw = self._committed(which)
        if draw is not None:
            await self.asked(self.model.release(draw), "releaseCommitment", commitmentId=draw.key)

    async def do_refund(self, line: int, which: int, count: int) -> None:
        known = self.model.spendings()
        if known:
            _, spending = known[-1 - which % min(len(known), 6)]
            await self.asked(self.model.refund(spending, count), "refundBudget", entryId=spending.key, amount=money(count))

    async def do_transfer(self, giver: int, taker: int, count: int) -> None:
        giver, taker = giver % (LINES + 1), taker % (LINES + 1)
        ends = {name: self.lines[self.model.month][n] for name, n in (("fromLineId", giver), ("toLineId", taker)) if n < LINES}
        await self.asked(self.model.transfer(giver, taker, count), "transferBudget", **ends, amount=money(count))

    async def do_wait(self, line: int, which: int, count: int) -> None:
        self.brand._clock[0] += timedelta(hours=2)
        self._within()

    async def do_days(self, line: int, which: int, count: int) -> None:
        self.brand.pass_days(1 + which % 3)
        self._within()

    def _within(self) -> None:
        last = local(f"{MONTHS[-1]}T00:00") - timedelta(hours=1)
        self.brand._clock[0] = min(self.brand.now, last)

    async def do_merge(self, line: int, which: int, count: int) -> None:
        if not self.model.merged:
            await self.brand.merge(self.people[0], self.people[1])
            self.model.merged = True
            self.people[1] = self.people[0]

    async def compare(self, step: Step) -> None:
        """Every line has what the model says."""
        names = ("allocated", "committed", "spent", "available", "carried")
        amounts = "".join(f" {name} {{ amountMinor }}" for name in names)
        fields = f"lines {{{amounts} }} reserve {{ amountMinor }}"
        last = await self.brand.of_node("Budget", self.budgets[-1], f"{fields} history {{ {fields} }}")
        for month, found in enumerate([*reversed(last["history"]), last]):
            for line, said in enumerate(found["lines"]):
                *figures, carried = (int(said[name]["amountMinor"]) for name in names)
                assert tuple(figures) == self.model.figures(month, line), (step, month, line)
                assert carried == self.model.carried(month, line), (step, month, line)
            assert int(found["reserve"]["amountMinor"]) == self.model.figures(month, LINES)[3], (step, month)

    async def check_crossings(self) -> None:
        said = set()
        for month, budget in enumerate(self.budgets):
            found = await self.brand.of_node("Budget", budget, "thresholds { percent line { id } }")
            for one in found["thresholds"]:
                said.add((month, self.lines[month].index(one["line"]["id"]) if one["line"] else None, one["percent"]))
            assert len(found["thresholds"]) == sum(key[0] == month for key in said)
        assert said == self.model.crossed


def history(seed: int, length: int, kinds: Sequence[str] = KINDS) -> Iterator[Step]:
    """A random history."""
    dice = random.Random(seed)
    for _ in range(length):
        yield dice.choice(kinds), dice.randrange(12), dice.randrange(12), dice.randint(1, 9)
