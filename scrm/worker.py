"""The worker: numbers the log, moves every consumer along it, runs jobs, delivers the outbox. Several share the work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Row

from scrm.availability import why_unavailable
from scrm.bounded import HangingError
from scrm.db import Database, Tx
from scrm.due import due, is_due
from scrm.events.consumers import (
    ACTIVE,
    DEGRADED,
    Consumer,
    ConsumerSettings,
    ReadsTheLog,
    consumer_of,
    core_consumer,
    enable,
    watched,
)
from scrm.events.handling import describe
from scrm.events.hanging import note_hang
from scrm.events.models import consumers, parked_events
from scrm.events.parked import RETRYING, retry_due
from scrm.events.sequencer import head, sequence
from scrm.events.steps import read_ahead, step
from scrm.jobs import Scheduled, run_due_jobs
from scrm.outbox import Delivery, deliver_due
from scrm.plugin import Handler
from scrm.presence import HEARTBEAT, Kind, Presence
from scrm.watch import HANGS_AFTER, Hang, Watch

log = logging.getLogger("scrm.worker")

POLL = 0.05
IDLE_POLL = 0.2
"""Seconds between two looks for work: after some was found, and after there has been none for a while."""

_LARGEST = 2_000
"""A step takes no more events than this, however far behind its consumer is."""
_SMALLEST = {"sqlite": 20, "postgresql": 500}
_LONG_WRITE = {"sqlite": 0.08, "postgresql": 0.25}
"""Seconds that a step may take. On SQLite everybody who writes waits for it, on PostgreSQL the decisions of its plugin."""
EXIT_HANGING = 70
"""The exit status of a worker whose consumer does not return: only the end of the process frees its locks."""


class WorkingPlugin(ReadsTheLog, Protocol):
    """A loaded plugin, as far as the worker cares."""

    @property
    def wiring(self) -> Any: ...


class WorkingPlugins(Protocol):
    """The set of plugins that are active."""

    @property
    def active(self) -> Sequence[WorkingPlugin]: ...


@dataclass(frozen=True, slots=True)
class Chore:
    """Something the core does every so many seconds, in a transaction of its own: `do(tx, clock)`; again at once where that
    says True, because more is left than one transaction should hold."""

    name: str
    seconds: float
    do: Callable[[Tx, Callable[[], datetime]], object]


async def run_worker(
    db: Database,
    settings: ConsumerSettings,
    plugins: WorkingPlugins,
    core_handlers: Sequence[Handler],
    stop: asyncio.Event,
    *,
    chores: Sequence[Chore] = (),
    hangs_after: float | None = None,
    on_hang: Callable[[Hang], None] | None = None,
    hung: Hang | None = None,
) -> None:
    """Work until `stop` is set; what is under way then is ended first.

    `chores` are the core's own periodic tasks; each may be done by several workers at once without harm.
    A call of a plugin's code that takes longer than `hangs_after` seconds is interrupted; of one that does not return even then
    `on_hang` is told, and by default the process ends. `hung` is who made the process before this one end.
    """
    watch = Watch(on_hang or _exit, hangs_after or HANGS_AFTER[db.dialect])
    readers = [watched(core_consumer(core_handlers, settings), watch)]
    readers += [watched(consumer_of(plugin, settings), watch) for plugin in plugins.active]
    for reader in readers:
        await db.write(enable, reader, db.clock())
        if hung is not None and reader.name == hung.owner:
            await db.write(note_hang, hung, db.clock())
            reader.hung.update(() if hung.event_id is None else (hung.event_id,))
    me = Presence(Kind.WORKER, tuple(plugin.name for plugin in plugins.active), db.clock())
    await db.write(me.be_seen, me.started_at)
    watch.start()
    threads = _threads(db, plugins, readers, [replace(one, watch=watch) for one in scheduled_jobs(plugins, settings)], watch)
    loops = [
        _repeat(stop, HEARTBEAT, "heartbeat", lambda: db.write(me.be_seen, db.clock())),
        *(_repeat(stop, chore.seconds, chore.name, partial(db.write, chore.do, db.clock)) for chore in chores),
    ]
    if db.dialect == "sqlite":
        loops += [follow(db, reader, stop) for reader in readers]
    else:
        loops.append(_repeat(stop, POLL, "sequencer", lambda: sequence(db)))
    try:
        for thread in threads:
            thread.start()
        await asyncio.gather(*loops)
    finally:
        for thread in threads:
            thread.finish()
        for thread in threads:
            await asyncio.to_thread(thread.join, 10)
        watch.finish()
        with contextlib.suppress(Exception):
            await db.write(me.leave)


def _threads(
    db: Database, plugins: WorkingPlugins, readers: Sequence[Consumer], scheduled: Sequence[Scheduled], watch: Watch
) -> list[_Thread]:
    """Everything of plugins that may block has a loop of its own, so that it blocks nobody else; on SQLite its readers have not,
    because they share the one writer."""
    threads = [] if db.dialect == "sqlite" else [_Thread(db, one.name, partial(_following, one)) for one in readers]
    threads += [_Thread(db, f"jobs of {name}", partial(_running, jobs)) for name, jobs in _by_owner(scheduled).items()]
    for plugin in plugins.active:
        deliveries = [Delivery(plugin.name, one, plugin.wiring) for one in plugin.contribution.deliverers]
        if deliveries:
            threads.append(_Thread(db, f"outbox of {plugin.name}", partial(_delivering, deliveries)))
    return threads


def _by_owner(scheduled: Sequence[Scheduled]) -> dict[str, list[Scheduled]]:
    found: dict[str, list[Scheduled]] = {}
    for one in scheduled:
        found.setdefault(one.consumer.name, []).append(one)
    return found


async def _following(consumer: Consumer, db: Database, stop: asyncio.Event) -> None:
    await follow(db, consumer, stop)


async def _running(jobs: Sequence[Scheduled], db: Database, stop: asyncio.Event) -> None:
    await _repeat(stop, 1.0, "jobs", lambda: run_due_jobs(db, jobs, at=db.clock()))


async def _delivering(deliveries: Sequence[Delivery], db: Database, stop: asyncio.Event) -> None:
    await _repeat(stop, 0.2, "outbox", lambda: deliver_due(db, deliveries))


def scheduled_jobs(plugins: WorkingPlugins, settings: ConsumerSettings) -> list[Scheduled]:
    """Every active plugin's jobs."""
    return [Scheduled(consumer_of(plugin, settings), job) for plugin in plugins.active for job in plugin.contribution.jobs]


def all_deliveries(plugins: WorkingPlugins) -> list[Delivery]:
    """Every active plugin's deliverers with their wiring."""
    return [Delivery(plugin.name, one, plugin.wiring) for plugin in plugins.active for one in plugin.contribution.deliverers]


async def follow(db: Database, consumer: Consumer, stop: asyncio.Event) -> None:
    """Move one consumer along the log, and try its parked events, until `stop` is set."""
    pace, idle = Pace(db.dialect), 0
    while not stop.is_set():
        idle += 1
        try:
            ready = (await db.read(work_of, [consumer.name], db.clock()))[consumer.name]
            if ready.parked:
                await db.write(retry_due, consumer, at=db.clock(), limit=pace.limit)
            if ready.events:
                ahead = await db.read(read_ahead, consumer) if consumer.ahead else None
                with pace.measured():
                    taken = await db.write(step, consumer, at=db.clock(), limit=pace.limit, ahead=ahead)
                idle = 0
                if not taken.idle:
                    await asyncio.sleep(0)
                    continue
        except (Exception, HangingError) as error:
            log.warning("consumer %s: %s; it goes on", consumer.name, _said(error))
            await _rest(stop, 1.0)
        await _rest(stop, min(POLL * (1 + idle / 4), IDLE_POLL))


@dataclass(frozen=True, slots=True)
class Ready:
    """What there is to do for a consumer: events to apply, parked ones to try again."""

    events: bool
    parked: bool


def work_of(tx: Tx, names: Sequence[str], at: datetime) -> dict[str, Ready]:
    """What there is to do for each of these consumers, found without locking."""
    waiting = sa.exists().where(
        parked_events.c.plugin == consumers.c.plugin,
        parked_events.c.state == RETRYING,
        due(parked_events.c.next_attempt_at, at),
    )
    places = tx.rows(sa.select(consumers, waiting.label("parked")).where(consumers.c.plugin.in_(names)))
    end = head(tx)
    found = {place.plugin: Ready(_may_go_on(place, at) and place.cursor < end, _tries(place)) for place in places}
    return {name: found.get(name, Ready(False, False)) for name in names}


def _may_go_on(place: Row[Any], at: datetime) -> bool:
    return place.state == ACTIVE or (place.state == DEGRADED and is_due(place.next_attempt_at, at))


def _tries(place: Row[Any]) -> bool:
    return place.state == ACTIVE and bool(place.parked)


@dataclass
class Pace:
    """How many events a step takes: many at once cost less each, but whoever writes what it holds shall not wait for long."""

    dialect: str
    limit: int = 500

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Measure one step and choose the next one's size."""
        started = time.monotonic()
        yield
        slow = time.monotonic() - started > _LONG_WRITE[self.dialect]
        self.limit = max(self.limit // 2, _SMALLEST[self.dialect]) if slow else min(self.limit * 2, _LARGEST)


def _exit(hang: Hang) -> None:
    log.critical("%s does not return; the worker ends so that its locks do", hang)
    os._exit(EXIT_HANGING)


@dataclass
class _Thread:
    """Some work in a thread with its own loop and connection: what blocks there holds up nobody else."""

    db: Database
    name: str
    work: Callable[[Database, asyncio.Event], Awaitable[None]]
    _ending: threading.Event = field(default_factory=threading.Event)
    _stop: asyncio.Event | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"scrm-{self.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._ending.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if self._stop is not None:
            self._stop.set()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                asyncio.run(self._work())
            except BaseException as error:
                log.warning("%s: %s; it starts again", self.name, describe(error))
                self._ending.wait(1.0)

    async def _work(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._ending.is_set():
            return
        db = Database(self.db.url.render_as_string(hide_password=False), pool_size=1, clock=self.db.clock)
        try:
            await self.work(db, self._stop)
        finally:
            await db.close()


async def _repeat(stop: asyncio.Event, seconds: float, what: str, call: Callable[[], Awaitable[object]]) -> None:
    while not stop.is_set():
        rest = seconds
        try:
            if await call() is True:
                continue
        except Exception as error:
            log.warning("%s: %s; it goes on", what, _said(error))
            rest = max(seconds, 1.0)
        await _rest(stop, rest)


def _said(error: BaseException) -> str:
    why = why_unavailable(error)
    return f"the database cannot be used: {why}" if why is not None else describe(error)


async def _rest(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
