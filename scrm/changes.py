"""Recording what core changed: one event per user, one audit line per deed, in the transaction of the change."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from scrm.audit import audit
from scrm.db import Tx
from scrm.events.log import append, core_event, new_ids

_CHUNK = 2_000


def record_changes(
    tx: Tx, type: str, changed: Iterable[tuple[uuid.UUID | None, Mapping[str, Any]]], *, at: datetime, zone: ZoneInfo
) -> None:
    """Append one core event of `type` for each (user, properties); properties name fields and keys, never personal values."""
    left = iter(changed)
    while chunk := list(itertools.islice(left, _CHUNK)):
        ids = new_ids(len(chunk))
        append(tx, [core_event(type, *said, at, zone, event_id=event_id) for said, event_id in zip(chunk, ids, strict=True)])


def record_change(
    tx: Tx,
    type: str,
    user_id: uuid.UUID,
    properties: Mapping[str, Any],
    *,
    at: datetime,
    actor: str,
    zone: ZoneInfo,
    subject: str | None = None,
) -> uuid.UUID:
    """Append one core event and write its audit line under the same name; returns the event's id."""
    entry = core_event(type, user_id, properties, at, zone)
    append(tx, [entry])
    audit(tx, actor, type, subject or global_id("User", user_id), properties, at=at)
    return entry.id


def global_id(type_name: str, value: uuid.UUID) -> str:
    """The id that the API shows: `User_<hex>`."""
    return f"{type_name}_{value.hex}"
