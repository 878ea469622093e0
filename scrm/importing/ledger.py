"""The `imports` table: how far each import came, so that one that was cut off goes on where it stopped."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from scrm.audit import audit
from scrm.db import Text, Tx, new_id
from scrm.models import imports

HEARTBEAT = 15.0
"""Seconds after which an import says again that it is under way."""

_ALIVE_FOR = timedelta(seconds=60)


class ImportKind(StrEnum):
    """What the rows become."""

    USERS = "USERS"
    EVENTS = "EVENTS"


class ImportState(StrEnum):
    """Where an import stands. One that was killed still says RUNNING in its row, and is known by its `alive_until`."""

    RUNNING = "RUNNING"
    INTERRUPTED = "INTERRUPTED"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(slots=True)
class Tally:
    """Rows so far, and what became of them."""

    rows_read: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Begun:
    """An import that is under way: `resumed` if an earlier run of it was cut off."""

    id: uuid.UUID
    tally: Tally
    started_at: datetime
    resumed: bool


def begin(
    tx: Tx,
    kind: ImportKind,
    name: str,
    fingerprint: str,
    rows_total: int | None,
    *,
    at: datetime,
    actor: str,
    restart: bool = False,
) -> Begun:
    """Go on with the run of the same file and mapping that did not end, unless `restart`; else begin a new one.

    Runs of that name that were cut off, of other contents or mappings too, are INTERRUPTED from then on.
    """
    _mark_interrupted(tx, kind, name, at)
    last = _last(tx, kind, fingerprint)
    if last is not None and last.state != ImportState.DONE and not restart:
        alive = at + _ALIVE_FOR
        values = {
            "state": ImportState.RUNNING,
            "finished_at": None,
            "error": None,
            "rows_total": rows_total,
            "alive_until": alive,
        }
        tx.execute(imports.update().where(imports.c.id == last.id).values(**values))
        tally = Tally(last.rows_read, last.accepted, last.duplicates, last.rejected)
        return Begun(last.id, tally, last.started_at, True)
    if last is not None and last.state == ImportState.RUNNING:
        tx.execute(imports.update().where(imports.c.id == last.id).values(state=ImportState.INTERRUPTED, finished_at=at))
    import_id = new_id()
    new = imports.insert().values(id=import_id, name=name, kind=kind, state=ImportState.RUNNING, fingerprint=fingerprint)
    tx.execute(new.values(rows_total=rows_total, started_at=at, alive_until=at + _ALIVE_FOR, **_counts(Tally())))
    audit(tx, actor, "import.started", f"Import_{import_id.hex}", {"kind": kind}, at=at)
    return Begun(import_id, Tally(), at, False)


def finished(tx: Tx, kind: ImportKind, fingerprint: str) -> Begun | None:
    """The last run of this, if it came to its end."""
    last = _last(tx, kind, fingerprint)
    if last is None or last.state != ImportState.DONE:
        return None
    return Begun(last.id, Tally(last.rows_read, last.accepted, last.duplicates, last.rejected), last.started_at, False)


def first_start(tx: Tx, kind: ImportKind, fingerprint: str) -> datetime | None:
    """When the first run of this began."""
    chosen = sa.select(imports.c.started_at).where(imports.c.fingerprint == fingerprint, imports.c.kind == kind)
    started: datetime | None = tx.scalar(chosen.order_by(imports.c.started_at, imports.c.id).limit(1))
    return started


def other_mapping(tx: Tx, kind: ImportKind, name: str, fingerprint: str) -> datetime | None:
    """When a file of this name was last imported that had other contents or another mapping."""
    other = sa.select(imports.c.started_at).where(imports.c.kind == kind, imports.c.name == name)
    chosen = other.where(imports.c.fingerprint != fingerprint, imports.c.accepted > 0)
    started: datetime | None = tx.scalar(chosen.order_by(imports.c.started_at.desc()).limit(1))
    return started


def advance(tx: Tx, import_id: uuid.UUID, tally: Tally, *, at: datetime) -> None:
    """Say how far it came."""
    values = {**_counts(tally), "alive_until": at + _ALIVE_FOR}
    tx.execute(imports.update().where(imports.c.id == import_id).values(**values))


def be_alive(tx: Tx, import_id: uuid.UUID, at: datetime) -> None:
    """Say that it is under way, however long its batch takes."""
    tx.execute(imports.update().where(imports.c.id == import_id).values(alive_until=at + _ALIVE_FOR))


def cut_off(row: Any, at: Any) -> sa.ColumnElement[bool]:
    """An import's row says RUNNING, but nobody works on it any more at this time."""
    return sa.and_(row.c.state == ImportState.RUNNING.value, sa.func.coalesce(row.c.alive_until, row.c.started_at) < at)


def state_of(row: Any, at: Any) -> sa.ColumnElement[str]:
    """Where an import stands at this time, seen from outside."""
    return sa.case((cut_off(row, at), sa.literal(ImportState.INTERRUPTED.value, Text)), else_=row.c.state)


def _mark_interrupted(tx: Tx, kind: ImportKind, name: str, at: datetime) -> None:
    left = imports.update().where(imports.c.name == name, imports.c.kind == kind, cut_off(imports, at))
    tx.execute(left.values(state=ImportState.INTERRUPTED, finished_at=at))


def end(tx: Tx, import_id: uuid.UUID, state: ImportState, tally: Tally, *, at: datetime, error: str | None = None) -> None:
    """Say how it ended; a finished one knows how many rows there were."""
    values: dict[str, object] = {**_counts(tally), "state": state, "finished_at": at, "error": error}
    if state is ImportState.DONE:
        values["rows_total"] = tally.rows_read
    tx.execute(imports.update().where(imports.c.id == import_id).values(**values))


def _last(tx: Tx, kind: ImportKind, fingerprint: str) -> sa.Row[Any] | None:
    chosen = imports.select().where(imports.c.fingerprint == fingerprint, imports.c.kind == kind)
    return tx.row(chosen.order_by(imports.c.started_at.desc(), imports.c.id.desc()).limit(1))


def _counts(tally: Tally) -> dict[str, int]:
    return {"rows_read": tally.rows_read, "accepted": tally.accepted, "duplicates": tally.duplicates, "rejected": tally.rejected}
