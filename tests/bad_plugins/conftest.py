"""The command line in processes of its own, beside packages that are installed for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Said:
    """How a command ended."""

    code: int
    out: str
    err: list[str]


Commands = Callable[..., list[Said]]

_RUN = """
import contextlib, io, json, os, sys
from scrm.cli import run
said = []
for line in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run(line.split())
    said.append([code, out.getvalue(), err.getvalue().splitlines()])
sys.__stdout__.write(json.dumps(said))
sys.__stdout__.flush()
os._exit(0)  # one of the plugins has started a thread that never ends
"""


def environment(site: Path | None, more: Mapping[str, str]) -> dict[str, str]:
    """What a process finds: the packages, and the settings."""
    return {**os.environ, "SCRM_SECRET_KEY": "s" * 40, "PYTHONPATH": str(site or ""), **more}


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """Runs command lines one after the other in one new process, in the test's directory."""

    def call(*lines: str, site: Path | None = None, **settings: str) -> list[Said]:
        done = subprocess.run(
            [sys.executable, "-c", _RUN],
            input=json.dumps(lines),
            cwd=tmp_path,
            env=environment(site, settings),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return [Said(*one) for one in json.loads(done.stdout)]

    return call


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., Said]:
    """Runs one command line as a person would, in the test's directory."""

    def call(line: str, site: Path | None = None, **settings: str) -> Said:
        command = [sys.executable, "-m", "scrm.cli", *line.split()]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(site, settings), capture_output=True, text=True, check=False, timeout=120
        )
        return Said(done.returncode, done.stdout, done.stderr.splitlines())

    return call


@pytest.fixture
def running(tmp_path: Path) -> Callable[..., object]:
    """Runs a command line until the block ends, in the test's directory; what it says on standard error is in `error.txt`."""

    @contextmanager
    def call(line: str, site: Path | None = None, **settings: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "scrm.cli", *line.split()]
        with (tmp_path / "error.txt").open("w") as error:
            started = subprocess.Popen(
                command, cwd=tmp_path, env=environment(site, settings), stdout=subprocess.DEVNULL, stderr=error, text=True
            )
            try:
                yield started
            finally:
                started.terminate()
                try:
                    started.wait(20)
                finally:
                    started.kill()
                    started.wait(20)

    return call
