"""Whether the ledger agrees with itself: every number that is kept is computed again from entries and allocations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from scrm.api import Tx

from .models import accounts, allocations, entries, held_lots, holds, lots


def drifts(tx: Tx) -> list[str]:
    """What does not agree, one line each; empty when all is well."""
    return [*_balances(tx), *_lots(tx), *_moves(tx), *_pairs(tx), *_holds(tx), *_debts(tx)]


def _sum(column: sa.ColumnElement[Any], *conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(*conditions).scalar_subquery()


def _balances(tx: Tx) -> Iterator[str]:
    """Σ entries = balance + pending + held + lapsed − debt, where the first four are what is left of the lots."""
    said = _sum(entries.c.points, entries.c.account_id == accounts.c.id)
    left = _sum(lots.c.remaining, lots.c.account_id == accounts.c.id)
    for row in tx.rows(sa.select(accounts.c.id, accounts.c.debt, said.label("said"), left.label("left"))):
        if row.said != row.left - row.debt:
            yield f"account {row.id.hex}: entries sum to {row.said}, lots less debt to {row.left - row.debt}"


def _lots(tx: Tx) -> Iterator[str]:
    taken = _sum(allocations.c.amount, allocations.c.lot_id == lots.c.id)
    for row in tx.rows(sa.select(lots.c.id, lots.c.original, lots.c.remaining, taken.label("taken"))):
        if row.remaining != row.original - row.taken:
            yield f"lot {row.id.hex}: {row.remaining} of {row.original} left, yet {row.taken} taken"


def _moves(tx: Tx) -> Iterator[str]:
    """A line is what it makes of lots less what it takes of them; what a refund takes back comes from lots or becomes debt."""
    made = _sum(lots.c.original, lots.c.entry_id == entries.c.id)
    taken = _sum(allocations.c.amount, allocations.c.entry_id == entries.c.id)
    rows = sa.select(entries.c.id, entries.c.kind, entries.c.points, (made - taken).label("moved"))
    kinds = ("EARN", "REDEEM", "EXPIRE", "RESTORE", "ADJUST", "REVERSE")
    for row in tx.rows(rows.where(entries.c.kind.in_(kinds))):
        if row.moved < row.points or (row.kind != "REVERSE" and row.moved != row.points):
            yield f"{row.kind} {row.id.hex}: {row.points} points, {row.moved} in lots"


def _pairs(tx: Tx) -> Iterator[str]:
    other = entries.alias("other")
    rows = (
        sa.select(entries.c.id, entries.c.points, other.c.points.label("other"), other.c.pair_id.label("back"))
        .outerjoin(other, other.c.id == entries.c.pair_id)
        .where(entries.c.kind.in_(("TRANSFER_IN", "TRANSFER_OUT")))
    )
    for row in tx.rows(rows):
        if row.back != row.id or row.other != -row.points:
            yield f"transfer {row.id.hex}: {row.points} points, the other half {row.other}"


def _holds(tx: Tx) -> Iterator[str]:
    """A hold keeps all its points in lots, and is resolved exactly when it says when."""
    kept = _sum(held_lots.c.amount, held_lots.c.hold_id == holds.c.id)
    for row in tx.rows(sa.select(holds, kept.label("kept"))):
        if row.kept != row.points:
            yield f"hold {row.id.hex}: {row.points} points, {row.kept} kept of lots"
        if (row.state == "OPEN") != (row.resolved_at is None) or (row.state == "CAPTURED") != (row.captured > 0):
            yield f"hold {row.id.hex}: {row.state} with {row.captured} captured, resolved at {row.resolved_at}"


def _debts(tx: Tx) -> Iterator[str]:
    """Debt that was ever made, less what credits paid, is what is owed now; over all accounts, for merges move it."""
    from_lots = _sum(allocations.c.amount, allocations.c.entry_id == entries.c.id)
    short = sa.select((-entries.c.points - from_lots).label("short")).where(entries.c.kind == "REVERSE").subquery()
    paid = _sum(entries.c.points, entries.c.kind == "DEBT_REPAID")
    row = tx.rows(sa.select(_sum(short.c.short).label("made"), paid.label("paid"), _sum(accounts.c.debt).label("owed")))[0]
    if row.owed != row.made - row.paid:
        yield f"debts: {row.made} made and {row.paid} paid, yet {row.owed} owed"
