"""Two people who become one, one who becomes two again, and one who is forgotten.

What was spent on a person, what the person paid and came through stays on the account that it was recorded for; a merge changes
who holds the account, so caps and last touches count together from then on. No line's money changes.
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa

from scrm.api import HandlerTx, LogEvent, absorbed_into, derive_id, hookimpl, insert_rows

from .book import Book
from .handlers import held_by, load_people
from .models import merges, people
from .rules import BudgetRules


@hookimpl
def merge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, rules: BudgetRules) -> int:
    """Let the survivor hold the absorbed person's accounts; returns how many moved."""
    other = next((one for one in held_by(tx, [absorbed]) if one.user_id == absorbed), None)
    if other is None:
        return 0
    survivor = Book(rules)
    load_people(tx, survivor, {kept: event})
    moved = tx.execute(sa.update(people).where(people.c.holder_id == absorbed).values(holder_id=kept)).rowcount
    row = {"id": event.id, "kept_id": survivor.own(kept).id, "absorbed_id": other.id, "undone_by": None}
    insert_rows(tx, merges, [row])
    return int(moved)


@hookimpl
def unmerge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID) -> int:
    """Give back the account that was absorbed and those it had absorbed; returns how many went back."""
    row = tx.row(sa.select(merges).where(merges.c.id == merge, merges.c.undone_by.is_(None)))
    if row is None:
        return 0
    tx.execute(sa.update(merges).where(merges.c.id == merge).values(undone_by=event.id))
    homes = absorbed_into(tx, merges, row.absorbed_id)
    tx.execute(sa.update(people).where(people.c.id.in_(homes)).values(holder_id=absorbed))
    return len(homes)


@hookimpl
def erase(tx: HandlerTx, event: LogEvent, user: uuid.UUID, pseudonym: uuid.UUID) -> None:
    """Point the person's accounts to the pseudonym and forget what they came through; amounts stay as they are."""
    over = {"touched_at": None, "channel_id": None, "campaign": None}
    for row in tx.rows(sa.select(people.c.id, people.c.user_id).where(people.c.holder_id == user).order_by(people.c.id)):
        alias = pseudonym if row.user_id == user else derive_id(pseudonym, row.id.hex)
        tx.execute(sa.update(people).where(people.c.id == row.id).values(user_id=alias, holder_id=pseudonym, **over))
