"""The outbox and the worker: what is sent arrives at least once, and one that fails stops nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.bounded import HangingError
from scrm.db import Database
from scrm.events.consumers import wait_for
from scrm.events.models import consumers, workers
from scrm.events.records import Event
from scrm.models import outbox
from scrm.outbox import ATTEMPTS, Delivery, claim, deliver_due
from scrm.plugin import Contribution, Deliverer, Handler, HandlerTx, NoRules
from scrm.watch import Hang, Watch, read_hang
from scrm.worker import run_worker


async def put(toy: Any, n: int = 1, kind: str = "mail") -> None:
    rows = [
        {"id": uuid.UUID(int=i + 1), "plugin": "toy", "kind": kind, "payload": {"n": i}, "state": "PENDING", "attempts": 0}
        | {"created_at": toy.start, "next_attempt_at": toy.start}
        for i in range(n)
    ]
    await toy.db.write(lambda tx: tx.execute(sa.insert(outbox), rows))


def delivery(deliver: Callable[[Mapping[str, Any], Any], Awaitable[None]]) -> list[Delivery]:
    return [Delivery("toy", Deliverer("mail", deliver), "the wiring")]


async def states(toy: Any) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = await toy.rows(
        sa.select(outbox.c.state, outbox.c.attempts, outbox.c.error).order_by(outbox.c.id)
    )
    return found


async def test_what_is_due_is_delivered_with_the_wiring_and_once(toy: Any) -> None:
    got: list[tuple[Any, Any]] = []

    async def deliver(payload: Mapping[str, Any], wiring: Any) -> None:
        got.append((payload, wiring))

    await put(toy)
    assert await deliver_due(toy.db, delivery(deliver)) == 1
    assert await deliver_due(toy.db, delivery(deliver)) == 0
    assert got == [({"n": 0}, "the wiring")]
    assert await states(toy) == [("SENT", 1, None)]


async def test_what_nobody_delivers_waits(toy: Any) -> None:
    async def deliver(payload: Mapping[str, Any], wiring: Any) -> None:
        raise AssertionError

    await put(toy, kind="pigeon")
    assert await deliver_due(toy.db, delivery(deliver)) == 0
    assert await states(toy) == [("PENDING", 0, None)]


async def test_a_failed_delivery_is_tried_again_and_at_last_dead(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = toy.start
    monkeypatch.setattr(toy.db, "clock", lambda: now)

    async def deliver(payload: Mapping[str, Any], wiring: Any) -> None:
        raise SystemExit("a phone number")

    await put(toy)
    for attempt in range(1, ATTEMPTS + 1):
        assert await deliver_due(toy.db, delivery(deliver)) == 0
        [(state, attempts, error)] = await states(toy)
        assert (state, attempts) == ("DEAD" if attempt == ATTEMPTS else "PENDING", attempt)
        assert error.startswith("SystemExit in deliver")
        assert await deliver_due(toy.db, delivery(deliver)) == 0
        assert (await states(toy))[0][1] == attempt, "it waits"
        now += timedelta(hours=1)


async def test_several_workers_claim_each_message_once_and_a_dead_one_gives_it_back(toy: Any) -> None:
    await put(toy, 30)
    url = toy.db.url.render_as_string(hide_password=False)
    others = [Database(url) for _ in range(3)]
    try:
        claims = await asyncio.gather(*(one.write(claim, [("toy", "mail")], at=toy.start, limit=10) for one in others))
    finally:
        for one in others:
            await one.close()
    assert sorted(message.payload["n"] for found in claims for message in found) == list(range(30))
    assert await toy.db.write(claim, [("toy", "mail")], at=toy.start) == []
    assert len(await toy.db.write(claim, [("toy", "mail")], at=toy.start + timedelta(minutes=2), limit=99)) == 30


@dataclass
class Plugins:
    """What the loader would hand over."""

    active: Sequence[Any]


async def work(toy: Any, plugins: Sequence[Any], until: Callable[[], Awaitable[bool]], workers: int = 1) -> None:
    """Run workers until something is so."""
    stop = asyncio.Event()
    url = toy.db.url.render_as_string(hide_password=False)
    databases = [Database(url) for _ in range(workers)]
    running = [asyncio.create_task(run_worker(one, toy.settings, Plugins(plugins), (), stop)) for one in databases]
    try:
        async with asyncio.timeout(60):
            while not await until():  # noqa: ASYNC110  # the workers have no event to wait for
                await asyncio.sleep(0.02)
    finally:
        stop.set()
        await asyncio.gather(*running)
        for one in databases:
            await one.close()


async def test_two_workers_share_the_work(toy: Any) -> None:
    user = await toy.user()
    for n in range(40):
        await toy.paid(user, 1, f"o{n}")

    async def done() -> bool:
        return await wait_for(toy.db, ["core", "toy"], 81, 0)

    await work(toy, [toy.plugin], done, workers=2)
    assert await toy.amounts() == {user: 40}
    assert await toy.rows(sa.select(workers.c.id)) == []


async def test_a_consumer_that_fails_or_blocks_stops_nobody_else(toy: Any) -> None:
    released = threading.Event()

    def fail(tx: HandlerTx, batch: Sequence[Event], rules: object) -> None:
        raise RuntimeError

    def block(tx: HandlerTx, batch: Sequence[Event], rules: object) -> None:
        released.wait(30)

    async def mail(payload: Mapping[str, Any], wiring: Any) -> None:
        raise AssertionError

    def plugin(name: str, handle: Any) -> Any:
        brings = Contribution(name, "1", handlers=(Handler(("order.paid",), handle),), deliverers=(Deliverer("mail", mail),))
        return SimpleNamespace(name=name, contribution=brings, rules=NoRules(), hooks=None, wiring=None, indicators={})

    others = [plugin("failing", fail)]
    if toy.db.dialect != "sqlite":  # with one writer for all, a handler that blocks ends only with its process
        others.append(plugin("blocking", block))
    user = await toy.user()
    await toy.paid(user, 1, "o1")

    async def done() -> bool:
        return await wait_for(toy.db, ["core", "toy"], 3, 0)

    async def seen() -> bool:
        try:
            return await done()
        finally:
            if await toy.amounts():
                released.set()

    await work(toy, [*others, toy.plugin], seen)
    assert await toy.amounts() == {user: 1}
    assert ("failing",) in await toy.rows(sa.select(consumers.c.plugin).where(consumers.c.failures > 0))


def test_a_call_that_does_not_return_is_interrupted() -> None:
    told: list[Hang] = []
    watch = Watch(told.append, after=0.05)
    watch.start()

    def spin() -> None:
        with watch.calling(Hang("toy")):
            while True:
                pass

    with pytest.raises(HangingError):
        spin()
    watch.finish()
    assert told == []


def test_who_does_not_even_then_is_told_of() -> None:
    told: list[Hang] = []
    heard = threading.Event()

    def on_hang(hang: Hang) -> None:
        told.append(hang)
        heard.set()

    watch = Watch(on_hang, after=0.05)
    watch.start()
    hang = Hang("toy", event_id=uuid.UUID(int=7))
    with contextlib.suppress(HangingError), watch.calling(hang):
        while not heard.is_set():
            with contextlib.suppress(HangingError):
                heard.wait(30)
    watch.finish()
    assert told == [hang]
    assert [read_hang(str(each)) for each in (hang, Hang("toy"), Hang("toy", "nightly"))] == [
        hang,
        Hang("toy"),
        Hang("toy", "nightly"),
    ]
