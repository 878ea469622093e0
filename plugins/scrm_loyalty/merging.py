"""Two people who become one, one who becomes two again, and one who is forgotten.

A merge moves lots, with all that was taken from them, to the survivor's account and says so by a linked pair of entries; what
had expired is written off first. Undoing it moves back the lots that the absorbed account earned, as far as they are not spent,
and its debt as far as it is not paid. Holds go where their lots go; what a hold that stays keeps of a lot that goes is split off
first. Entries of the past are never touched: an account only gets another holder.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection

import sqlalchemy as sa

from scrm.api import HandlerTx, LogEvent, Tx, absorbed_into, derive_id, hookimpl, insert_rows, line_id

from .handlers import Loaded, find_accounts, load_lots, load_orders, load_redeemed, select_lots
from .ledger import Account, Ledger, Lot, moved_lot, settle
from .models import accounts, entries, held_lots, holds, lots, merges, notes, orders
from .rules import LoyaltyRules

MOVED_BY_A_MERGE = (lots, holds)
"""Tables whose rows go from account to account."""


@hookimpl
def merge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, rules: LoyaltyRules) -> int:
    """Move what the absorbed person has to the survivor; returns how many lots moved."""
    found = _load(tx, [kept, absorbed])
    other = found.ledger.accounts.get(absorbed)
    if other is None:
        return 0
    survivor = found.ledger.account(kept, event)
    moving = _own_lots(tx, found, other, None)
    debt = other.debt
    survivor.frozen, other.frozen = survivor.frozen or other.frozen, False
    _transfer(found.ledger, event, other, survivor, moving, debt)
    found.store(tx)
    for table in MOVED_BY_A_MERGE:
        tx.execute(sa.update(table).where(table.c.account_id == other.id).values(account_id=survivor.id))
    tx.execute(sa.update(accounts).where(accounts.c.holder_id == absorbed).values(holder_id=kept))
    row = {"id": event.id, "kept_id": survivor.id, "absorbed_id": other.id, "debt": debt, "undone_by": None}
    insert_rows(tx, merges, [row])
    _settle_what_both_said(tx, event, kept, absorbed_into(tx, merges, other.id), rules)
    return len(moving)


def _settle_what_both_said(
    tx: HandlerTx, event: LogEvent, kept: uuid.UUID, came: Collection[uuid.UUID], rules: LoyaltyRules
) -> None:
    """A refund that one said of an order that the other paid counts from now on."""
    theirs, own = orders.alias("theirs"), orders.alias("own")
    both = sa.join(theirs, own, theirs.c.order_id == own.c.order_id).join(accounts, accounts.c.id == own.c.account_id)
    refunded = sa.or_(theirs.c.refunded > 0, own.c.refunded > 0), sa.or_(theirs.c.points > 0, own.c.points > 0)
    here = accounts.c.holder_id == kept, own.c.account_id.not_in(came), theirs.c.account_id.in_(came)
    said = tx.rows(sa.select(theirs.c.order_id).select_from(both).where(*here, *refunded).distinct().order_by(theirs.c.order_id))
    if not said:
        return
    loaded = _load(tx, [kept])
    ledger = loaded.ledger
    load_orders(tx, ledger, {(kept, row.order_id) for row in said})
    loaded.rows.keep(ledger.known_orders())
    for lot in load_lots(tx, select_lots(lots.c.order_id.in_([order.id for order in ledger.known_orders()]))):
        ledger.add_lot(lot)
    loaded.rows.keep(ledger.lots.values())
    loaded.keep_holds(tx)
    if rules.debt_policy == "floor_zero":
        ledger.redeemed = load_redeemed(tx, list(ledger.lots))
    for order in list(ledger.orders.values()):
        settle(ledger, event, ledger.accounts[kept], order, rules)
    loaded.store(tx)
    for announcement in ledger.announcements:
        tx.announce(announcement)


@hookimpl
def unmerge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID) -> int:
    """Give back what the absorbed account and those it had absorbed earned, as far as it is left; returns how many lots moved."""
    row = tx.row(sa.select(merges).where(merges.c.id == merge, merges.c.undone_by.is_(None)))
    if row is None:
        return 0
    found = _load(tx, [kept, absorbed])
    holder, other = found.ledger.accounts[kept], found.ledger.accounts[absorbed]
    tx.execute(sa.update(merges).where(merges.c.id == merge).values(undone_by=event.id))
    homes = absorbed_into(tx, merges, other.id)
    moving = _own_lots(tx, found, holder, homes)
    debt = min(row.debt, holder.debt)
    _transfer(found.ledger, event, holder, other, moving, debt)
    split = _split_held(found.ledger, event, holder, other, moving, homes)
    found.store(tx)
    for hold_id, lot_id, new_id in split:
        part = held_lots.c.hold_id == hold_id, held_lots.c.lot_id == lot_id
        tx.execute(sa.update(held_lots).where(*part).values(lot_id=new_id))
    for table in MOVED_BY_A_MERGE:
        going = table.c.account_id == holder.id, table.c.home_id.in_(homes)
        tx.execute(sa.update(table).where(*going).values(account_id=other.id))
    tx.execute(sa.update(accounts).where(accounts.c.id.in_(homes)).values(holder_id=absorbed))
    _forget_debt(tx, row.kept_id, holder.id, debt)
    return len(moving)


@hookimpl
def erase(tx: HandlerTx, event: LogEvent, user: uuid.UUID, pseudonym: uuid.UUID) -> None:
    """Point the person's accounts to the pseudonym, release what is held, forget what was written; entries stay as they are."""
    own = sa.select(entries.c.id).join(accounts, accounts.c.id == entries.c.account_id).where(accounts.c.holder_id == user)
    tx.execute(sa.delete(notes).where(notes.c.entry_id.in_(own)))
    kept = holds.c.account_id.in_(sa.select(accounts.c.id).where(accounts.c.holder_id == user))
    tx.execute(sa.update(holds).where(kept).values(reason=None))
    at = sa.literal(event.received_at, holds.c.expires_at.type)
    open_then = kept, holds.c.state == "OPEN", holds.c.expires_at > at
    tx.execute(sa.update(holds).where(*open_then).values(state="RELEASED", resolved_at=at))
    for row in tx.rows(sa.select(accounts.c.id, accounts.c.user_id).where(accounts.c.holder_id == user).order_by(accounts.c.id)):
        alias = pseudonym if row.user_id == user else derive_id(pseudonym, row.id.hex)
        tx.execute(sa.update(accounts).where(accounts.c.id == row.id).values(user_id=alias, holder_id=pseudonym))


def _load(tx: Tx, users: Collection[uuid.UUID]) -> Loaded:
    found = Loaded(Ledger({account.user_id: account for account in find_accounts(tx, users)}))
    found.rows.keep(found.ledger.accounts.values())
    return found


def _own_lots(tx: Tx, found: Loaded, account: Account, homes: Collection[uuid.UUID] | None) -> list[Lot]:
    """What is left on the account, of these homes only where they are said."""
    condition = sa.and_(lots.c.account_id == account.id, lots.c.remaining > 0)
    if homes is not None:
        condition = sa.and_(condition, lots.c.home_id.in_(homes))
    own = load_lots(tx, select_lots(condition))
    for lot in own:
        found.ledger.add_lot(lot)
    found.rows.keep(own)
    found.keep_holds(tx)
    return own


def _transfer(ledger: Ledger, event: LogEvent, giver: Account, taker: Account, moving: list[Lot], debt: int) -> None:
    """Write off what has expired, then say in linked pairs what moves."""
    for number, lot in enumerate(moving):
        gone = ledger.free(lot, event.received_at) if lot.expired(event.occurred_at) else 0
        if gone:
            ledger.write_off(event, lot, gone, number)
    for part, points in (("lots", sum(lot.remaining for lot in moving)), ("debt", -debt)):
        if points:
            ledger.pair(event, giver.id, taker.id, points, part, reason=part)
    giver.debt -= debt
    taker.debt += debt


def _split_held(
    ledger: Ledger, event: LogEvent, holder: Account, other: Account, moving: list[Lot], homes: Collection[uuid.UUID]
) -> list[tuple[uuid.UUID, uuid.UUID, uuid.UUID]]:
    """Give back to the holder, as lots of their own, what its holds keep of lots that go; says which hold keeps what of which
    lot from now on."""
    kept: dict[uuid.UUID, dict[uuid.UUID, int]] = {}
    split: list[tuple[uuid.UUID, uuid.UUID, uuid.UUID]] = []
    for lot in moving:
        for hold_id, amount in sorted(ledger.held.get(lot.id, {}).items()):
            hold = ledger.holds[hold_id]
            if hold.holds(event.received_at) and hold.home_id not in homes:
                of_home = kept.setdefault(hold.home_id, {})
                of_home[lot.id] = of_home.get(lot.id, 0) + amount
                into = line_id(event.id, "TRANSFER_IN", f"held {hold.home_id.hex}")
                split.append((hold_id, lot.id, moved_lot(into, lot.id)))
    for home_id, parts in kept.items():
        out, into = ledger.pair(event, other.id, holder.id, sum(parts.values()), f"held {home_id.hex}", reason="held")
        for lot_id, amount in parts.items():
            ledger.move(event, ledger.lots[lot_id], amount, out, into, holder.id, home_id)
    return split


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
