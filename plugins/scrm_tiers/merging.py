"""Two people who become one, one who becomes two again, and one who is forgotten.

What people did stays on the account that it was recorded for; a merge changes who holds the account. The survivor has the
higher of the two levels, and the one that both together reach if that is higher still. The absorbed account keeps the level it
had, which is what its person has again after an unmerge; the survivor's waits for the review.
"""

from __future__ import annotations

import uuid
from datetime import date

import sqlalchemy as sa

from scrm.api import HandlerTx, LogEvent, absorbed_into, derive_id, hookimpl, insert_rows

from .book import Account
from .models import accounts, merges
from .rows import Loaded, load_accounts
from .rules import TiersRules


@hookimpl
def merge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, rules: TiersRules) -> int:
    """Let the survivor hold what the absorbed person held; returns how many accounts moved."""
    other = next((account for account in load_accounts(tx, [absorbed]) if account.user_id == absorbed), None)
    if other is None:
        return 0
    loaded = Loaded.of(tx, rules, {kept: event, absorbed: event})
    book = loaded.book
    survivor, other_person = book.people[kept], book.people[absorbed]
    for person in (survivor, other_person):
        book.see(person, event)
    higher = rules.held(other_person.main.tier)
    took_pin = _is_stronger(rules, event, other_person.main, survivor.main)
    if took_pin:
        survivor.main.pin, survivor.main.pinned_until = other_person.main.pin, other_person.main.pinned_until
    survivor.days |= other_person.days
    book.rise(survivor, event, "MERGE", higher)
    loaded.store(tx)
    moved = tx.execute(sa.update(accounts).where(accounts.c.holder_id == absorbed).values(holder_id=kept)).rowcount
    row = {"kept_id": survivor.main.id, "absorbed_id": other.id, "took_pin": took_pin, "undone_by": None}
    insert_rows(tx, merges, [{"id": event.id, **row}])
    return int(moved)


def _is_stronger(rules: TiersRules, event: LogEvent, pinned: Account, other: Account) -> bool:
    """Whether a pin is to be kept rather than another: the higher level, then the later end."""
    if pinned.pinned_until is None or pinned.pinned_until <= event.occurred_at:
        return False
    if other.pinned_until is None:
        return True
    return (rules.rank(pinned.pin), pinned.pinned_until) > (rules.rank(other.pin), other.pinned_until)


@hookimpl
def unmerge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID, rules: TiersRules) -> int:
    """Give back the account that was absorbed and those it had absorbed; returns how many went back."""
    row = tx.row(sa.select(merges).where(merges.c.id == merge, merges.c.undone_by.is_(None)))
    if row is None:
        return 0
    loaded = Loaded.of(tx, rules, {kept: event})
    survivor = loaded.book.people[kept]
    other = next(account for account in survivor.held if account.id == row.absorbed_id)
    loaded.book.see(survivor, event)
    homes = absorbed_into(tx, merges, other.id)
    if row.took_pin and (survivor.main.pin, survivor.main.pinned_until) == (other.pin, other.pinned_until):
        survivor.main.pin = survivor.main.pinned_until = None
    loaded.book.settle(survivor.main)
    loaded.store(tx)
    tx.execute(sa.update(merges).where(merges.c.id == merge).values(undone_by=event.id))
    tx.execute(sa.update(accounts).where(accounts.c.id.in_(homes)).values(holder_id=absorbed))
    return len(homes)


@hookimpl
def erase(tx: HandlerTx, event: LogEvent, user: uuid.UUID, pseudonym: uuid.UUID) -> None:
    """Point the person's accounts to the pseudonym, never to be reviewed again; what they did is nobody's from now on."""
    over = {"pin": None, "pinned_until": None, "valid_until": None, "reviewed_on": date.max}
    for row in tx.rows(sa.select(accounts.c.id, accounts.c.user_id).where(accounts.c.holder_id == user).order_by(accounts.c.id)):
        alias = pseudonym if row.user_id == user else derive_id(pseudonym, row.id.hex)
        tx.execute(sa.update(accounts).where(accounts.c.id == row.id).values(user_id=alias, holder_id=pseudonym, **over))
