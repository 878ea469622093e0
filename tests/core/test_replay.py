"""Replay: whatever happened, and in whatever order it was applied, the log gives the same rows again."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from scrm.db import MEASURED, Tx
from scrm.errors import ScrmError
from scrm.events import replay as replaying
from scrm.events.consumers import pause
from scrm.events.decide import Decided, decide
from scrm.events.log import core_event
from scrm.events.models import events
from scrm.events.parked import retry, retry_due, skip
from scrm.events.replay import ANNOUNCEMENTS, TableReport, replay
from scrm.events.rules import configure
from scrm.plugin import Decision, Fact


class Life:
    """A random history: orders, poison, decisions made while the cursor lags, rules that change, merges, retries, skips."""

    def __init__(self, toy: Any, seed: int) -> None:
        self.toy = toy
        self.random = random.Random(seed)
        self.people: list[uuid.UUID] = []
        self.n = 0
        self.at = toy.start

    async def live(self, steps: int) -> None:
        self.people = [await self.toy.user() for _ in range(4)]
        for _ in range(steps):
            self.n += 1
            self.at += timedelta(minutes=self.random.choice([0, 1, 60]))
            await self.random.choices([self.pay, self.spend, self.step, self.heal, self.rule, self.merge], [9, 4, 5, 3, 1, 1])[
                0
            ]()
        self.toy.broken.clear()
        await self.toy.run(self.at)

    async def pay(self) -> None:
        key = f"o{self.n}"
        if self.random.random() < 0.15:
            self.toy.broken.add(key)
        await self.toy.paid(self.random.choice(self.people), self.random.randint(1, 50), key)

    async def spend(self) -> None:
        said = {"user": self.random.choice(self.people).hex, "points": self.random.randint(1, 40)}
        await decide(self.toy.db, self.toy.consumer, self.toy.spend, said, key=f"k{self.n}", at=self.at, actor="t")

    async def step(self) -> None:
        await self.toy.step(self.at, self.random.randint(1, 6))

    async def heal(self) -> None:
        if self.random.random() < 0.2:
            failed = [key for key, state in await self.toy.parked() if state == "RETRYING"]
            if failed:
                [(event_id,)] = await self.toy.rows(sa.select(events.c.id).where(events.c.external_id == failed[0]))
                await self.toy.db.write(skip, "toy", event_id, at=self.at, actor="t")
                return
        for key in sorted(self.toy.broken):
            if self.random.random() < 0.5:
                self.toy.broken.discard(key)
        await self.toy.db.write(retry, "toy", None, at=self.at)
        await self.toy.db.write(retry_due, self.toy.consumer, at=self.at, limit=self.random.randint(1, 4))

    async def rule(self) -> None:
        await self.toy.db.write(configure, "toy", {"factor": self.random.randint(1, 5)}, at=self.at, zone=self.toy.zone)

    async def merge(self) -> None:
        if len(self.people) < 3:
            return
        kept, absorbed = self.random.sample(self.people, 2)
        self.people.remove(absorbed)
        said = {"kept": kept.hex, "absorbed": absorbed.hex, "merge": uuid.uuid4().hex}
        await self.toy.append(core_event("user.merged", kept, said, self.at, self.toy.zone))


@pytest.mark.parametrize("seed", range(8))
async def test_replay_gives_the_live_rows(toy: Any, seed: int) -> None:
    await Life(toy, seed).live(60)
    before = await toy.rows(sa.select(toy.accounts).order_by(toy.accounts.c.user_id))
    report = await replay(toy.db, toy.settings, toy.plugin)
    assert report.differences == []
    assert report.equal
    assert report.tables["toy_accounts"].live == len(before) > 0
    assert report.events == report.tables["toy_entries"].live + await merged(toy)
    assert await toy.rows(sa.select(toy.accounts).order_by(toy.accounts.c.user_id)) == before


async def merged(toy: Any) -> int:
    count = (
        sa.select(sa.func.count())
        .select_from(events)
        .where(events.c.type == "user.merged", events.c.position <= (await toy.place()).cursor)
    )
    waiting = [key for key, _ in await toy.parked()]
    [(found,)] = await toy.rows(count.where(events.c.external_id.not_in(waiting)))
    return int(found)


async def test_by_position_alone_it_would_be_wrong(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeded fault: replay in the order of the log instead of the order of application."""
    applied = replaying._Replay._applied

    def by_position(self: Any, low: int, high: int) -> Any:
        positions = dict(rows)
        return sorted(applied(self, low, high), key=lambda item: positions[item[1].external_id])

    wrong = 0
    await Life(toy, 1).live(60)
    rows = await toy.rows(sa.select(events.c.external_id, events.c.position))
    monkeypatch.setattr(replaying._Replay, "_applied", by_position)
    try:
        wrong += not (await replay(toy.db, toy.settings, toy.plugin)).equal
    except ScrmError:
        wrong += 1
    assert wrong == 1


async def test_a_changed_row_is_shown_and_mended(toy: Any) -> None:
    user = await toy.user()
    await toy.paid(user, 5, "o1")
    await toy.paid(user, 6, "o2")
    await toy.run()
    chain = (await toy.rows(sa.select(toy.accounts.c.chain)))[0][0]
    ghost = uuid.UUID(int=1)
    await toy.db.write(lambda tx: tx.execute(sa.update(toy.accounts).values(amount=999)))
    await toy.db.write(lambda tx: tx.execute(sa.insert(toy.accounts).values(user_id=ghost, amount=1, chain="x")))
    report = await replay(toy.db, toy.settings, toy.plugin)
    assert not report.equal
    assert report.tables == {
        "toy_accounts": TableReport(2, 1, 2, sums={"amount": (1000, 11)}),
        "toy_entries": TableReport(2, 2, 0),
        ANNOUNCEMENTS: TableReport(2, 2, 0),
    }
    gone, changed = report.differences
    assert (gone.key, gone.replayed) == ((ghost,), None)
    assert (changed.key, changed.live, changed.replayed) == ((user,), {"amount": 999}, {"amount": 11})
    assert (await toy.amounts())[user] == 999
    mended = await replay(toy.db, toy.settings, toy.plugin, apply=True)
    assert mended.applied
    assert await toy.rows(sa.select(toy.accounts)) == [(user, 11, chain)]
    assert (await toy.place()).state == "ACTIVE"
    assert (await replay(toy.db, toy.settings, toy.plugin)).equal


async def test_a_measured_column_is_not_compared(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    user = await toy.user()
    await toy.paid(user, 5, "o1")
    await toy.run()
    await toy.db.write(lambda tx: tx.execute(sa.update(toy.accounts).values(amount=999)))
    monkeypatch.setattr(toy.accounts.c.amount, "info", dict(MEASURED))
    report = await replay(toy.db, toy.settings, toy.plugin)
    assert report.equal
    await toy.db.write(lambda tx: tx.execute(sa.update(toy.accounts).values(chain="x")))
    [difference] = (await replay(toy.db, toy.settings, toy.plugin)).differences
    assert list(difference.live or {}) == ["chain"]


async def test_after_an_applied_replay_everything_goes_on(toy: Any) -> None:
    user = await toy.user()
    await toy.paid(user, 5, "o1")
    await toy.run()
    await replay(toy.db, toy.settings, toy.plugin, apply=True)
    await toy.paid(user, 6, "o2")
    await toy.run()
    answer = await decide(toy.db, toy.consumer, toy.spend, {"user": user.hex, "points": 1}, key="k", at=toy.start, actor="t")
    assert isinstance(answer, Decided)
    assert await toy.amounts() == {user: 10}
    with pytest.raises(sa.exc.DBAPIError, match="kept"):
        await toy.db.write(lambda tx: tx.execute(sa.delete(toy.entries)))
    assert (await replay(toy.db, toy.settings, toy.plugin)).equal
    await replay(toy.db, toy.settings, toy.plugin, apply=True)
    assert await toy.amounts() == {user: 10}


async def test_a_paused_plugin_stays_paused(toy: Any) -> None:
    await toy.db.write(pause, "toy", "by hand", toy.start)
    await replay(toy.db, toy.settings, toy.plugin, apply=True)
    assert (await toy.place()).state == "PAUSED"


async def test_what_if_other_rules_had_been_in_force(toy: Any) -> None:
    user = await toy.user()
    await toy.paid(user, 5, "o1")
    await toy.run()
    other = toy.plugin.contribution.rules(factor=3)
    report = await replay(toy.db, toy.settings, toy.plugin, rules=other)
    assert [one.replayed for one in report.differences if one.table == "toy_entries"] == [{"amount": 15}]
    assert report.tables[ANNOUNCEMENTS] == TableReport(1, 1, 1)
    assert await toy.amounts() == {user: 5}
    with pytest.raises(ScrmError, match="cannot be applied"):
        await replay(toy.db, toy.settings, toy.plugin, rules=other, apply=True)


async def test_what_the_log_has_and_the_replay_has_not_is_a_difference(toy: Any) -> None:
    stray = core_event("toy.earned", None, {"points": 1}, toy.start, toy.zone)
    await toy.append(replace(stray, source="plugin:toy", external_id="stray"))
    await toy.run()
    report = await replay(toy.db, toy.settings, toy.plugin)
    assert report.tables[ANNOUNCEMENTS] == TableReport(1, 0, 1)
    assert [(one.table, one.key, one.replayed) for one in report.differences] == [(ANNOUNCEMENTS, (stray.id.hex,), None)]


async def test_a_plugin_that_fails_in_a_replay_is_named_and_nothing_changes(toy: Any) -> None:
    user = await toy.user()
    await toy.paid(user, 5, "o1")
    await toy.run()
    toy.broken = {"o1"}
    with pytest.raises(ScrmError, match=r"plugin toy fails in a replay on event .*ValueError in _handle") as failed:
        await replay(toy.db, toy.settings, toy.plugin, apply=True)
    assert failed.value.code == "REPLAY_FAILED"
    assert await toy.amounts() == {user: 5}
    assert (await toy.place()).state == "ACTIVE"


async def test_decisions_made_at_once_are_replayed_in_the_order_of_their_locks(toy: Any) -> None:
    """These decide without a lock: only the handler takes it, so the order of application is the handler's."""
    user = await toy.user()
    await toy.paid(user, 5, "o1")
    await toy.run()

    def give(tx: Tx, input: Mapping[str, Any], rules: Any, at: datetime) -> Fact:
        return Fact(user, {"points": -input["points"]})

    gift = Decision("giftToy", "toy.spent", give)
    said = [{"points": n} for n in range(1, 21)]
    await asyncio.gather(
        *(decide(toy.db, toy.consumer, gift, one, key=f"k{one['points']}", at=toy.start, actor="t") for one in said)
    )
    assert await toy.amounts() == {user: 5 + sum(range(1, 21))}
    assert (await replay(toy.db, toy.settings, toy.plugin)).differences == []
