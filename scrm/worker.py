"""The worker: numbers the log, moves every consumer along it, runs jobs, delivers the outbox. Several share the work."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from scrm.availability import why_unavailable
from scrm.db import Database, Tx, new_id
from scrm.due import due, is_due
from scrm.events.consumers import ACTIVE, DEGRADED, Consumer, ConsumerSettings, ReadsTheLog, consumer_of, core_consumer, enable
from scrm.events.handling import describe
from scrm.events.models import consumers, parked_events, workers
from scrm.events.parked import RETRYING, retry_due
from scrm.events.sequencer import head, sequence
from scrm.events.steps import step
from scrm.jobs import Scheduled, run_due_jobs
from scrm.outbox import Delivery, deliver_due
from scrm.plugin import Handler

T = TypeVar("T")

log = logging.getLogger("scrm.worker")

POLL = 0.05
IDLE_POLL = 0.2
"""Seconds between two looks for work: after some was found, and after there has been none for a while."""

HANGS_AFTER = 60.0
"""Seconds that one call of a consumer may take."""

_LARGEST, _SMALLEST = 500, 20
_LONG_WRITE = 0.08
_GONE_AFTER = timedelta(seconds=30)
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
    on_hang: Callable[[str], None] | None = None,
) -> None:
    """Work until `stop` is set; what is under way then is ended first.

    `chores` are the core's own periodic tasks; each may be done by several workers at once without harm.
    `on_hang` is told of a consumer that does not return even when it is interrupted; by default the process ends.
    """
    readers = [core_consumer(core_handlers, settings), *(consumer_of(plugin, settings) for plugin in plugins.active)]
    for reader in readers:
        await db.write(enable, reader, db.clock())
    scheduled, deliveries = scheduled_jobs(plugins, settings), all_deliveries(plugins)
    me = new_id()
    await db.write(_arrive, me, db.clock())
    watch = Watch(on_hang or _exit)
    watch.start()
    threads = [] if db.dialect == "sqlite" else [_Thread(db, reader, watch) for reader in readers]
    loops = [
        _repeat(stop, 5.0, "heartbeat", lambda: db.write(_be_seen, me, db.clock())),
        _repeat(stop, 1.0, "jobs", lambda: run_due_jobs(db, scheduled, at=db.clock())),
        _repeat(stop, 0.2, "outbox", lambda: deliver_due(db, deliveries)),
        *(_repeat(stop, chore.seconds, chore.name, partial(db.write, chore.do, db.clock)) for chore in chores),
    ]
    if db.dialect == "sqlite":
        loops += [follow(db, reader, stop, watch) for reader in readers]
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
            await db.write(_leave, me)


def scheduled_jobs(plugins: WorkingPlugins, settings: ConsumerSettings) -> list[Scheduled]:
    """Every active plugin's jobs."""
    return [Scheduled(consumer_of(plugin, settings), job) for plugin in plugins.active for job in plugin.contribution.jobs]


def all_deliveries(plugins: WorkingPlugins) -> list[Delivery]:
    """Every active plugin's deliverers with their wiring."""
    return [Delivery(plugin.name, one, plugin.wiring) for plugin in plugins.active for one in plugin.contribution.deliverers]


async def follow(db: Database, consumer: Consumer, stop: asyncio.Event, watch: Watch) -> None:
    """Move one consumer along the log, and try its parked events, until `stop` is set."""
    pace, idle = Pace(db.dialect == "sqlite"), 0
    while not stop.is_set():
        idle += 1
        try:
            ready = await db.read(_work, consumer.name, db.clock())
            if ready.parked:
                await db.write(watch.call, consumer.name, retry_due, consumer, at=db.clock(), limit=pace.limit)
            if ready.events:
                with pace.measured():
                    taken = await db.write(watch.call, consumer.name, step, consumer, at=db.clock(), limit=pace.limit)
                idle = 0
                if not taken.idle:
                    await asyncio.sleep(0)
                    continue
        except (Exception, HangingError) as error:
            log.warning("consumer %s: %s; it goes on", consumer.name, _said(error))
            await _rest(stop, 1.0)
        await _rest(stop, min(POLL * (1 + idle / 4), IDLE_POLL))


@dataclass(frozen=True, slots=True)
class _Ready:
    events: bool
    parked: bool


def _work(tx: Tx, name: str, at: datetime) -> _Ready:
    """Whether there is anything to do, found without locking."""
    place = tx.row(sa.select(consumers).where(consumers.c.plugin == name))
    if place is None:
        return _Ready(False, False)
    rests = place.state != ACTIVE and (place.state != DEGRADED or not is_due(place.next_attempt_at, at))
    waiting = sa.select(parked_events.c.event_id).where(
        parked_events.c.plugin == name, parked_events.c.state == RETRYING, due(parked_events.c.next_attempt_at, at)
    )
    parked = place.state == ACTIVE and tx.scalar(waiting.limit(1)) is not None
    return _Ready(not rests and place.cursor < head(tx), parked)


@dataclass
class Pace:
    """How many events a step takes: on SQLite so many that others who write wait less than 100 ms."""

    adapts: bool
    limit: int = _LARGEST

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Measure one step and choose the next one's size."""
        started = time.monotonic()
        yield
        if self.adapts:
            slow = time.monotonic() - started > _LONG_WRITE
            self.limit = max(self.limit // 2, _SMALLEST) if slow else min(self.limit * 2, _LARGEST)


class HangingError(BaseException):
    """Raised inside a handler that has not returned for too long; it counts as the handler's failure."""


@dataclass
class _Call:
    thread: int
    since: float
    interrupted: bool = False
    over: bool = False


class Watch(threading.Thread):
    """Looks from outside whether every consumer returns: a handler that blocks or hangs can only be ended with its process."""

    def __init__(self, on_hang: Callable[[str], None], after: float = HANGS_AFTER) -> None:
        super().__init__(name="scrm-watch", daemon=True)
        self._on_hang = on_hang
        self._after = after
        self._calls: dict[str, _Call] = {}
        self._lock = threading.Lock()
        self._done = threading.Event()

    def call(self, tx: Tx, name: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call for this consumer, under watch: what does not return is interrupted where it is Python that runs."""
        call = self._calls[name] = _Call(threading.get_ident(), time.monotonic())
        try:
            return function(tx, *args, **kwargs)
        finally:
            with self._lock:
                call.over = True

    def run(self) -> None:
        """Look about once a second."""
        while not self._done.wait(min(1.0, self._after / 4)):
            for name, call in list(self._calls.items()):
                self._look(name, call)

    def _look(self, name: str, call: _Call) -> None:
        with self._lock:
            late = time.monotonic() - call.since
            if call.over or late < self._after:
                return
            if late < 2 * self._after:
                if not call.interrupted:
                    call.interrupted = True
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(call.thread), ctypes.py_object(HangingError))
                return
            call.over = True
        self._on_hang(name)

    def finish(self) -> None:
        """Stop looking."""
        self._done.set()


def _exit(name: str) -> None:
    log.critical("consumer %s has not returned for %d s; the worker ends so that its locks do", name, HANGS_AFTER)
    os._exit(EXIT_HANGING)


@dataclass
class _Thread:
    """One consumer in a thread with its own loop and connection: on PostgreSQL a handler that blocks holds up nobody else."""

    db: Database
    consumer: Consumer
    watch: Watch
    _ending: threading.Event = field(default_factory=threading.Event)
    _stop: asyncio.Event | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"scrm-{self.consumer.name}", daemon=True)

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
                asyncio.run(self._follow())
            except BaseException as error:
                log.warning("consumer %s: %s; it starts again", self.consumer.name, describe(error))
                self._ending.wait(1.0)

    async def _follow(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._ending.is_set():
            return
        db = Database(self.db.url.render_as_string(hide_password=False), pool_size=1, clock=self.db.clock)
        try:
            await follow(db, self.consumer, self._stop, self.watch)
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


def _arrive(tx: Tx, me: uuid.UUID, at: datetime) -> None:
    row = {"id": me, "host": socket.gethostname(), "pid": os.getpid(), "started_at": at, "seen_at": at}
    tx.execute(sa.insert(workers).values(row))


def _be_seen(tx: Tx, me: uuid.UUID, at: datetime) -> None:
    if not tx.execute(sa.update(workers).where(workers.c.id == me).values(seen_at=at)).rowcount:
        _arrive(tx, me, at)  # somebody whose clock is ahead took this one for gone
    tx.execute(sa.delete(workers).where(workers.c.seen_at < at - 20 * _GONE_AFTER))


def _leave(tx: Tx, me: uuid.UUID) -> None:
    tx.execute(sa.delete(workers).where(workers.c.id == me))


def living_workers(tx: Tx, at: datetime) -> int:
    """How many workers have been seen in the last half minute, by a clock that is right or nearly."""
    return int(tx.scalar(sa.select(sa.func.count()).where(workers.c.seen_at.between(at - _GONE_AFTER, at + _GONE_AFTER))))
