"""Decisions that set things right: to undo an entry, to adjust points by hand, to move some to somebody else."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import Fact, Tx, UserError, instant_text, users

from .handlers import load_lots, select_lots
from .models import accounts, allocations, entries, lots
from .rules import LoyaltyRules
from .spending import LARGEST, Part, first_of, free_parts, insufficient, invalid, lock, lock_both, of_account, said

LASTING = timedelta(days=36_500)
REVERSIBLE = ("REDEEM", "ADJUST")


def undo(tx: Tx, input: Mapping[str, Any], rules: LoyaltyRules, at: datetime) -> Fact | UserError:
    """Give back what a redemption, or an adjustment below 0, took; take back what an adjustment gave.

    A debt is paid first, with what would expire soonest. Refuses with ENTRY_NOT_FOUND, ENTRY_NOT_REVERSIBLE,
    ENTRY_ALREADY_REVERSED, or with INSUFFICIENT_POINTS where the points of an adjustment are not all there any more.
    """
    entry_id = uuid.UUID(input["entry"])
    row = tx.row(sa.select(entries, accounts.c.holder_id).join(accounts).where(entries.c.id == entry_id))
    shown = {"entryId": f"PointsEntry_{entry_id.hex}"}
    if row is None:
        return UserError("ENTRY_NOT_FOUND", f"no entry has the id {shown['entryId']}", ("entryId",), shown)
    given = _given(tx, row)
    if given:
        row = given[0]
        entry_id = row.id
    elif row.kind not in REVERSIBLE or row.reverses is not None:
        message = f"the entry is {row.kind}; what can be undone is a redemption or an adjustment that undoes nothing itself"
        return UserError("ENTRY_NOT_REVERSIBLE", message, ("entryId",), {**shown, "kind": row.kind})
    took = {one.lot_id: one.amount for one in tx.rows(sa.select(allocations).where(allocations.c.entry_id == entry_id))}
    there = lots.c.id.in_(list(took)) if took else lots.c.entry_id == entry_id
    debts = _lock_all(tx, row.holder_id, there)
    if _undone(tx, entry_id):
        message = f"the entry {shown['entryId']} was undone before; it is undone once"
        return UserError("ENTRY_ALREADY_REVERSED", message, ("entryId",), shown)
    kind = "ADJUST" if given else row.kind
    common = {"entry": entry_id.hex, "account": row.account_id.hex, "kind": kind, "reference": row.reference}
    common = {**common, "reason": input["reason"], "points": -row.points}
    found = load_lots(tx, select_lots(there))
    if given:
        parts, debt = _free_of(tx, found, at), sum(line.points for line in given if line.kind == "DEBT_REPAID")
        points = sum(line.points for line in given) - debt
        if sum(amount for _, amount in parts) < points:
            return insufficient(sum(amount for _, amount in parts), points)
        fact = {**common, "points": -points - debt, "debtRepaid": 0, "debtMade": debt}
        return Fact(row.holder_id, {**fact, "lots": said(first_of(parts, points)), "renewed": []})
    repaid = min(-row.points, debts) if row.kind == "REDEEM" else 0
    back = first_of(((lot, took[lot.id]) for lot in reversed(found)), -row.points - repaid)
    over = [part for part in back if rules.reinstatement_days and part[0].expired(at)]
    day = rules.reinstated_until(at)
    anew = {"expiresAt": instant_text(rules.midnight(day)), "expiresOn": day.isoformat()}
    renewed = [{**one, **anew} for one in said(over)]
    return Fact(
        row.holder_id, {**common, "debtRepaid": repaid, "lots": said([p for p in back if p not in over]), "renewed": renewed}
    )


def _given(tx: Tx, row: sa.Row[Any]) -> list[sa.Row[Any]]:
    """The lines of the adjustment upwards that a line is of, that of its lot first and that of the debt it paid; none if it is of
    none."""
    if row.kind not in ("ADJUST", "DEBT_REPAID") or row.points < 0 or row.rule is not None or row.reverses is not None:
        return []
    lines = sa.select(entries, accounts.c.holder_id).join(accounts).where(entries.c.event_id == row.event_id)
    return sorted(tx.rows(lines.where(entries.c.points > 0)), key=lambda line: line.kind)


def _undone(tx: Tx, entry_id: uuid.UUID) -> bool:
    return tx.row(sa.select(entries.c.id).where(entries.c.reverses == entry_id).limit(1)) is not None


def _lock_all(tx: Tx, holder: uuid.UUID, there: sa.ColumnElement[bool]) -> int:
    """Lock the holder's account and those of the lots, in the order of their ids; the holder's debt."""
    of_lots = sa.select(lots.c.account_id).where(there)
    wanted = sa.or_(accounts.c.user_id == holder, accounts.c.id.in_(of_lots))
    locked = tx.rows(sa.select(accounts).where(wanted).order_by(accounts.c.id).with_for_update())
    return sum(row.debt for row in locked if row.user_id == holder)


def _free_of(tx: Tx, found: Sequence[Any], at: datetime) -> list[Part]:
    """What can be spent of these lots."""
    own = {lot.id for lot in found}
    return [part for account in {lot.account_id for lot in found} for part in free_parts(tx, account, at) if part[0].id in own]


def adjust(tx: Tx, input: Mapping[str, Any], rules: LoyaltyRules, at: datetime) -> Fact | UserError:
    """Credit points, which pay a debt first and last as the program says or until `expiresAt`; or take some (below 0).

    Refuses with INVALID_POINTS, REASON_NEEDED, INVALID_EXPIRY or INSUFFICIENT_POINTS.
    """
    user, points = uuid.UUID(input["userId"]), input["points"]
    if not 1 <= abs(points) <= LARGEST:
        return invalid(points, "an adjustment, in either direction,")
    if not input["reason"].strip():
        return UserError("REASON_NEEDED", "an adjustment says why; give a reason", ("reason",))
    account = lock(tx, user)
    common = {"points": points, "reason": input["reason"], "reference": input["reference"]}
    if points < 0:
        parts = free_parts(tx, account.id, at) if account is not None else []
        balance = sum(amount for _, amount in parts)
        if balance < -points:
            return insufficient(balance, -points)
        return Fact(user, {**common, "lots": said(first_of(parts, -points)), "debtRepaid": 0})
    day = rules.expires_on(at)
    until = rules.midnight(day) if day is not None else None
    if input["expiresAt"] is not None:
        until = datetime.fromisoformat(input["expiresAt"])
        if not at < until <= at + LASTING:
            message = f"expiresAt is {instant_text(until)}; points last until later than now, and at most {LASTING.days} days"
            return UserError("INVALID_EXPIRY", message, ("expiresAt",), {"expiresAt": instant_text(until)})
        day = rules.day_of(until)
    debt = account.debt if account is not None else 0
    lasting = {"expiresAt": instant_text(until), "expiresOn": day.isoformat()} if until is not None and day is not None else {}
    return Fact(user, {**common, **lasting, "lots": [], "debtRepaid": min(points, debt)})


def transfer(tx: Tx, input: Mapping[str, Any], rules: LoyaltyRules, at: datetime) -> Fact | UserError:
    """Move points to somebody else; those that expire soonest go first, and last as long as before.

    Refuses with INVALID_POINTS, SAME_ACCOUNT, USER_ERASED, ACCOUNT_FROZEN or INSUFFICIENT_POINTS.
    """
    giver, points = uuid.UUID(input["userId"]), input["points"]
    if not 1 <= points <= LARGEST:
        return invalid(points, "a transfer")
    to = tx.row(sa.select(users.c.id, users.c.merged_into, users.c.erased_at).where(users.c.id == uuid.UUID(input["toUserId"])))
    if to is None or to.erased_at is not None:
        return UserError("USER_ERASED", "who should get the points was erased; name somebody else", ("toUserId",))
    taker = to.merged_into or to.id
    if taker == giver:
        return UserError("SAME_ACCOUNT", "toUserId is who gives; name somebody else", ("toUserId",))
    account = next((one for one in lock_both(tx, giver, taker) if one.user_id == giver), None)
    taken = of_account(tx, account, points, at)
    if isinstance(taken, UserError):
        return taken
    fact = {"points": points, "lots": said(taken), "to": taker.hex}
    return Fact(giver, {**fact, "reason": input["reason"], "reference": input["reference"]})
