"""The command line in the test's own process: many times as fast as a process of its own."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scrm.cli import run


@dataclass
class Said:
    """How a command ended: its exit code, its standard output, and the lines of its standard error."""

    code: int
    out: str
    err: list[str]


def commands(*lines: str | Sequence[str], directory: Path, **environment: str) -> list[Said]:
    """Run command lines one after the other, as `scrm` in this directory does with these variables beside those of the test.

    A line whose words have spaces in them is given as its words.

    A test that is itself async can call it: nothing else runs in its loop meanwhile.
    """
    with ThreadPoolExecutor(1) as beside:  # a command has a loop of its own
        return [beside.submit(_said, line, directory, environment).result() for line in lines]


def _said(line: str | Sequence[str], directory: Path, environment: dict[str, str]) -> Said:
    out, err = io.StringIO(), io.StringIO()
    with _variables(environment), contextlib.chdir(directory), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(line.split() if isinstance(line, str) else line)
    return Said(code, out.getvalue(), err.getvalue().splitlines())


@contextlib.contextmanager
def _variables(more: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
