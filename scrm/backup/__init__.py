"""Backups: one state of the database in a directory of its own, and the way back."""

from __future__ import annotations

from collections.abc import Callable

Done = Callable[[int, int | None], None]
"""Told how much is done, of how much."""
