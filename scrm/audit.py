"""The audit log: who did what to whom, written in the transaction of the deed and never changed.

Whoever writes a line also leaves its id in `audit_pending`, from where it is chained once it is committed (`scrm.audit_chain`),
so writers do not wait for each other. The log outlives what it is about: erasing a person touches no line, because none says
anything personal.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from scrm.db import Tx, new_id
from scrm.models import audit_log, audit_pending

_WRITE, _LEAVE = audit_log.insert(), audit_pending.insert()
_line = (
    sa.insert(audit_log)
    .values({each.name: sa.bindparam(each.name) for each in audit_log.c})
    .returning(audit_log.c.id)
    .cte("line")
)
_BOTH = sa.insert(audit_pending).from_select(["audit_id"], sa.select(_line.c.id))
"""PostgreSQL writes both by one statement."""


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One line of the log."""

    id: uuid.UUID
    at: datetime
    actor: str
    action: str
    subject: str | None
    detail: Mapping[str, Any]


def audit(tx: Tx, actor: str, action: str, subject: str | None, detail: Mapping[str, Any] | None = None, *, at: datetime) -> None:
    """Write one line: `action` is `noun.verb`, `subject` an id, `detail` names of fields and counts, never personal values."""
    line = new_id()
    said = {"id": line, "at": at, "actor": actor, "action": action, "subject": subject, "detail": dict(detail or {})}
    if tx.dialect != "sqlite":
        tx.execute(_BOTH, said)
        return
    tx.execute(_WRITE, said)
    tx.execute(_LEAVE, {"audit_id": line})


def audit_lines(tx: Tx, *, limit: int, actor: str | None = None, action: str | None = None) -> Sequence[AuditLine]:
    """The newest lines first, at most `limit`; only this actor's, only of this action."""
    own = audit_log.c
    wanted = [column == said for column, said in ((own.actor, actor), (own.action, action)) if said is not None]
    query = sa.select(audit_log).where(*wanted).order_by(own.at.desc(), own.id.desc()).limit(limit)
    return [AuditLine(row.id, row.at, row.actor, row.action, row.subject, row.detail) for row in tx.rows(query)]
