"""What a person's points are, as SQL on the person's row, and the decision to spend some.

A lot counts from `available_at` until before `expires_at`, so every number is right without a job having run. `user` has `.c.id`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import NOW, Fact, Text, Tx, UserError, Value

from .handlers import load_lots
from .ledger import Lot
from .models import accounts, allocations, entries, lots, notes, orders
from .rules import LoyaltyRules

LARGEST = 2**53 - 1


def spendable(user: Any, at: Any = NOW) -> sa.ColumnElement[int]:
    """Points that can be spent now."""
    return _lots_of(user, lots.c.available_at <= at, _lasts(at))


def pending(user: Any) -> sa.ColumnElement[int]:
    """Points that can be spent later."""
    return _lots_of(user, lots.c.available_at > NOW, _lasts(NOW))


def debt(user: Any) -> sa.ColumnElement[int]:
    """Points that the next credit pays first."""
    return _whole(sa.select(sa.func.sum(accounts.c.debt)).where(accounts.c.holder_id == user.c.id))


def earned(user: Any) -> sa.ColumnElement[int]:
    """Points ever credited, those included that refunds took back or that paid a debt."""
    return _entries_of(user, ("EARN", "DEBT_REPAID"))


def redeemed(user: Any) -> sa.ColumnElement[int]:
    """Points ever spent."""
    return -_entries_of(user, ("REDEEM", "RESTORE"))


def expired(user: Any) -> sa.ColumnElement[int]:
    """Points that expired unspent, written off or not."""
    return _lots_of(user, lots.c.expires_at <= NOW) - _entries_of(user, ("EXPIRE",))


def balance_at(user: Any, at: Any) -> sa.ColumnElement[int]:
    """Points that could be spent at another time, as the ledger knows it now."""
    then = (
        sa.select(sa.func.coalesce(sa.func.sum(allocations.c.amount), 0))
        .join(entries, entries.c.id == allocations.c.entry_id)
        .where(allocations.c.lot_id == lots.c.id, entries.c.occurred_at <= at)
        .scalar_subquery()
    )
    mine = sa.select(sa.func.sum(lots.c.original - then)).join(accounts, accounts.c.id == lots.c.account_id)
    return _whole(mine.where(accounts.c.holder_id == user.c.id, lots.c.available_at <= at, _lasts(at)))


def expiring(user: Any, within_days: Value | None) -> sa.Select[Any]:
    """What expires on each of the coming days, soonest first: `date` and `points`."""
    rows = (
        sa.select(lots.c.expires_on.label("date"), sa.cast(sa.func.sum(lots.c.remaining), sa.BigInteger).label("points"))
        .join(accounts, accounts.c.id == lots.c.account_id)
        .where(accounts.c.holder_id == user.c.id, lots.c.remaining > 0, lots.c.expires_at > NOW)
    )
    if within_days is not None:
        rows = rows.where(lots.c.expires_on <= within_days.converted("until", sa.Date(), _last_day))
    return rows.group_by(lots.c.expires_on)


def _last_day(days: int, moment: Any) -> date:
    day: date = moment.today
    return day + timedelta(days=min(max(days, 0), 36_500))


def entries_of(user: Any, entry: Any) -> sa.ColumnElement[bool]:
    """The entry is one of this person's."""
    own = sa.select(accounts.c.id).where(accounts.c.holder_id == user.c.id)
    within: sa.ColumnElement[bool] = entry.c.account_id.in_(own)
    return within


def holder(entry: Any) -> sa.ColumnElement[uuid.UUID]:
    """Whose entry it is now."""
    return sa.select(accounts.c.holder_id).where(accounts.c.id == entry.c.account_id).scalar_subquery()


def _lots_of(user: Any, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    mine = sa.select(sa.func.sum(lots.c.remaining)).join(accounts, accounts.c.id == lots.c.account_id)
    return _whole(mine.where(accounts.c.holder_id == user.c.id, lots.c.remaining > 0, *conditions))


def _entries_of(user: Any, kinds: Sequence[str]) -> sa.ColumnElement[int]:
    mine = sa.select(sa.func.sum(entries.c.points)).join(accounts, accounts.c.id == entries.c.account_id)
    return _whole(mine.where(accounts.c.holder_id == user.c.id, entries.c.kind.in_(kinds)))


def _lasts(at: Any) -> sa.ColumnElement[bool]:
    return sa.or_(lots.c.expires_at.is_(None), lots.c.expires_at > at)


def _whole(select: sa.Select[Any]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.coalesce(select.scalar_subquery(), 0), sa.BigInteger)


def spend(tx: Tx, input: Mapping[str, Any], rules: LoyaltyRules, at: datetime) -> Fact | UserError:
    """Choose the lots that a redemption takes: soonest expiry first, then oldest, those that never expire last.

    Refuses with INVALID_POINTS, BELOW_MINIMUM, NOT_A_STEP or INSUFFICIENT_POINTS.
    """
    user, points = uuid.UUID(input["userId"]), input["points"]
    refusal = _refusal(points, rules)
    if refusal is not None:
        return refusal
    account = tx.row(sa.select(accounts.c.id).where(accounts.c.user_id == user).with_for_update())
    usable: list[Lot] = []
    if account is not None:
        open_now = lots.c.available_at <= sa.literal(at, lots.c.available_at.type)
        lasting = _lasts(sa.literal(at, lots.c.available_at.type))
        usable = load_lots(tx, sa.and_(lots.c.account_id == account.id, lots.c.remaining > 0, open_now, lasting))
    balance = sum(lot.remaining for lot in usable)
    if balance < points:
        said = {"balance": balance, "points": points}
        message = f"{points} points asked for, {balance} can be spent; ask for no more than that"
        return UserError("INSUFFICIENT_POINTS", message, ("points",), said)
    taken, left = [], points
    for lot in usable:
        amount = min(lot.remaining, left)
        if amount:
            taken.append({"lot": lot.id.hex, "points": amount})
            left -= amount
    return Fact(user, {"points": points, "lots": taken, "reason": input["reason"], "reference": input["reference"]})


def _refusal(points: int, rules: LoyaltyRules) -> UserError | None:
    if not 1 <= points <= LARGEST:
        message = f"points is {points}; a redemption takes 1 to {LARGEST}"
        return UserError("INVALID_POINTS", message, ("points",), {"points": points})
    if points < rules.redeem_minimum:
        message = f"points is {points}; a redemption takes {rules.redeem_minimum} or more"
        return UserError("BELOW_MINIMUM", message, ("points",), {"points": points, "minimum": rules.redeem_minimum})
    if points % rules.redeem_step:
        message = f"points is {points}; a redemption takes a multiple of {rules.redeem_step}"
        return UserError("NOT_A_STEP", message, ("points",), {"points": points, "step": rules.redeem_step})
    return None


def entry_of(tx: Tx, event_id: uuid.UUID) -> uuid.UUID | None:
    """The entry that an event made."""
    found: uuid.UUID | None = tx.scalar(sa.select(entries.c.id).where(entries.c.event_id == event_id).order_by(entries.c.id))
    return found


def reason(entry: Any) -> sa.ColumnElement[str]:
    """Why an entry was made: in somebody's words, or the ledger's."""
    written = sa.select(notes.c.reason).where(notes.c.entry_id == entry.c.id).scalar_subquery()
    return sa.func.coalesce(written, entry.c.reason, type_=Text)


def count(tx: Tx, user: uuid.UUID) -> int:
    """How many entries, lots and orders hang on a person."""
    own = sa.select(accounts.c.id).where(accounts.c.holder_id == user)
    parts = [
        sa.select(sa.func.count()).select_from(table).where(table.c.account_id.in_(own)).scalar_subquery()
        for table in (entries, lots, orders)
    ]
    return sum(tx.rows(sa.select(*parts))[0])


def export(tx: Tx, user: uuid.UUID) -> dict[str, list[dict[str, Any]]]:
    """A person's entries and lots, oldest first."""
    own = sa.select(accounts.c.id).where(accounts.c.holder_id == user)
    columns = [reason(entries).label("reason") if column.name == "reason" else column for column in entries.c]
    mine = sa.select(*columns).where(entries.c.account_id.in_(own)).order_by(entries.c.occurred_at, entries.c.id)
    kept = sa.select(lots).where(lots.c.account_id.in_(own)).order_by(lots.c.earned_at, lots.c.id)
    return {"entries": [_plain(row._mapping) for row in tx.rows(mine)], "lots": [_plain(row._mapping) for row in tx.rows(kept)]}


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, uuid.UUID):
            said[str(name)] = value.hex
        elif isinstance(value, date):
            said[str(name)] = value.isoformat()
        else:
            said[str(name)] = value
    return said
