"""The clock jumps by a day, forwards and backwards: nothing is lost or doubled, and nothing waits for a time that was wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.auth import revoke_key
from scrm.db import Database
from scrm.events.models import events
from scrm.plugin import Contribution, Deliverer, EventType, Handler, HandlerTx, Job, NewFact, hookimpl
from scrm.presence import Kind, Presence, living_workers
from scrm.testing.client import Client, drain, run_jobs
from scrm.testing.following import Followed, following
from tests.times.till import REDEEM, Sound, key_of, member, opened, paid, redemption, settle, working

DAY = timedelta(days=1)


class Clock:
    """The time, and by how much it is wrong."""

    def __init__(self) -> None:
        self.wrong = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.wrong


async def test_what_is_recorded_and_spent_under_a_jumping_clock_is_there_once(migrated_url: str) -> None:
    clock = Clock()
    noted: list[str] = []
    spent: dict[str, str] = {}
    async with opened(migrated_url, clock=clock) as client, working(client, 2, clock=clock):
        assert (await client.events([paid("first", "ann", 100)]))["accepted"] == 1
        await settle(client.services.db)
        ann = await member(client, "ann")
        for n, wrong in enumerate((timedelta(0), DAY, -DAY, DAY, timedelta(0), -DAY, timedelta(0)) * 2):
            clock.wrong = wrong
            keys = [f"{n}-{m}" for m in range(4)]
            said = await asyncio.gather(*(client.events([paid(key, f"m{key}"), paid("first", "ann", 100)]) for key in keys))
            assert [(one["accepted"], one["duplicates"]) for one in said] == [(1, 1)] * 4
            noted += keys
            key = key_of("spend")
            answers = [(await client.data(REDEEM, **redemption(ann, 3, key)))["redeemPoints"] for _ in range(2)]
            if wrong >= timedelta(0):
                assert [one["errors"] for one in answers] == [[], []]
                assert len({one["entry"]["id"] for one in answers}) == 1
                spent[key] = answers[0]["entry"]["id"]
            else:
                assert [one["errors"] for one in answers] == [[{"code": "INSUFFICIENT_POINTS"}]] * 2, "earned later than it is"
        await settle(client.services.db)
        sound = Sound(client)
        await sound.check(["first", *noted])
        assert sound.redeemed() == dict.fromkeys(spent, 1)
        again = [(await client.data(REDEEM, **redemption(ann, 3, key)))["redeemPoints"]["entry"]["id"] for key in spent]
        assert again == list(spent.values())


@pytest.mark.parametrize("wrong", [DAY, -DAY], ids=["forwards", "backwards"])
async def test_a_subscriber_whose_key_is_revoked_hears_no_more_whatever_the_clock_does(
    migrated_url: str, wrong: timedelta
) -> None:
    clock = Clock()
    async with opened(migrated_url, clock=clock) as client:
        other = client.with_key(await client.key("events:read", name="other"))
        async with following(other, "subscription { eventRecorded { position } }") as followed:
            clock.wrong = wrong
            settings = client.services.settings
            await client.services.db.write(revoke_key, "other", at=clock(), zone=settings.zone, actor="test")
            with pytest.raises(AssertionError, match="UNAUTHENTICATED"):
                await asyncio.wait_for(to_the_end(followed), 20)
        assert (await other.graphql("{ viewer { name } }"))["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def to_the_end(followed: Followed) -> None:
    while True:
        await followed.next()


# ---- what waits


class Moody:
    """A plugin that fails while it is told to, sends a message for every order, and has a job."""

    def __init__(self) -> None:
        self.fails = self.undeliverable = False
        self.sent: list[str] = []
        self.handled: list[str] = []
        self.runs: list[datetime] = []

    def plugin(self) -> Any:
        def handle(tx: HandlerTx, batch: Sequence[Any], rules: Any) -> None:
            if self.fails:
                raise ValueError("in a bad mood")
            for event in batch:
                self.handled.append(event.external_id)
                tx.send("note", {"key": event.external_id}, cause=event)

        async def deliver(payload: Mapping[str, Any], wiring: Any) -> None:
            if self.undeliverable:
                raise ValueError("in a bad mood")
            self.sent.append(payload["key"])

        def run(tx: Any, due: datetime, rules: Any) -> list[NewFact]:
            self.runs.append(due)
            return [NewFact("moody.looked", due.isoformat(), {}, due)]

        contribution = Contribution(
            name="moody",
            version="1.0",
            handlers=[Handler(("order.paid",), handle)],
            deliverers=[Deliverer("note", deliver)],
            jobs=[Job("hourly", timedelta(hours=1), run)],
            event_types=[EventType("moody.looked", "It looked.", without_user=True)],
        )
        return SimpleNamespace(__name__="moody", contribute=hookimpl(lambda: contribution))


@asynccontextmanager
async def with_moody(url: str) -> AsyncIterator[tuple[Client, Clock, Moody]]:
    clock, moody = Clock(), Moody()
    async with opened(url, modules={"moody": moody.plugin()}, clock=clock) as client:
        await drain(client)
        yield client, clock, moody


async def state(client: Client) -> str:
    """Of the plugin."""
    plugins = (await client.data("{ plugins { name state } }"))["plugins"]
    return str(next(each["state"] for each in plugins if each["name"] == "moody"))


async def test_what_was_to_be_tried_again_by_a_clock_that_was_ahead_is_tried_at_once(migrated_url: str) -> None:
    async with with_moody(migrated_url) as (client, clock, moody):
        clock.wrong, moody.fails = DAY, True
        await client.events([paid("one", "ann")])
        await drain(client)
        assert moody.handled == []
        clock.wrong, moody.fails = timedelta(0), False
        await drain(client)
        assert (moody.handled, moody.sent) == (["one"], ["one"])


async def test_a_message_that_a_clock_that_was_ahead_put_off_is_sent_once_it_is_right(migrated_url: str) -> None:
    async with with_moody(migrated_url) as (client, clock, moody):
        clock.wrong = DAY
        await client.events([paid("one", "ann")])
        moody.undeliverable = True
        await drain(client)
        assert (moody.handled, moody.sent) == (["one"], [])
        clock.wrong, moody.undeliverable = timedelta(0), False
        for _ in range(2):
            await drain(client)
        assert moody.sent == ["one"]


async def test_a_plugin_degraded_by_a_clock_that_was_ahead_goes_on_when_it_is_right(migrated_url: str) -> None:
    async with with_moody(migrated_url) as (client, clock, moody):
        clock.wrong, moody.fails = DAY, True
        await client.events([paid(f"o{n}", f"m{n}") for n in range(25)])
        await drain(client)
        assert await state(client) == "DEGRADED"
        clock.wrong, moody.fails = timedelta(0), False
        await drain(client)
        assert sorted(moody.handled) == sorted(f"o{n}" for n in range(25))
        assert await state(client) == "ACTIVE"


async def test_a_job_runs_once_for_each_due_time_whatever_the_clock_does(migrated_url: str) -> None:
    async with with_moody(migrated_url) as (client, _, moody):
        start = datetime(2026, 3, 1, 0, 30, tzinfo=UTC)
        hours = (0, 1, 24, 1, 2, 25, 24, 26)
        for hour in hours:
            await run_jobs(client, start + timedelta(hours=hour))
        assert [due.astimezone(UTC).isoformat()[:13] for due in moody.runs] == [
            "2026-03-01T01",
            "2026-03-02T00",
            "2026-03-02T01",
            "2026-03-02T02",
        ]
        recorded = await client.services.db.read(
            lambda tx: [
                row.external_id for row in tx.rows(sa.select(events.c.external_id).where(events.c.type == "moody.looked"))
            ]
        )
        assert len(recorded) == len(set(recorded)) == 4


async def test_workers_whose_clocks_differ_by_a_day_are_both_seen(database: Database) -> None:
    now = datetime.now(UTC)
    right, ahead = (Presence(Kind.WORKER, (), at) for at in (now, now + DAY))
    for one, at in ((right, now), (ahead, now + DAY), (ahead, now + DAY), (right, now)):
        await database.write(one.be_seen, at)
    assert [await database.read(living_workers, at) for at in (now, now + DAY)] == [1, 1]
