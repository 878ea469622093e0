"""Marks: what people did, weighed; a plugin that uses every contribution and every hook."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from scrm.api import Contribution, Handler, Health, LogEvent, PluginContext, Scope, Tx, hookimpl, insert_rows

from . import events, graphql, handlers, outside
from .models import marks, metadata, moves
from .settings import EverythingRules, EverythingWiring


@hookimpl
def contribute() -> Contribution:
    return Contribution(
        name="everything",
        version="1.0",
        description="Marks: what people did, weighed.",
        scrm=">=0.1,<1",
        requires=(),
        after=["loyalty"],
        rules=EverythingRules,
        wiring=EverythingWiring,
        tables=metadata,
        migrations=Path(__file__).parent / "migrations",
        types=[graphql.Mark, graphql.Review],
        extends=[graphql.EverythingUser],
        query=[graphql.EverythingQuery],
        mutation=[graphql.EverythingMutation],
        subscription=[graphql.EverythingSubscription],
        filters=[graphql.EverythingUserFilter],
        orderings=[graphql.EverythingUserOrder],
        event_types=events.TYPES,
        handlers=[
            Handler((events.PAID, events.MARKED, events.SPENT), handlers.mark),
            Handler((events.REVIEWED,), handlers.review),
        ],
        decisions=[handlers.SPEND],
        jobs=[handlers.NIGHTLY],
        scopes=[Scope("marks:read", "See marks."), Scope("marks:write", "Spend marks.")],
        indicators=[handlers.WEIGHT],
        commands=[outside.TELL, outside.ADD],
        routes=[outside.HOOK, outside.COUNT, outside.HELLO, outside.TILL],
        deliverers=[outside.GREETING],
    )


@hookimpl
def merge(tx: Tx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID) -> int:
    """The absorbed person's marks go to the survivor, and it is written down which."""
    found = tx.rows(sa.select(marks.c.id).where(marks.c.owner_id == absorbed))
    insert_rows(tx, moves, [{"merge_id": event.id, "mark_id": row.id} for row in found])
    tx.execute(sa.update(marks).where(marks.c.owner_id == absorbed).values(owner_id=kept))
    return len(found)


@hookimpl
def unmerge(tx: Tx, absorbed: uuid.UUID, merge: uuid.UUID) -> int:
    """What went over with the merge comes back; what came after stays with the survivor."""
    moved = sa.select(moves.c.mark_id).where(moves.c.merge_id == merge)
    return int(tx.execute(sa.update(marks).where(marks.c.id.in_(moved)).values(owner_id=absorbed)).rowcount)


@hookimpl
def count(tx: Tx, user: uuid.UUID) -> int:
    """How many marks a person has."""
    return int(tx.scalar(sa.select(sa.func.count()).where(marks.c.owner_id == user)))


@hookimpl
def erase(tx: Tx, user: uuid.UUID, pseudonym: uuid.UUID) -> None:
    """Notes go; the marks stay under the pseudonym."""
    tx.execute(sa.update(marks).where(marks.c.owner_id == user).values(owner_id=pseudonym, note=None))


@hookimpl
def export(tx: Tx, user: uuid.UUID) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """A person's marks."""
    found = tx.rows(sa.select(marks).where(marks.c.owner_id == user).order_by(marks.c.id))
    return {"marks": [{"day": row.day.isoformat(), "weight": row.weight, "note": row.note} for row in found]}


@hookimpl
@asynccontextmanager
async def lifespan(context: PluginContext) -> AsyncIterator[None]:
    """Says in the book when the server opens and closes."""
    outside.write(context.wiring, "open")
    yield
    outside.write(context.wiring, "closed")


@hookimpl
async def health(context: PluginContext) -> Health:
    """Well as long as there is a book to write greetings into."""
    known = await context.read(lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(marks)))
    return Health(context.wiring.book.is_file(), f"{known} marks")
