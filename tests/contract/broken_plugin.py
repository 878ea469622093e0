"""A plugin whose fields fail in every way that a field can; one of them is well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from scrm.api import BatchInfo, Contribution, Scope, User, batch, expression, extend, hookimpl


def missing_table(user: Any) -> Any:
    return sa.select(sa.literal_column("1")).select_from(sa.table("broken_nothing")).scalar_subquery()


def raising(user: Any) -> Any:
    raise RuntimeError("this plugin cannot count")


async def raised(keys: Sequence[Any], info: BatchInfo) -> Mapping[Any, Any]:
    raise RuntimeError("this plugin cannot count either")


async def mistyped(keys: Sequence[Any], info: BatchInfo) -> Mapping[Any, Any]:
    return dict.fromkeys(keys, "twelve")


async def too_large(keys: Sequence[Any], info: BatchInfo) -> Mapping[Any, Any]:
    return dict.fromkeys(keys, 2**31)


async def no_mapping(keys: Sequence[Any], info: BatchInfo) -> Mapping[Any, Any]:
    return 5  # type: ignore[return-value]


async def well(keys: Sequence[Any], info: BatchInfo) -> Mapping[Any, Any]:
    return dict.fromkeys(keys, 12)


@extend(User, scope="broken:read")
class BrokenUser:
    """Fields that fail."""

    broken_sql: int | None = expression("Fails in the database.", missing_table)
    broken_source: int | None = expression("Fails while the statement is built.", raising)
    broken_batch: int | None = batch("Fails in Python.", raised, needs=["id"])
    broken_type: int | None = batch("Gives text.", mistyped, needs=["id"])
    broken_size: int | None = batch("Gives more than an Int holds.", too_large, needs=["id"])
    broken_answer: int | None = batch("Gives no mapping.", no_mapping, needs=["id"])
    broken_not: int | None = batch("Is well.", well, needs=["id"])


@hookimpl
def _contribute() -> Contribution:
    return Contribution(name="broken", version="1.0.0", extends=[BrokenUser], scopes=[Scope("broken:read", "See what fails.")])


plugin = SimpleNamespace(contribute=_contribute)
"""What `load_plugins(settings, extra={"broken": plugin})` takes."""
