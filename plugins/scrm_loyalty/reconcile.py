"""Whether the ledger agrees with itself: every number that is kept is computed again from entries and allocations."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
import typer

from scrm.api import Command, Decision, Fact, Job, NewFact, PluginContext, Tx, UserError, global_id, new_id, node_id

from .ledger import FROZEN, UNFROZEN
from .models import accounts, allocations, entries, held_lots, holds, lots, orders


@dataclass(frozen=True, slots=True)
class Drift:
    """What does not agree, and on whose account; None where it is on all together."""

    account_id: uuid.UUID | None
    said: str


def drifts(tx: Tx) -> list[Drift]:
    """What does not agree; empty when all is well."""
    return [*_balances(tx), *_lots(tx), *_ends(tx), *_orders(tx), *_moves(tx), *_pairs(tx), *_holds(tx), *_debts(tx)]


def _sum(column: sa.ColumnElement[Any], *conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.coalesce(sa.func.sum(column), 0)).where(*conditions).scalar_subquery()


def _balances(tx: Tx) -> Iterator[Drift]:
    """Σ entries = balance + pending + held + lapsed − debt, where the first four are what is left of the lots."""
    said = _sum(entries.c.points, entries.c.account_id == accounts.c.id)
    left = _sum(lots.c.remaining, lots.c.account_id == accounts.c.id)
    rows = sa.select(accounts.c.id, accounts.c.debt, said.label("said"), left.label("left"))
    for row in tx.rows(rows.where(said != left - accounts.c.debt)):
        yield Drift(row.id, f"account {row.id.hex}: entries sum to {row.said}, lots less debt to {row.left - row.debt}")


def _lots(tx: Tx) -> Iterator[Drift]:
    taken = _sum(allocations.c.amount, allocations.c.lot_id == lots.c.id)
    rows = sa.select(lots.c.id, lots.c.account_id, lots.c.original, lots.c.remaining, taken.label("taken"))
    for row in tx.rows(rows.where(lots.c.remaining != lots.c.original - taken)):
        yield Drift(row.account_id, f"lot {row.id.hex}: {row.remaining} of {row.original} left, yet {row.taken} taken")


def _ends(tx: Tx) -> Iterator[Drift]:
    """A lot that a credit made ends when that says."""
    made = sa.join(lots, entries, entries.c.id == lots.c.entry_id)
    rows = sa.select(lots.c.id, lots.c.account_id, lots.c.expires_at, entries.c.expires_at.label("said")).select_from(made)
    off = lots.c.expires_at.is_distinct_from(entries.c.expires_at)
    for row in tx.rows(rows.where(entries.c.kind.in_(("EARN", "ADJUST")), off)):
        yield Drift(row.account_id, f"lot {row.id.hex}: expires at {row.expires_at}, its entry says {row.said}")


def _orders(tx: Tx) -> Iterator[Drift]:
    """What refunds of an order took back is what its entries say; what it earned covers its lots."""
    said = -_sum(entries.c.points, entries.c.reverses == orders.c.entry_id, entries.c.kind == "REVERSE")
    kept = orders.c.reversed - orders.c.waived - orders.c.forgiven
    made = _sum(lots.c.original, lots.c.order_id == orders.c.id, lots.c.entry_id.in_(_earning()))
    rows = sa.select(
        orders.c.id, orders.c.account_id, kept.label("kept"), said.label("said"), orders.c.points, made.label("made")
    )
    for row in tx.rows(rows.where(orders.c.entry_id.is_not(None), sa.or_(kept != said, made > orders.c.points))):
        what = f"{row.kept} points taken back, entries say {row.said}; {row.points} earned, {row.made} in lots"
        yield Drift(row.account_id, f"order {row.id.hex}: {what}")


def _earning() -> sa.Select[Any]:
    return sa.select(entries.c.id).where(entries.c.kind == "EARN")


def _moves(tx: Tx) -> Iterator[Drift]:
    """A line is what it makes of lots less what it takes of them; what a refund takes back comes from lots or becomes debt."""
    made = _sum(lots.c.original, lots.c.entry_id == entries.c.id)
    taken = _sum(allocations.c.amount, allocations.c.entry_id == entries.c.id)
    rows = sa.select(entries.c.id, entries.c.account_id, entries.c.kind, entries.c.points, (made - taken).label("moved"))
    kinds = ("EARN", "REDEEM", "EXPIRE", "RESTORE", "ADJUST", "REVERSE")
    off = sa.or_(made - taken < entries.c.points, sa.and_(entries.c.kind != "REVERSE", made - taken != entries.c.points))
    for row in tx.rows(rows.where(entries.c.kind.in_(kinds), off)):
        yield Drift(row.account_id, f"{row.kind} {row.id.hex}: {row.points} points, {row.moved} in lots")


def _pairs(tx: Tx) -> Iterator[Drift]:
    other = entries.alias("other")
    rows = (
        sa.select(entries.c.id, entries.c.account_id, entries.c.points, other.c.points.label("other"))
        .outerjoin(other, other.c.id == entries.c.pair_id)
        .where(entries.c.kind.in_(("TRANSFER_IN", "TRANSFER_OUT")))
    )
    off = sa.or_(
        other.c.id.is_(None), other.c.pair_id.is_(None), other.c.pair_id != entries.c.id, other.c.points != -entries.c.points
    )
    for row in tx.rows(rows.where(off)):
        yield Drift(row.account_id, f"transfer {row.id.hex}: {row.points} points, the other half {row.other}")


def _holds(tx: Tx) -> Iterator[Drift]:
    """A hold keeps all its points in lots, and is resolved exactly when it says when."""
    kept = _sum(held_lots.c.amount, held_lots.c.hold_id == holds.c.id)
    off = sa.or_(
        kept != holds.c.points,
        (holds.c.state == "OPEN") != holds.c.resolved_at.is_(None),
        (holds.c.state == "CAPTURED") != (holds.c.captured > 0),
    )
    for row in tx.rows(sa.select(holds, kept.label("kept")).where(off)):
        if row.kept != row.points:
            yield Drift(row.account_id, f"hold {row.id.hex}: {row.points} points, {row.kept} kept of lots")
        if (row.state == "OPEN") != (row.resolved_at is None) or (row.state == "CAPTURED") != (row.captured > 0):
            yield Drift(
                row.account_id, f"hold {row.id.hex}: {row.state} with {row.captured} captured, resolved at {row.resolved_at}"
            )


def _debts(tx: Tx) -> Iterator[Drift]:
    """Debt that was ever made, less what credits paid, is what is owed now; over all accounts, for merges move it."""
    from_lots = _sum(allocations.c.amount, allocations.c.entry_id == entries.c.id)
    short = sa.select((-entries.c.points - from_lots).label("short")).where(entries.c.kind == "REVERSE").subquery()
    paid = _sum(entries.c.points, entries.c.kind == "DEBT_REPAID")
    row = tx.rows(sa.select(_sum(short.c.short).label("made"), paid.label("paid"), _sum(accounts.c.debt).label("owed")))[0]
    if row.owed != row.made - row.paid:
        yield Drift(None, f"debts: {row.made} made and {row.paid} paid, yet {row.owed} owed")


def freeze(tx: Tx, input: Mapping[str, Any], rules: Any, at: datetime) -> Fact | UserError:
    """Let nothing be spent of an account whose numbers do not agree."""
    return Fact(uuid.UUID(input["user"]), {"drift": input["drift"]})


def unfreeze(tx: Tx, input: Mapping[str, Any], rules: Any, at: datetime) -> Fact | UserError:
    """Let points be spent again. Refuses with NOT_FROZEN."""
    user = uuid.UUID(input["user"])
    if not tx.scalar(sa.select(accounts.c.frozen).where(accounts.c.user_id == user).with_for_update()):
        shown = global_id("User", user)
        return UserError("NOT_FROZEN", f"the account of {shown} is not frozen", ("unfreeze",), {"userId": shown})
    return Fact(user, {})


FREEZE = Decision("freezePoints", FROZEN, freeze)
UNFREEZE = Decision("unfreezePoints", UNFROZEN, unfreeze)


def holders(tx: Tx, found: list[Drift]) -> dict[uuid.UUID, list[str]]:
    """The people whose accounts do not agree and are not frozen yet, with what does not."""
    root = accounts.alias("root")
    own = sa.select(accounts.c.id, accounts.c.holder_id).join(root, root.c.user_id == accounts.c.holder_id)
    of = {row.id: row.holder_id for row in tx.rows(own.where(root.c.frozen.is_(False)))}
    said: dict[uuid.UUID, list[str]] = {}
    for drift in found:
        if drift.account_id in of:
            said.setdefault(of[drift.account_id], []).append(drift.said)
    return said


async def reconcile(
    context: PluginContext,
    unfreeze: Annotated[str, typer.Option(help="Let points of this user be spent again, by the user's id.")] = "",
) -> None:
    """Compute every balance again from the entries; name what does not agree, freeze those accounts, and end with 1."""
    if unfreeze:
        user = node_id("User", unfreeze, ("unfreeze",))
        await context.decide(UNFREEZE, {"user": user.hex}, key=new_id().hex, actor="cli")
        typer.echo(f"{unfreeze} can spend again")
        return
    found = await context.read(drifts)
    for drift in found:
        typer.echo(drift.said)
    for user, said in (await context.read(holders, found)).items():
        await context.decide(FREEZE, {"user": user.hex, "drift": said}, key=new_id().hex, actor="cli")
        typer.echo(f"frozen: {global_id('User', user)}")
    if found:
        raise typer.Exit(1)
    typer.echo("every account agrees with its entries")


RECONCILE = Command("reconcile", reconcile)


def found_by_night(tx: Tx, due: datetime, rules: Any) -> list[NewFact]:
    """What the job records: the accounts that do not agree and are not frozen yet."""
    return [
        NewFact(FROZEN, f"{user.hex}:{due.isoformat()}", {"drift": said}, due, user)
        for user, said in sorted(holders(tx, drifts(tx)).items())
    ]


NIGHTLY = Job("reconcile", "30 3 * * *", found_by_night)
