"""Decisions about points: to spend, to hold, to capture and to release some.

Each locks the account's row, looks at the plugin's tables, and either refuses or says a fact that holds everything it chose.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sa

from scrm.api import Fact, Tx, UserError, among, instant_text

from .handlers import LOTS, load_lots, select_lots
from .ledger import Lot
from .models import accounts, held_lots, holds, lots
from .rules import LoyaltyRules
from .service import lasts

LARGEST = 2**53 - 1
LONGEST = 31_536_000
"""Seconds that a hold may last."""

Part = tuple[Lot, int]
"""How much of a lot."""


def spend(tx: Tx, input: Mapping[str, Any], rules: LoyaltyRules, at: datetime) -> Fact | UserError:
    """Choose the lots that a redemption takes: soonest expiry first, then oldest, those that never expire last.

    Refuses with INVALID_POINTS, BELOW_MINIMUM, NOT_A_STEP, ACCOUNT_FROZEN or INSUFFICIENT_POINTS.
    """
    taken = _chosen(tx, input, rules, at)
    if isinstance(taken, UserError):
        return taken
    return _fact(input, {"points": input["points"], "lots": said(taken)})


def hold(tx: Tx, input: Mapping[str, Any], rules: LoyaltyRules, at: datetime) -> Fact | UserError:
    """Choose the lots that a hold keeps, as a redemption would, and until when.

    Refuses with what `spend` refuses with, and INVALID_DEADLINE.
    """
    seconds = input["seconds"] if input["seconds"] is not None else rules.hold_seconds
    if not 1 <= seconds <= LONGEST:
        message = f"expiresInSeconds is {seconds}; a hold lasts 1 to {LONGEST}"
        return UserError("INVALID_DEADLINE", message, ("expiresInSeconds",), {"expiresInSeconds": seconds})
    taken = _chosen(tx, input, rules, at)
    if isinstance(taken, UserError):
        return taken
    until = instant_text(at + timedelta(seconds=seconds))
    return _fact(input, {"points": input["points"], "lots": said(taken), "expiresAt": until})


def capture(tx: Tx, input: Mapping[str, Any], rules: LoyaltyRules, at: datetime) -> Fact | UserError:
    """Spend what a hold keeps, all or less of it; what expires soonest goes first.

    Refuses with INVALID_POINTS, HOLD_NOT_FOUND, HOLD_ALREADY_RESOLVED, HOLD_EXPIRED, ACCOUNT_FROZEN or HOLD_TOO_SMALL.
    """
    found = _open_hold(tx, input, at, spends=True)
    if isinstance(found, UserError):
        return found
    row, parts = found
    points = input["points"] if input["points"] is not None else row.points
    if not 1 <= points <= LARGEST:
        return invalid(points, "a capture")
    if points > row.points:
        message = f"points is {points}, and the hold keeps {row.points}; capture no more than that"
        return UserError("HOLD_TOO_SMALL", message, ("points",), {"points": points, "held": row.points})
    if any(lot.remaining < amount for lot, amount in parts):
        return _over(row)  # another server, whose clock is ahead, let somebody else spend them
    reference = input["reference"] if input["reference"] is not None else row.reference
    fact = {"points": points, "lots": said(first_of(parts, points)), "hold": row.id.hex}
    return Fact(row.user_id, {**fact, "reason": row.reason, "reference": reference})


def release(tx: Tx, input: Mapping[str, Any], rules: LoyaltyRules, at: datetime) -> Fact | UserError:
    """Free what a hold keeps. Refuses with HOLD_NOT_FOUND, HOLD_ALREADY_RESOLVED or HOLD_EXPIRED."""
    found = _open_hold(tx, input, at, spends=False)
    if isinstance(found, UserError):
        return found
    row, parts = found
    return Fact(row.user_id, {"points": row.points, "lots": said(parts), "hold": row.id.hex})


def _fact(input: Mapping[str, Any], properties: dict[str, Any]) -> Fact:
    channel = uuid.UUID(input["channel"]) if input.get("channel") else None
    more = {"reason": input["reason"], "reference": input["reference"]}
    return Fact(uuid.UUID(input["userId"]), {**properties, **more}, channel_id=channel)


def _chosen(tx: Tx, input: Mapping[str, Any], rules: LoyaltyRules, at: datetime) -> list[Part] | UserError:
    """The parts of lots that make up these points, or why there are none."""
    points = input["points"]
    refusal = _refusal(points, rules)
    if refusal is not None:
        return refusal
    return of_account(tx, lock(tx, uuid.UUID(input["userId"])), points, at)


def of_account(tx: Tx, account: Locked | None, points: int, at: datetime) -> list[Part] | UserError:
    """So many points of a locked account, or ACCOUNT_FROZEN or INSUFFICIENT_POINTS."""
    if account is None:
        return insufficient(0, points)
    if account.frozen:
        return FROZEN
    usable = free_parts(tx, account.id, at)
    balance = sum(amount for _, amount in usable)
    return first_of(usable, points) if balance >= points else insufficient(balance, points)


FROZEN = UserError(
    "ACCOUNT_FROZEN", "the account is frozen, for its numbers do not agree; see scrm loyalty reconcile", ("userId",)
)
"""Why nothing can be spent of such an account."""


class Locked(NamedTuple):
    """An account that nobody else changes until the transaction ends."""

    id: uuid.UUID
    user_id: uuid.UUID
    frozen: bool
    debt: int


# Built once: to build a statement costs more than to run it.
_LOCK = sa.select(*(accounts.c[name] for name in Locked._fields)).with_for_update()
_OF_USER = _LOCK.where(accounts.c.user_id == sa.bindparam("user"))
_OF_BOTH = _LOCK.where(among(accounts.c.user_id, "users")).order_by(accounts.c.id)
_WITH_ID = _LOCK.where(accounts.c.id == sa.bindparam("account"))
_THEN = sa.bindparam("then", type_=lots.c.available_at.type)
_kept = (
    sa.select(sa.func.sum(held_lots.c.amount))
    .join(holds, holds.c.id == held_lots.c.hold_id)
    .where(held_lots.c.lot_id == lots.c.id, holds.c.account_id == lots.c.account_id)
    .where(holds.c.state == "OPEN", holds.c.expires_at > _THEN)
    .scalar_subquery()
)
HELD = sa.cast(sa.func.coalesce(_kept, 0), sa.BigInteger).label("held")
"""How much of a lot holds keep."""
USABLE = select_lots(
    sa.and_(lots.c.account_id == sa.bindparam("account"), lots.c.remaining > 0, lots.c.available_at <= _THEN, lasts(_THEN)),
    HELD,
    lapsed=sa.literal(0),
)
_HELD_FOR = sa.select(holds.c.account_id).where(holds.c.id == sa.bindparam("hold"))
_HOLD = (
    sa.select(holds, accounts.c.user_id)
    .join(accounts, accounts.c.id == holds.c.account_id)
    .where(holds.c.id == sa.bindparam("hold"))
)
_PARTS = sa.select(held_lots).where(held_lots.c.hold_id == sa.bindparam("hold"))


def lock(tx: Tx, user: uuid.UUID) -> Locked | None:
    """The account of a user; None while there is none."""
    row = tx.row(_OF_USER, {"user": user})
    return Locked(*tuple(row)) if row is not None else None


def lock_both(tx: Tx, giver: uuid.UUID, taker: uuid.UUID) -> list[Locked]:
    """The accounts of two users, locked in the order of their ids, as far as there are any."""
    return [Locked(*tuple(row)) for row in tx.rows(_OF_BOTH, {"users": [giver, taker]})]


def lock_account(tx: Tx, account_id: uuid.UUID) -> Locked:
    """The account with this id, which there is."""
    return Locked(*tuple(tx.rows(_WITH_ID, {"account": account_id})[0]))


def free_parts(tx: Tx, account_id: uuid.UUID, at: datetime) -> list[Part]:
    """What can be spent of an account at this instant, in the order in which it is."""
    rows = tx.rows(USABLE, {"account": account_id, "then": at})
    return [(Lot(*tuple(row)[:-1]), row.remaining - row.held) for row in rows]


def first_of(parts: Iterable[Part], points: int) -> list[Part]:
    """So many points from the front."""
    taken: list[Part] = []
    for lot, there in parts:
        amount = min(there, points)
        if amount > 0:
            taken.append((lot, amount))
            points -= amount
    return taken


def said(taken: Sequence[Part]) -> list[dict[str, Any]]:
    """Parts of lots as a fact says them."""
    return [{"lot": lot.id.hex, "points": amount} for lot, amount in taken]


def _open_hold(tx: Tx, input: Mapping[str, Any], at: datetime, *, spends: bool) -> tuple[sa.Row[Any], list[Part]] | UserError:
    """The hold with the id of its user, and what it keeps in the order in which it is spent; its account is locked."""
    hold_id = uuid.UUID(input["hold"])
    account_id = tx.scalar(_HELD_FOR, {"hold": hold_id})
    if account_id is None:
        return hold_not_found(hold_id)
    account = lock_account(tx, account_id)
    row = tx.rows(_HOLD, {"hold": hold_id})[0]
    refusal = _resolved(row) or _expired(row, at) or (FROZEN if spends and account.frozen else None)
    if refusal is not None:
        return refusal
    amounts = {part.lot_id: part.amount for part in tx.rows(_PARTS, {"hold": hold_id})}
    kept = load_lots(tx, LOTS, ids=list(amounts))
    return row, [(lot, amounts[lot.id]) for lot in kept]


def hold_not_found(hold_id: uuid.UUID) -> UserError:
    """No hold has this id."""
    shown = f"PointsHold_{hold_id.hex}"
    return UserError("HOLD_NOT_FOUND", f"no hold has the id {shown}", ("holdId",), {"holdId": shown})


def _resolved(row: sa.Row[Any]) -> UserError | None:
    if row.state == "OPEN":
        return None
    shown = f"PointsHold_{row.id.hex}"
    message = f"the hold {shown} is {row.state}; it is resolved once"
    return UserError("HOLD_ALREADY_RESOLVED", message, ("holdId",), {"holdId": shown, "state": row.state})


def _expired(row: sa.Row[Any], at: datetime) -> UserError | None:
    return _over(row) if row.expires_at <= at else None


def _over(row: sa.Row[Any]) -> UserError:
    until = instant_text(row.expires_at)
    message = f"the hold ended at {until}, and its points are free again; hold them anew"
    return UserError("HOLD_EXPIRED", message, ("holdId",), {"holdId": f"PointsHold_{row.id.hex}", "expiresAt": until})


def insufficient(balance: int, points: int) -> UserError:
    """More was asked for than can be spent."""
    values = {"balance": balance, "points": points}
    message = f"{points} points asked for, {balance} can be spent; ask for no more than that"
    return UserError("INSUFFICIENT_POINTS", message, ("points",), values)


def invalid(points: int, what: str) -> UserError:
    """No number of points."""
    return UserError("INVALID_POINTS", f"points is {points}; {what} takes 1 to {LARGEST}", ("points",), {"points": points})


def _refusal(points: int, rules: LoyaltyRules) -> UserError | None:
    if not 1 <= points <= LARGEST:
        return invalid(points, "a redemption")
    if points < rules.redeem_minimum:
        message = f"points is {points}; a redemption takes {rules.redeem_minimum} or more"
        return UserError("BELOW_MINIMUM", message, ("points",), {"points": points, "minimum": rules.redeem_minimum})
    if points % rules.redeem_step:
        message = f"points is {points}; a redemption takes a multiple of {rules.redeem_step}"
        return UserError("NOT_A_STEP", message, ("points",), {"points": points, "step": rules.redeem_step})
    return None
