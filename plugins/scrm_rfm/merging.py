"""Two people who become one, one who becomes two again, and one who is forgotten.

A run is a snapshot, so a merge changes no score. The survivor is shown with the absorbed person's rows of those runs in which it
has none of its own; the next run counts them as one. What was shown so goes back when the merge is undone; what was computed for
the survivor since stays the survivor's.
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa

from scrm.api import HandlerTx, LogEvent, absorbed_into, hookimpl, insert_rows

from .models import merges, people
from .runs import forget_person, rows_of

STANDING = sa.select(merges.c.kept_id, merges.c.absorbed_id, merges.c.undone_at.label("undone_by")).subquery("standing")
"""The merges, as `absorbed_into` reads them."""


@hookimpl
def merge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID) -> int:
    """Show the survivor with what only the absorbed person has; returns how many rows moved."""
    own = people.alias("own")
    has = sa.exists().where(own.c.run_id == people.c.run_id, own.c.holder_id == kept)
    moved = tx.execute(sa.update(people).where(rows_of([absorbed]), ~has).values(holder_id=kept)).rowcount
    pair = {"kept_id": kept, "absorbed_id": absorbed}
    insert_rows(tx, merges, [{"id": event.id, **pair, "position": event.position, "undone_at": None}])
    return int(moved)


@hookimpl
def unmerge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID) -> int:
    """Give back what came from the absorbed person and those it had absorbed; returns how many rows went back."""
    undone = sa.update(merges).where(merges.c.id == merge, merges.c.undone_at.is_(None)).values(undone_at=event.position)
    if not tx.execute(undone).rowcount:
        return 0
    theirs = people.c.user_id.in_(absorbed_into(tx, STANDING, absorbed))
    back = sa.update(people).where(rows_of([kept]), theirs).values(holder_id=absorbed)
    return int(tx.execute(back).rowcount)


@hookimpl
def erase(tx: HandlerTx, user: uuid.UUID) -> None:
    """Forget the person's scores; what runs have counted stays, and says nobody's name."""
    forget_person(tx, absorbed_into(tx, STANDING, user))
