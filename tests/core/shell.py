"""The command line in tests: what a command said, and what the histories of migrations are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import scrm_loyalty
from scrm.cli import run
from scrm.migrate import migrations_directory


@dataclass
class Answer:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: list[str]

    @property
    def manifest(self) -> dict[str, Any]:
        """What `scrm backup --json` said."""
        return json.loads(self.out)  # type: ignore[no-any-return]


Command = Callable[..., Answer]


def answer(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> Answer:
    """Run a command in this process."""
    capsys.readouterr()
    code = run(arguments)
    said = capsys.readouterr()
    return Answer(code, said.out, said.err.splitlines())


def revisions(directory: Path) -> list[str]:
    """Of a history, oldest first."""
    return sorted(path.name[:4] for path in (directory / "versions").glob("0*.py"))


CORE = revisions(migrations_directory())
LOYALTY = revisions(Path(scrm_loyalty.__file__).parent / "migrations")
