"""A partner's package, installed as pip installs it, and the command line, as a process and in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scrm.testing import PostgresServer
from scrm.testing.commands import Said, commands
from tests.templates import built_in, postgres_database, sqlite_file

EVERYTHING = Path(__file__).parent / "everything"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy: the tables of the core and of the plugins that come with it, no rows."""
    return sqlite_file(tmp_path_factory.mktemp("template") / "scrm.db", built_in())


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a PostgreSQL database with the same tables, to copy."""
    with postgres_database(postgres, built_in()) as url:
        yield url


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


Commands = Callable[..., list[Said]]

_RUN = """
import contextlib, io, json, sys
from scrm.cli import run
said = []
for line in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run(line.split())
    said.append([code, out.getvalue(), err.getvalue().splitlines()])
print(json.dumps(said))
"""


@pytest.fixture
def scrm(tmp_path: Path) -> Commands:
    """Runs command lines one after the other in a new process and a directory of its own.

    `packages` is where it finds what is installed beside scrm.
    """

    def call(*lines: str, packages: Path | None = None, **environment: str) -> list[Said]:
        variables = {**os.environ, "SCRM_SECRET_KEY": "s" * 40, "PYTHONPATH": str(packages or ""), **environment}
        command = [sys.executable, "-c", _RUN]
        done = subprocess.run(
            command,
            input=json.dumps(lines),
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return [Said(*one) for one in json.loads(done.stdout)]

    return call


@pytest.fixture
def scrm_here(tmp_path: Path) -> Commands:
    """The same in this process, for what needs no other packages than those it has: many times as fast."""
    return lambda *lines, **environment: commands(*lines, directory=tmp_path, SCRM_SECRET_KEY="s" * 40, **environment)
