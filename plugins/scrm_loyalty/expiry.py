"""The job that writes off what has expired: every number is right before it has run, it only says in the ledger what happened."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from scrm.api import Job, NewFact, Tx

from .ledger import EXPIRED
from .models import accounts, held_lots, holds, lots

AT_ONCE = 5_000
"""Lots that one run writes off; the next run takes the rest."""


def lapsed(tx: Tx, due: datetime, rules: Any) -> Sequence[NewFact]:
    """One fact for each account of which something has lapsed by then, with how much of which lot."""
    then = sa.literal(due, lots.c.expires_at.type)
    kept = (
        sa.select(sa.func.coalesce(sa.func.sum(held_lots.c.amount), 0))
        .join(holds, holds.c.id == held_lots.c.hold_id)
        .where(held_lots.c.lot_id == lots.c.id, holds.c.state == "OPEN", holds.c.expires_at > then)
        .scalar_subquery()
    )
    gone = sa.cast(lots.c.remaining - kept, sa.BigInteger)
    statement = (
        sa.select(accounts.c.user_id, lots.c.account_id, lots.c.id, gone.label("points"))
        .join(accounts, accounts.c.id == lots.c.account_id)
        .where(lots.c.remaining > 0, lots.c.expires_at <= then, gone > 0)
        .order_by(lots.c.account_id, lots.c.expires_at, lots.c.id)
        .limit(AT_ONCE)
    )
    facts = []
    for (account_id, user_id), rows in groupby(tx.rows(statement), key=lambda row: (row.account_id, row.user_id)):
        parts = [{"lot": row.id.hex, "points": row.points} for row in rows]
        said = {"points": sum(part["points"] for part in parts), "lots": parts}
        facts.append(NewFact(EXPIRED, f"{account_id.hex}:{due.isoformat()}", said, due, user_id))
    return facts


write_off = Job("expire", timedelta(hours=1), lapsed)
