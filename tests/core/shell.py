"""The command line in tests: what a command said, and what the core's history is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scrm.migrate import migrations_directory


@dataclass
class Answer:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: list[str]


Command = Callable[..., Answer]

CORE = sorted(path.name[:4] for path in (migrations_directory() / "versions").glob("*.py"))
"""The core's own revisions, oldest first."""
