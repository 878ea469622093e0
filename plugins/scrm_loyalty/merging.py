"""Two people who become one, one who becomes two again, and one who is forgotten.

A merge moves lots, with all that was taken from them, to the survivor's account and says so by a linked pair of entries; what
had expired is written off first. Undoing it moves back the lots that the absorbed account earned, as far as they are not spent,
and its debt as far as it is not paid. Entries of the past are never touched: an account only gets another holder.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from scrm.api import HandlerTx, LogEvent, Tx, derive_id, insert_rows

from .handlers import Loaded, load_lots, lock_accounts
from .ledger import Account, Ledger, Lot
from .models import accounts, entries, lots, merges, notes


def merge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID) -> int:
    """Move what the absorbed person has to the survivor; returns how many lots moved."""
    found = _load(tx, [kept, absorbed])
    other = found.ledger.accounts.get(absorbed)
    if other is None:
        return 0
    survivor = found.ledger.account(kept, event)
    moving = _own_lots(tx, found, other, None)
    debt = other.debt
    _transfer(found.ledger, event, other, survivor, moving, debt)
    found.store(tx)
    tx.execute(sa.update(lots).where(lots.c.account_id == other.id).values(account_id=survivor.id))
    tx.execute(sa.update(accounts).where(accounts.c.holder_id == absorbed).values(holder_id=kept))
    row = {"id": event.id, "kept_id": survivor.id, "absorbed_id": other.id, "debt": debt, "undone_by": None}
    insert_rows(tx, merges, [row])
    return len(moving)


def unmerge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID) -> int:
    """Give back what the absorbed account and those it had absorbed earned, as far as it is left; returns how many lots moved."""
    row = tx.row(sa.select(merges).where(merges.c.id == merge, merges.c.undone_by.is_(None)))
    if row is None:
        return 0
    found = _load(tx, [kept, absorbed])
    holder, other = found.ledger.accounts[kept], found.ledger.accounts[absorbed]
    tx.execute(sa.update(merges).where(merges.c.id == merge).values(undone_by=event.id))
    homes = _absorbed_into(tx, other.id)
    moving = _own_lots(tx, found, holder, homes)
    debt = min(row.debt, holder.debt)
    _transfer(found.ledger, event, holder, other, moving, debt)
    found.store(tx)
    going = lots.c.account_id == holder.id, lots.c.home_id.in_(homes)
    tx.execute(sa.update(lots).where(*going).values(account_id=other.id))
    tx.execute(sa.update(accounts).where(accounts.c.id.in_(homes)).values(holder_id=absorbed))
    _forget_debt(tx, row.kept_id, holder.id, debt)
    return len(moving)


def erase(tx: HandlerTx, event: LogEvent, user: uuid.UUID, pseudonym: uuid.UUID) -> None:
    """Point the person's accounts to the pseudonym and forget what was written; entries stay as they are."""
    own = sa.select(entries.c.id).join(accounts, accounts.c.id == entries.c.account_id).where(accounts.c.holder_id == user)
    tx.execute(sa.delete(notes).where(notes.c.entry_id.in_(own)))
    for row in tx.rows(sa.select(accounts.c.id, accounts.c.user_id).where(accounts.c.holder_id == user).order_by(accounts.c.id)):
        alias = pseudonym if row.user_id == user else derive_id(pseudonym, row.id.hex)
        tx.execute(sa.update(accounts).where(accounts.c.id == row.id).values(user_id=alias, holder_id=pseudonym))


def _load(tx: Tx, users: Collection[uuid.UUID]) -> Loaded:
    found = Loaded(Ledger({account.user_id: account for account in lock_accounts(tx, users)}))
    found.keep(found.ledger.accounts.values())
    return found


def _own_lots(tx: Tx, found: Loaded, account: Account, homes: Collection[uuid.UUID] | None) -> list[Lot]:
    """What is left on the account, of these homes only where they are said."""
    condition = sa.and_(lots.c.account_id == account.id, lots.c.remaining > 0)
    if homes is not None:
        condition = sa.and_(condition, lots.c.home_id.in_(homes))
    own = load_lots(tx, condition)
    for lot in own:
        found.ledger.add_lot(lot)
    found.keep(own)
    return own


def _transfer(ledger: Ledger, event: LogEvent, giver: Account, taker: Account, moving: list[Lot], debt: int) -> None:
    """Write off what has expired, then say in linked pairs what moves."""
    for number, lot in enumerate(moving):
        if lot.expired(event.occurred_at):
            said: dict[str, Any] = {"occurred_at": lot.expires_at, "part": number, "reverses": None}
            ledger.take(ledger.entry(event, giver.id, "EXPIRE", -lot.remaining, **said), lot, lot.remaining)
    for part, points in (("lots", sum(lot.remaining for lot in moving)), ("debt", -debt)):
        if points:
            out, into = (derive_id(event.id, "entry", kind, part) for kind in ("TRANSFER_OUT", "TRANSFER_IN"))
            ledger.entry(event, giver.id, "TRANSFER_OUT", -points, part=part, reason=part, pair_id=into)
            ledger.entry(event, taker.id, "TRANSFER_IN", points, part=part, reason=part, pair_id=out)
    giver.debt -= debt
    taker.debt += debt


def _absorbed_into(tx: Tx, account_id: uuid.UUID) -> list[uuid.UUID]:
    """The account and all that were absorbed into it, at whatever remove, and still are."""
    found, edge = [account_id], [account_id]
    while edge:
        inner = sa.select(merges.c.absorbed_id).where(merges.c.kept_id.in_(edge), merges.c.undone_by.is_(None))
        edge = sorted({row.absorbed_id for row in tx.rows(inner)} - set(found))
        found += edge
    return found


def _forget_debt(tx: Tx, start: uuid.UUID, end: uuid.UUID, debt: int) -> None:
    """Debt that went back did not come with later merges on its way."""
    here = start
    while debt and here != end:
        onward = tx.row(sa.select(merges).where(merges.c.absorbed_id == here, merges.c.undone_by.is_(None)))
        if onward is None:
            return
        left = max(onward.debt - debt, 0)
        tx.execute(sa.update(merges).where(merges.c.id == onward.id).values(debt=left))
        here = onward.kept_id
