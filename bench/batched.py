"""A plugin with one field that Python computes, for what such a field costs."""

from __future__ import annotations

from typing import Any

from scrm.api import BatchInfo, Contribution, Scope, User, batch, extend, hookimpl


async def scores(keys: list[Any], _info: BatchInfo) -> dict[Any, int]:
    """A number for each person."""
    return {key: int(key.hex[:4], 16) % 100 for key in keys}


@extend(User)
class Scored:
    """A field on a person."""

    score: int | None = batch("A number.", scores, needs=["id"], scope="batched:read")


@hookimpl
def contribute() -> Contribution:
    """What it brings."""
    return Contribution(name="batched", version="1.0.0", extends=[Scored], scopes=[Scope("batched:read", "See scores.")])


@hookimpl
def merge() -> int:
    """Nothing of a person is kept."""
    return 0


@hookimpl
def unmerge() -> int:
    """Nothing of a person is kept."""
    return 0


@hookimpl
def erase() -> None:
    """Nothing of a person is kept."""


@hookimpl
def export() -> dict[str, Any]:
    """Nothing of a person is kept."""
    return {}
