"""Looks from outside whether a plugin's code returns: what blocks or hangs can at last only be ended with its process."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scrm.bounded import forgive, interrupt

HANGS_AFTER = {"sqlite": 10.0, "postgresql": 60.0}
"""Seconds that one call of a plugin's code may take: few where all who write wait for it meanwhile."""


@dataclass(frozen=True, slots=True)
class Hang:
    """A call that does not return: whose it is, in which job, or on which event where it was given one alone."""

    owner: str
    job: str | None = None
    event_id: uuid.UUID | None = None

    def __str__(self) -> str:
        """As one word, which `read_hang` understands."""
        event = f"/{self.event_id.hex}" if self.event_id is not None else ""
        return f"{self.owner}{f':{self.job}' if self.job is not None else ''}{event}"


def read_hang(text: str) -> Hang:
    """What `str` made of a `Hang`."""
    rest, _, event = text.partition("/")
    owner, _, job = rest.partition(":")
    return Hang(owner, job or None, uuid.UUID(hex=event) if event else None)


@dataclass(eq=False)
class _Call:
    hang: Hang
    end_statement: Callable[[], None]
    thread: int
    since: float
    interrupted: bool = False
    over: bool = False


def _nothing() -> None:
    """There is no statement to end."""


class Watch:
    """Interrupts calls that take longer than `after` seconds where Python or SQLite runs; of one that goes on for as long again
    `on_hang` is told."""

    def __init__(self, on_hang: Callable[[Hang], None], after: float) -> None:
        self.after = after
        self._on_hang = on_hang
        self._calls: set[_Call] = set()
        self._lock = threading.Lock()
        self._done = threading.Event()

    def start(self) -> None:
        """Begin to look, about once a second."""
        self._done.clear()
        threading.Thread(target=self._run, name="scrm-watch", daemon=True).start()

    @contextmanager
    def calling(self, hang: Hang, end_statement: Callable[[], None] = _nothing) -> Iterator[None]:
        """Watch over a call in this thread. `end_statement` ends, from another thread, what the database does for it.

        Raises: HangingError inside, when it takes too long.
        """
        call = _Call(hang, end_statement, threading.get_ident(), time.monotonic())
        with self._lock:
            self._calls.add(call)
        try:
            yield
        finally:
            with self._lock:
                self._calls.discard(call)
                call.over = True
                if call.interrupted:
                    forgive(call.thread)

    def _run(self) -> None:
        while not self._done.wait(min(1.0, self.after / 4)):
            with self._lock:
                calls = list(self._calls)
            for call in calls:
                self._look(call)

    def _look(self, call: _Call) -> None:
        with self._lock:
            late = time.monotonic() - call.since
            if call.over or late < self.after:
                return
            if late < 2 * self.after:
                if not call.interrupted:
                    call.interrupted = True
                    interrupt(call.thread)
                    call.end_statement()
                return
            call.over = True
            self._calls.discard(call)
        self._on_hang(call.hang)

    def finish(self) -> None:
        """Stop looking."""
        self._done.set()
