"""A plugin's code, called while the server or a command starts: for so long at most, and without a word on standard output."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class HangingError(BaseException):
    """Raised inside a call that has not returned for too long; it counts as that code's failure."""


def interrupt(thread: int) -> None:
    """Raise `HangingError` in a thread as soon as Python runs there; a call that waits outside of Python does not notice."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(HangingError))


def forgive(thread: int) -> None:
    """Take an interruption back that has not arrived yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)


class _Call(Generic[T]):
    """A call in a thread of its own, which nobody waits for when the process ends, nor for threads that it starts."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._answer: list[T] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="scrm-plugin", daemon=True)

    def _run(self) -> None:
        try:
            self._answer.append(self._call())
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def wait(self, seconds: float) -> T:
        self._thread.start()
        if not self._done.wait(seconds):
            interrupt(self._thread.ident or 0)
            raise TimeoutError(f"no answer after {seconds:g} s")
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._answer[0]


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns, or whatever it raises, even an attempt to exit.

    Raises: TimeoutError when it does not return in time; it is interrupted then, and left behind if it does not notice.
    """
    with hushed():
        return _Call(call).wait(seconds)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """What is printed meanwhile, also by code that knows nothing of Python, goes to standard error."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        with contextlib.suppress(OSError):
            kept = os.dup(1)
            stack.callback(_restore, kept)
            os.dup2(2, 1)
        yield


def _restore(kept: int) -> None:
    os.dup2(kept, 1)
    os.close(kept)


def new_threads(known: set[Any]) -> list[str]:
    """The names of threads that run now and are not among these."""
    return sorted(thread.name for thread in threading.enumerate() if thread not in known and thread.name != "scrm-plugin")
