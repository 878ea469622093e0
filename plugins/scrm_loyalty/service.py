"""What a person's points are, as SQL on the person's row.

A lot counts from `available_at` until before `expires_at`, and a hold keeps points until before its own, so every number is right
without a job having run. `user` has `.c.id`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import NOW, ScrmError, Text, Tx, Value, channels, exported, hookimpl

from .models import accounts, allocations, entries, held_lots, holds, lots, notes, orders


def spendable(user: Any, at: Any = NOW) -> sa.ColumnElement[int]:
    """Points that can be spent now: those that are held are out."""
    usable = lots.c.available_at <= at, lasts(at)
    return _lots_of(user, *usable) - _held_of(user, _open(at), *usable)


def pending(user: Any) -> sa.ColumnElement[int]:
    """Points that can be spent later."""
    return _lots_of(user, lots.c.available_at > NOW, lasts(NOW))


def frozen(user: Any) -> sa.ColumnElement[bool]:
    """Whether nothing can be spent, for the numbers did not agree."""
    return sa.exists().where(accounts.c.user_id == user.c.id, accounts.c.frozen)


def held(user: Any) -> sa.ColumnElement[int]:
    """Points that are held now, those included whose time is over but for the hold."""
    return _held_of(user, _open(NOW))


def debt(user: Any) -> sa.ColumnElement[int]:
    """Points that the next credit pays first."""
    return _whole(sa.select(sa.func.sum(accounts.c.debt)).where(accounts.c.holder_id == user.c.id))


def earned(user: Any) -> sa.ColumnElement[int]:
    """Points ever credited, those included that refunds took back or that paid a debt."""
    return _entries_of(user, ("EARN", "DEBT_REPAID"), entries.c.rule.is_not(None))


def redeemed(user: Any) -> sa.ColumnElement[int]:
    """Points ever spent and not given back."""
    given_back = entries.c.kind != "DEBT_REPAID", entries.c.reverses.is_not(None)
    return -_entries_of(user, ("REDEEM", "RESTORE", "DEBT_REPAID"), sa.or_(*given_back))


def expired(user: Any) -> sa.ColumnElement[int]:
    """Points that expired unspent, written off or not."""
    over = lots.c.expires_at <= NOW
    return _lots_of(user, over) - _held_of(user, _open(NOW), over) - _entries_of(user, ("EXPIRE",))


def balance_at(user: Any, at: Any) -> sa.ColumnElement[int]:
    """Points that could be spent at another time, as the ledger knows it now."""
    then = (
        sa.select(sa.func.coalesce(sa.func.sum(allocations.c.amount), 0))
        .join(entries, entries.c.id == allocations.c.entry_id)
        .where(allocations.c.lot_id == lots.c.id, entries.c.occurred_at <= at)
        .scalar_subquery()
    )
    mine = sa.select(sa.func.sum(lots.c.original - then)).join(accounts, accounts.c.id == lots.c.account_id)
    usable = lots.c.available_at <= at, lasts(at)
    ended = sa.func.coalesce(holds.c.resolved_at, holds.c.expires_at, type_=holds.c.expires_at.type)
    kept = _held_of(user, sa.and_(holds.c.created_at <= at, ended > at), *usable)
    return _whole(mine.where(accounts.c.holder_id == user.c.id, *usable)) - kept


def expiring(user: Any, within_days: Value | None) -> sa.Select[Any]:
    """What expires on each of the coming days, soonest first: `date` and `points`; what is held does not."""
    kept = sa.select(sa.func.sum(held_lots.c.amount)).join(holds, holds.c.id == held_lots.c.hold_id)
    free = lots.c.remaining - sa.func.coalesce(kept.where(held_lots.c.lot_id == lots.c.id, _open(NOW)).scalar_subquery(), 0)
    rows = (
        sa.select(lots.c.expires_on.label("date"), sa.cast(sa.func.sum(free), sa.BigInteger).label("points"))
        .join(accounts, accounts.c.id == lots.c.account_id)
        .where(accounts.c.holder_id == user.c.id, free > 0, lots.c.expires_at > NOW)
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


def holds_of(user: Any, hold: Any) -> sa.ColumnElement[bool]:
    """The hold is one of this person's."""
    return entries_of(user, hold)


def hold_state(hold: Any) -> sa.ColumnElement[str]:
    """What became of a hold: OPEN, CAPTURED, RELEASED, or EXPIRED once its deadline is over."""
    return sa.case((sa.and_(hold.c.state == "OPEN", hold.c.expires_at <= NOW), "EXPIRED"), else_=hold.c.state)


def holder(entry: Any) -> sa.ColumnElement[uuid.UUID]:
    """Whose entry, or hold, it is now."""
    return sa.select(accounts.c.holder_id).where(accounts.c.id == entry.c.account_id).scalar_subquery()


def _lots_of(user: Any, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    mine = sa.select(sa.func.sum(lots.c.remaining)).join(accounts, accounts.c.id == lots.c.account_id)
    return _whole(mine.where(accounts.c.holder_id == user.c.id, lots.c.remaining > 0, *conditions))


def _held_of(user: Any, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    of_lots = sa.join(holds, held_lots, held_lots.c.hold_id == holds.c.id).join(lots, lots.c.id == held_lots.c.lot_id)
    mine = sa.select(sa.func.sum(held_lots.c.amount)).select_from(of_lots.join(accounts, accounts.c.id == holds.c.account_id))
    return _whole(mine.where(accounts.c.holder_id == user.c.id, *conditions))


def _open(at: Any) -> sa.ColumnElement[bool]:
    return sa.and_(holds.c.state == "OPEN", holds.c.expires_at > at)


def _entries_of(user: Any, kinds: Sequence[str], *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    mine = sa.select(sa.func.sum(entries.c.points)).join(accounts, accounts.c.id == entries.c.account_id)
    return _whole(mine.where(accounts.c.holder_id == user.c.id, entries.c.kind.in_(kinds), *conditions))


def lasts(at: Any) -> sa.ColumnElement[bool]:
    """The lot has not expired at this instant."""
    return sa.or_(lots.c.expires_at.is_(None), lots.c.expires_at > at)


def _whole(select: sa.Select[Any]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.coalesce(select.scalar_subquery(), 0), sa.BigInteger)


def channel_of(tx: Tx, key: str) -> uuid.UUID:
    """The channel with this key.

    Raises:
        ScrmError: UNKNOWN_CHANNEL.
    """
    found: dict[str, uuid.UUID] = {row.key: row.id for row in tx.rows(sa.select(channels.c.key, channels.c.id))}
    if key not in found:
        raise ScrmError("UNKNOWN_CHANNEL", f"no channel has the key {key!r}", path=("channel",), params={"channel": key})
    return found[key]


def entry_of(tx: Tx, event_id: uuid.UUID) -> uuid.UUID | None:
    """The entry that an event made; of several the one that says what happened: what left, and not the debt that was paid."""
    order = (sa.case((entries.c.kind == "DEBT_REPAID", 1), (entries.c.reason.is_not(None), 1), else_=0), entries.c.points)
    found: uuid.UUID | None = tx.scalar(
        sa.select(entries.c.id).where(entries.c.event_id == event_id).order_by(*order, entries.c.id)
    )
    return found


def holder_of(tx: Tx, entry_id: uuid.UUID) -> uuid.UUID | None:
    """Whose an entry is now; None where there is no such entry."""
    said = sa.select(accounts.c.holder_id).join(entries, entries.c.account_id == accounts.c.id)
    found: uuid.UUID | None = tx.scalar(said.where(entries.c.id == entry_id))
    return found


def reason(entry: Any) -> sa.ColumnElement[str]:
    """Why an entry was made: in somebody's words, or the ledger's."""
    written = sa.select(notes.c.reason).where(notes.c.entry_id == entry.c.id).scalar_subquery()
    return sa.func.coalesce(written, entry.c.reason, type_=Text)


@hookimpl
def count(tx: Tx, user: uuid.UUID) -> int:
    """How many entries, lots, orders and holds hang on a person."""
    own = sa.select(accounts.c.id).where(accounts.c.holder_id == user)
    parts = [
        sa.select(sa.func.count()).select_from(table).where(table.c.account_id.in_(own)).scalar_subquery()
        for table in (entries, lots, orders, holds)
    ]
    return sum(tx.rows(sa.select(*parts))[0])


@hookimpl
def export(tx: Tx, user: uuid.UUID) -> dict[str, list[dict[str, Any]]]:
    """A person's entries, lots and holds, oldest first."""
    own = sa.select(accounts.c.id).where(accounts.c.holder_id == user)
    columns = [reason(entries).label("reason") if column.name == "reason" else column for column in entries.c]
    mine = sa.select(*columns).where(entries.c.account_id.in_(own)).order_by(entries.c.occurred_at, entries.c.id)
    kept = sa.select(lots).where(lots.c.account_id.in_(own)).order_by(lots.c.earned_at, lots.c.id)
    said = sa.select(holds).where(holds.c.account_id.in_(own)).order_by(holds.c.created_at, holds.c.id)
    return exported(tx, {"entries": mine, "lots": kept, "holds": said})
