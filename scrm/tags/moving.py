"""Tags of two users who become one, and of one who becomes two again."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from scrm.db import Tx, instant_text
from scrm.rowset import upsert
from scrm.tags.models import tag_groups, tags, user_tags

_SAID = ("tag_id", "source", "actor", "reason", "tagged_at", "expires_at")


Said = dict[str, Any]
"""A row of `user_tags` as a merge keeps it, in JSON."""


def move_tags(tx: Tx, absorbed: uuid.UUID, kept: uuid.UUID, at: datetime) -> dict[str, list[Said]]:
    """Give the survivor the other's tags and say what was whose: `absorbed`, all rows of that user, and `taken`, those that the
    survivor took, each with its own rows that gave way (`replaced`).

    A tag that both have stays as the survivor has it, unless the other's is manual and the survivor's is not, or the survivor's
    has expired. In an exclusive group the survivor's tag stays in the same way.
    """
    theirs = tx.rows(_with_group().where(user_tags.c.user_id == absorbed).order_by(user_tags.c.tag_id))
    mine = tx.rows(_with_group().where(user_tags.c.user_id == kept))
    taken: list[tuple[Row[Any], list[Row[Any]]]] = []
    for row in theirs:
        rivals = [own for own in mine if own.tag_id == row.tag_id or (row.exclusive and own.group_id == row.group_id)]
        if not _expired(row, at) and all(_gives_way(own, row, at) for own in rivals):
            taken.append((row, rivals))
            mine = [own for own in mine if own not in rivals]
    _delete(tx, absorbed, [row.tag_id for row in theirs])
    _delete(tx, kept, [row.tag_id for _, rivals in taken for row in rivals])
    _insert(tx, kept, [_said(row) for row, _ in taken])
    return {
        "absorbed": [_said(row) for row in theirs],
        "taken": [{**_said(row), "replaced": [_said(own) for own in rivals]} for row, rivals in taken],
    }


def give_back_tags(tx: Tx, moved: Mapping[str, Sequence[Said]], holder: uuid.UUID, absorbed: uuid.UUID) -> list[Said]:
    """Undo `move_tags`: the absorbed user has its tags again; the holder loses those it took, if nobody has set them anew since,
    and gets its own back that gave way. Returns these last ones."""
    now = {
        row.tag_id.hex: instant_text(row.tagged_at) for row in tx.rows(sa.select(user_tags).where(user_tags.c.user_id == holder))
    }
    undone = [row for row in moved["taken"] if now.get(row["tag_id"]) == row["tagged_at"]]
    _delete(tx, holder, [uuid.UUID(row["tag_id"]) for row in undone])
    restored = [own for row in undone for own in row["replaced"]]
    groups = {row.group_id for row in tx.rows(_with_group().where(user_tags.c.user_id == holder)) if row.exclusive}
    places = {row.id.hex: row.group_id for row in tx.rows(sa.select(tags.c.id, tags.c.group_id))}
    _insert(tx, absorbed, [row for row in moved["absorbed"] if row["tag_id"] in places])
    _insert(tx, holder, [row for row in restored if row["tag_id"] in places and places[row["tag_id"]] not in groups])
    return restored


def without_tags(moved: Mapping[str, Sequence[Said]], gone: Sequence[Said], restored: Sequence[Said]) -> dict[str, list[Said]]:
    """What a later merge has written down, after an older one was undone: not what that one brought, but what gave way to it."""
    brought = {(row["tag_id"], row["tagged_at"]) for row in gone}
    left = {name: [row for row in rows if (row["tag_id"], row["tagged_at"]) not in brought] for name, rows in moved.items()}
    left["absorbed"] += restored
    left["taken"] += [{**row, "replaced": []} for row in restored]
    return left


def _with_group() -> sa.Select[Any]:
    return (
        sa.select(user_tags, tags.c.group_id, sa.func.coalesce(tag_groups.c.exclusive, sa.false()).label("exclusive"))
        .join(tags, tags.c.id == user_tags.c.tag_id)
        .outerjoin(tag_groups, tag_groups.c.id == tags.c.group_id)
    )


def _expired(row: Row[Any], at: datetime) -> bool:
    return row.expires_at is not None and row.expires_at <= at


def _gives_way(own: Row[Any], other: Row[Any], at: datetime) -> bool:
    return _expired(own, at) or (other.source == "MANUAL" and own.source != "MANUAL")


def _delete(tx: Tx, user_id: uuid.UUID, tag_ids: Sequence[uuid.UUID]) -> None:
    if tag_ids:
        tx.execute(user_tags.delete().where(user_tags.c.user_id == user_id, user_tags.c.tag_id.in_(tag_ids)))


def _insert(tx: Tx, user_id: uuid.UUID, rows: Sequence[Said]) -> None:
    if rows:
        said = [{"user_id": user_id, **_read(row)} for row in rows]
        tx.execute(upsert(tx, user_tags).on_conflict_do_nothing(), said)


def _said(row: Row[Any]) -> Said:
    return {name: _plain(row._mapping[name]) for name in _SAID}


def _plain(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return value.hex
    return instant_text(value) if isinstance(value, datetime) else value


def _read(row: Said) -> dict[str, Any]:
    said = {name: row[name] for name in _SAID}
    expires = row["expires_at"]
    said |= {"tag_id": uuid.UUID(row["tag_id"]), "tagged_at": datetime.fromisoformat(row["tagged_at"])}
    return {**said, "expires_at": datetime.fromisoformat(expires) if expires is not None else None}
