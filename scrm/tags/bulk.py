"""Tags for many users at once, a few in each transaction: whoever else writes waits for milliseconds, not for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from scrm.db import Database, Tx
from scrm.events.once import answered, once
from scrm.tags.tagging import Tagged, Users, targets

MANY = 250
"""Users per transaction."""


async def change_many(
    db: Database,
    name: str,
    key: str | None,
    said: Mapping[str, Any],
    change: Callable[[Tx, Users], Tagged],
    whom: Users,
    *,
    strict: bool,
    at: datetime,
    zone: ZoneInfo,
) -> Mapping[str, Any]:
    """What `change` did to the users that are meant, once for the caller's key.

    More than `MANY` users are changed in several transactions, unless `strict` asks for all or nothing. A call that was cut off
    goes on where it stopped when it is repeated, and counts as changed what it changed itself.

    Raises:
        ScrmError: what `change` refuses; IDEMPOTENCY_CONFLICT.
    """
    first = await db.read(answered, name, key, said)
    if first is not None:
        return first
    ids, unknown = await db.read(targets, whom, strict)
    if strict or len(ids) <= MANY:
        return await db.write(once, name, key, said, lambda tx: _answer(change(tx, whom)), at=at, zone=zone)
    matched = changed = 0
    for start in range(0, len(ids), MANY):
        done = await db.write(change, ids[start : start + MANY])
        matched, changed = matched + done.matched, changed + done.changed
    answer = _answer(Tagged(matched, changed, unknown))
    return await db.write(once, name, key, said, lambda _: answer, at=at, zone=zone)


def _answer(outcome: Tagged) -> Mapping[str, Any]:
    errors = [error.as_user_error() for error in outcome.errors()]
    return {
        "matched": outcome.matched,
        "changed": outcome.changed,
        "errors": [
            {"code": each.code, "message": each.message, "path": list(each.path), "params": dict(each.params)} for each in errors
        ],
    }
