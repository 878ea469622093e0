"""The outbox: effects outside the database, written with their cause and delivered at least once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.db import Database, Tx
from scrm.due import LONGEST_WAIT, due
from scrm.events.handling import describe
from scrm.models import outbox
from scrm.plugin import Deliverer

PENDING, SENT, DEAD = "PENDING", "SENT", "DEAD"
ATTEMPTS = 10
"""After so many a message is dead."""

_LEASE = timedelta(minutes=2)
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A plugin's deliverer and the wiring it needs."""

    plugin: str
    deliverer: Deliverer
    wiring: Any


@dataclass(frozen=True, slots=True)
class _Message:
    id: uuid.UUID
    plugin: str
    kind: str
    payload: Mapping[str, Any]
    attempts: int


def claim(tx: Tx, kinds: Sequence[tuple[str, str]], *, at: datetime, limit: int = 20) -> list[_Message]:
    """Take messages that are due for as long as a delivery may last; who dies meanwhile leaves them to the next."""
    waiting = (
        sa.select(outbox.c.id, outbox.c.plugin, outbox.c.kind, outbox.c.payload, outbox.c.attempts)
        .where(
            outbox.c.state == PENDING,
            due(outbox.c.next_attempt_at, at),
            sa.or_(*(sa.and_(outbox.c.plugin == plugin, outbox.c.kind == kind) for plugin, kind in kinds)),
        )
        .order_by(outbox.c.next_attempt_at, outbox.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    found = [_Message(row.id, row.plugin, row.kind, row.payload, row.attempts + 1) for row in tx.rows(waiting)]
    if found:
        taken = {"attempts": outbox.c.attempts + 1, "next_attempt_at": at + _LEASE}
        tx.execute(sa.update(outbox).where(outbox.c.id.in_([message.id for message in found])).values(taken))
    return found


def settle(tx: Tx, message: uuid.UUID, attempts: int, error: str | None, *, at: datetime) -> None:
    """Note what became of a delivery; a failed one is due again after 2, 4, 8, … seconds."""
    if error is None:
        changed: dict[str, Any] = {"state": SENT, "error": None, "next_attempt_at": None}
    elif attempts >= ATTEMPTS:
        changed = {"state": DEAD, "error": error, "next_attempt_at": None}
    else:
        changed = {"error": error, "next_attempt_at": at + min(timedelta(seconds=2**attempts), LONGEST_WAIT)}
    tx.execute(sa.update(outbox).where(outbox.c.id == message, outbox.c.state == PENDING).values(changed))


def is_undelivered(message: Any) -> sa.ColumnElement[bool]:
    """Whether a row was tried in vain; `message` has `.c`."""
    return sa.and_(message.c.state.in_([PENDING, DEAD]), message.c.error.is_not(None))


def undelivered(tx: Tx, plugin: str, limit: int = 100) -> list[dict[str, Any]]:
    """The oldest messages of a plugin that were tried in vain, without what they say."""
    columns = (outbox.c.id, outbox.c.kind, outbox.c.state, outbox.c.attempts, outbox.c.error)
    mine = sa.select(*columns).where(outbox.c.plugin == plugin, is_undelivered(outbox))
    found = tx.rows(mine.order_by(outbox.c.created_at, outbox.c.id).limit(limit))
    return [{**row._mapping, "id": row.id.hex} for row in found]


def has_due(tx: Tx, at: datetime) -> bool:
    """Whether anything waits to be delivered."""
    waiting = sa.select(outbox.c.id).where(outbox.c.state == PENDING, due(outbox.c.next_attempt_at, at))
    return tx.scalar(waiting.limit(1)) is not None


async def deliver_due(db: Database, deliveries: Sequence[Delivery]) -> int:
    """Deliver what is due, outside of any transaction; returns how many messages were sent.

    What no active plugin delivers waits.
    """
    known = {(delivery.plugin, delivery.deliverer.kind): delivery for delivery in deliveries}
    if not known or not await db.read(has_due, db.clock()):
        return 0
    messages = await db.write(claim, list(known), at=db.clock())
    outcomes = await asyncio.gather(*(_deliver(known[message.plugin, message.kind], message) for message in messages))
    for message, error in zip(messages, outcomes, strict=True):
        await db.write(settle, message.id, message.attempts, error, at=db.clock())
    return sum(error is None for error in outcomes)


async def _deliver(delivery: Delivery, message: _Message) -> str | None:
    task = asyncio.ensure_future(_call(delivery, message))
    try:
        done, _ = await asyncio.wait({task}, timeout=_TIMEOUT)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        return "TimeoutError"
    return task.result()


async def _call(delivery: Delivery, message: _Message) -> str | None:
    try:
        await delivery.deliverer.deliver(message.payload, delivery.wiring)
    except BaseException as error:
        if isinstance(error, GeneratorExit):
            raise
        return describe(error)
    return None
