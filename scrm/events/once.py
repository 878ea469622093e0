"""A core mutation that a caller's key makes happen once: the log's unique key is what remembers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from msgspec.structs import replace

from scrm.db import Tx
from scrm.errors import ScrmError
from scrm.events.log import append, core_event, digest_of
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
    key = check_text(key, ("idempotencyKey",), limit=MAX_KEY, empty=False)
    digest = digest_of(said)
    entry = replace(
        core_event("mutation.answered", None, {}, at, zone), source=f"mutation:{name}", external_id=key, digest=digest
    )
    [made] = append(tx, [entry])
    if not made.inserted:
        if made.digest != digest:
            raise ScrmError(
                "IDEMPOTENCY_CONFLICT",
                f"the idempotency key {key!r} was used for another {name}; choose a new one",
                path=("idempotencyKey",),
            )
        return dict(tx.scalar(sa.select(events.c.properties).where(events.c.id == made.event_id)))
    answer = run(tx)
    tx.execute(events.update().where(events.c.id == made.event_id).values(properties=dict(answer)))
    return answer
