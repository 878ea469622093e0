"""The audit log: who did what to whom, written in the transaction of the deed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from scrm.db import Tx, new_id
from scrm.models import audit_log


def audit(tx: Tx, actor: str, action: str, subject: str | None, detail: Mapping[str, Any] | None = None, *, at: datetime) -> None:
    """Write one line: `action` is `noun.verb`, `subject` an id, `detail` names of fields and counts, never personal values."""
    tx.execute(
        audit_log.insert().values(id=new_id(), at=at, actor=actor, action=action, subject=subject, detail=dict(detail or {}))
    )
