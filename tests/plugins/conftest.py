"""A partner's package, installed as pip installs it, and the command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

EVERYTHING = Path(__file__).parent / "everything"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where scrm-everything is installed."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    subprocess.run([*command, str(target), str(EVERYTHING)], check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def everything(installed: Path) -> Iterator[Path]:
    """The same, found by this process too."""
    sys.path.insert(0, str(installed))
    yield installed
    sys.path.remove(str(installed))
    for name in [name for name in sys.modules if name.split(".")[0] == "scrm_everything"]:
        del sys.modules[name]


@dataclass
class Said:
    """How a command ended."""

    code: int
    out: str
    err: list[str]


Command = Callable[..., Said]


@pytest.fixture
def scrm(tmp_path: Path) -> Command:
    """Runs the command line in a process and a directory of its own; `packages` are where it finds what is installed beside scrm."""

    def call(*arguments: str, packages: Path | None = None, **environment: str) -> Said:
        variables = {**os.environ, "SCRM_SECRET_KEY": "s" * 40, "PYTHONPATH": str(packages or ""), **environment}
        command = [sys.executable, "-m", "scrm.cli", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False, timeout=120)
        return Said(done.returncode, done.stdout, done.stderr.splitlines())

    return call
