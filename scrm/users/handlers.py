"""What the core itself does when it reads the log: one handler for whatever happens."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from scrm.db import Tx
from scrm.events.consumers import EVERY
from scrm.events.records import Event
from scrm.plugin import Handler, HandlerTx
from scrm.tags.handlers import follow_rules
from scrm.tags.tagging import sweep_expired
from scrm.users.seen import follow_seen
from scrm.users.service import find_users
from scrm.worker import Chore


def core_handlers(zone: ZoneInfo) -> tuple[Handler, ...]:
    """First and last seen, acquisition channels, and rule tags, kept up with the log."""

    def follow(tx: HandlerTx, batch: Sequence[Event], rules: Any) -> None:
        present = find_users(tx, sorted(_said_users(batch)))
        follow_seen(tx, batch, present)
        follow_rules(tx, batch, present, zone)

    return (Handler((EVERY,), follow),)


SWEPT = 300
"""Expired tags per transaction."""


def core_chores(zone: ZoneInfo) -> tuple[Chore, ...]:
    """What the core does by the clock: tags that have expired are taken away and recorded."""

    def sweep(tx: Tx, clock: Callable[[], datetime]) -> bool:
        return sweep_expired(tx, at=clock(), zone=zone, limit=SWEPT) == SWEPT

    return (Chore("expired tags", 30.0, sweep),)


def _said_users(batch: Sequence[Event]) -> set[uuid.UUID]:
    said = {event.user_id for event in batch if event.user_id is not None}
    for event in batch:
        if event.type in ("user.merged", "user.unmerged"):
            said |= {uuid.UUID(event.properties["kept"]), uuid.UUID(event.properties["absorbed"])}
    return said
