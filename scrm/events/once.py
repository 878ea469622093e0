"""A core mutation that a caller's key makes happen once: the log's unique key is what remembers it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from msgspec.structs import replace

from scrm.db import Tx
from scrm.errors import ScrmError
from scrm.events.log import append, core_event, digest_of, find_events
from scrm.events.models import events
from scrm.text import MAX_KEY, check_text


def once(
    tx: Tx,
    name: str,
    key: str | None,
    said: Mapping[str, Any],
    run: Callable[[Tx], Mapping[str, Any]],
    *,
    at: datetime,
    zone: ZoneInfo,
) -> Mapping[str, Any]:
    """Run it, and answer a repeat of the key with the first answer.

    Raises:
        ScrmError: INVALID_TEXT for a key that cannot be kept; IDEMPOTENCY_CONFLICT where the key was used for something else.
    """
    if key is None:
        return run(tx)
    key, digest = _checked(key), digest_of(said)
    entry = replace(
        core_event("mutation.answered", None, {}, at, zone), source=f"mutation:{name}", external_id=key, digest=digest
    )
    [made] = append(tx, [entry])
    if not made.inserted:
        return _first_answer(tx, name, key, digest, made.event_id, made.digest)
    answer = run(tx)
    tx.execute(events.update().where(events.c.id == made.event_id).values(properties=dict(answer)))
    return answer


def answered(tx: Tx, name: str, key: str | None, said: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the caller's key was answered with before; None if it was not.

    Raises:
        ScrmError: as `once`.
    """
    if key is None:
        return None
    key, source = _checked(key), f"mutation:{name}"
    found = find_events(tx, [(source, key)]).get((source, key))
    return None if found is None else _first_answer(tx, name, key, digest_of(said), *found)


def _checked(key: str) -> str:
    return check_text(key, ("idempotencyKey",), limit=MAX_KEY, empty=False)


def _first_answer(tx: Tx, name: str, key: str, digest: str, event_id: uuid.UUID, kept: str) -> Mapping[str, Any]:
    if kept != digest:
        said = f"the idempotency key {key!r} was used for another {name}; choose a new one"
        raise ScrmError("IDEMPOTENCY_CONFLICT", said, path=("idempotencyKey",))
    return dict(tx.scalar(sa.select(events.c.properties).where(events.c.id == event_id)))
