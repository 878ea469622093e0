"""When a person was first and last seen: set by what they do, not by what is done to them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import sqlalchemy as sa

from scrm.db import Id, Instant, Tx
from scrm.events.models import events
from scrm.events.records import Event
from scrm.rowset import row_set
from scrm.users.models import users

PASSIVE_TYPES = ("message.sent", "user.unfollowed", "group.left", "order.refunded")
"""What does not show that a person is there: done to them, or a farewell."""

_OWN_SOURCES = ("plugin:", "job:", "config:", "mutation:")


def shows_person(source: str, type: str) -> bool:
    """Whether an event shows its user doing something: reported from outside, and not passive."""
    return type not in PASSIVE_TYPES and source != "core" and not source.startswith(_OWN_SOURCES)


def shows_person_where(table: sa.FromClause = events) -> sa.ColumnElement[bool]:
    """`shows_person` as a condition on rows of the log."""
    source = table.c.source
    ours = [sa.func.substr(source, 1, len(prefix)) != prefix for prefix in _OWN_SOURCES]
    return sa.and_(table.c.type.not_in(PASSIVE_TYPES), source != "core", *ours)


def follow_seen(tx: Tx, batch: Sequence[Event], present: dict[uuid.UUID, uuid.UUID]) -> None:
    """Widen `first_seen_at` and `last_seen_at` by a batch of events, and set the acquisition channel where it is still open.

    Doing it again changes nothing. `present` maps an event's user to who it is now.
    """
    rows: dict[uuid.UUID, dict[str, object]] = {}
    for event in sorted(batch, key=lambda event: (event.occurred_at, event.id)):
        owner = present.get(event.user_id) if event.user_id is not None else None
        if owner is None or not shows_person(event.source, event.type):
            continue
        row = rows.setdefault(owner, {"id": owner, "first": event.occurred_at, "channel": None})
        row |= {"last": event.occurred_at, "channel": row["channel"] or event.channel_id}
    if rows:
        _widen(tx, [rows[user_id] for user_id in sorted(rows)])


def _widen(tx: Tx, rows: list[dict[str, object]]) -> None:
    said = row_set(tx, "said", {"id": Id, "first": Instant(), "last": Instant(), "channel": Id}, rows)
    own = users.c
    earlier = sa.or_(own.first_seen_at.is_(None), own.first_seen_at > said.c.first)
    later = sa.or_(own.last_seen_at.is_(None), own.last_seen_at < said.c.last)
    won = sa.and_(own.acquisition_channel_id.is_(None), said.c.channel.is_not(None))
    if tx.dialect != "sqlite":
        wanted = row_set(tx, "wanted", {"id": Id}, [{"id": row["id"]} for row in rows])
        tx.execute(sa.select(own.id).where(own.id == wanted.c.id).order_by(own.id).with_for_update(of=users, key_share=True))
    tx.execute(
        users.update()
        .where(own.id == said.c.id, own.erased_at.is_(None), sa.or_(earlier, later, won))
        .values(
            first_seen_at=sa.case((earlier, said.c.first), else_=own.first_seen_at),
            last_seen_at=sa.case((later, said.c.last), else_=own.last_seen_at),
            acquisition_channel_id=sa.func.coalesce(own.acquisition_channel_id, said.c.channel),
        )
    )


def recompute_seen(tx: Tx, user_ids: Sequence[uuid.UUID]) -> None:
    """Set both instants from the whole log, for users whose events have moved."""
    first, last = sa.func.min(events.c.occurred_at).label("first"), sa.func.max(events.c.occurred_at).label("last")
    mine = sa.select(first, last).where(shows_person_where())
    for user_id in user_ids:
        seen = tx.rows(mine.where(events.c.user_id == user_id))[0]
        tx.execute(users.update().where(users.c.id == user_id).values(first_seen_at=seen.first, last_seen_at=seen.last))
