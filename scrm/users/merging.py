"""Making one person of two, and two of one again.

What moves is written down in the merge's row: ids of identities, rows of tags, names of filled fields, never personal values.
Events are not listed: each keeps the user it was recorded for, and that says whose it is again after `unmerge`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import Row

from scrm.changes import global_id, record_change
from scrm.db import Tx
from scrm.errors import ScrmError
from scrm.events.log import lock_owners, owners
from scrm.events.models import events
from scrm.rowset import upsert
from scrm.tags.models import user_tags
from scrm.tags.moving import give_back_tags, move_tags, without_tags
from scrm.text import check_text
from scrm.users.fields import FIELDS
from scrm.users.models import identities, merge_suggestions, merges, users
from scrm.users.seen import recompute_seen
from scrm.users.service import find_user, user_erased, user_not_found

Counters = Mapping[str, Callable[[Tx, uuid.UUID], int | None]]
"""By plugin: how many of its rows hang on a user."""

_FILLED = (*(name for name in FIELDS if name != "attributes"), "acquisition_channel_id")


@dataclass(frozen=True, slots=True)
class MergeOutcome:
    """What a merge did or would do. `moved` counts rows by owner; `merge_id` is None for a dry run."""

    merge_id: uuid.UUID | None
    kept: uuid.UUID
    absorbed: uuid.UUID
    moved: Mapping[str, int] = field(default_factory=dict)


def older_first(tx: Tx, one: uuid.UUID, other: uuid.UUID) -> tuple[uuid.UUID, uuid.UUID]:
    """The two users (merged ids resolved), the older one first: whom an automatic merge keeps.

    Raises:
        ScrmError: `USER_NOT_FOUND`.
    """
    one, other = find_user(tx, one), find_user(tx, other)
    rows = tx.rows(sa.select(users.c.id).where(users.c.id.in_([one, other])).order_by(users.c.created_at, users.c.id))
    return rows[0].id, rows[-1].id


def plan_merge(tx: Tx, kept: uuid.UUID, absorbed: uuid.UUID, counters: Counters | None = None) -> MergeOutcome:
    """What `merge` would move, by owner, without moving it. Raises as `merge` does."""
    _two_users(tx, kept, absorbed, lock=False)
    return MergeOutcome(None, kept, absorbed, _count(tx, absorbed, counters))


def merge(
    tx: Tx,
    kept: uuid.UUID,
    absorbed: uuid.UUID,
    *,
    reason: str,
    at: datetime,
    actor: str,
    zone: ZoneInfo,
    counters: Counters | None = None,
) -> MergeOutcome:
    """Make one person of two. Takes `lock_owners` itself; a transaction that already holds `share_owners` must not call it.

    Raises:
        ScrmError: `USER_NOT_FOUND`, `MERGE_WITH_ITSELF`, `USER_ALREADY_MERGED`, `USER_ERASED`.
    """
    reason = check_text(reason, ("reason",))
    lock_owners(tx)
    keeper, other = _two_users(tx, kept, absorbed, lock=True)
    counts = _count(tx, absorbed, counters)
    moved = {
        "identities": _move_identities(tx, absorbed, kept),
        "tags": move_tags(tx, absorbed, kept, at),
        "events": tx.execute(events.update().where(events.c.user_id == absorbed).values(user_id=kept)).rowcount,
        **_fill(tx, keeper, other, at),
    }
    tx.execute(users.update().where(sa.or_(users.c.id == absorbed, users.c.merged_into == absorbed)).values(merged_into=kept))
    pair = [kept, absorbed]
    tx.execute(merge_suggestions.delete().where(merge_suggestions.c.user_id.in_(pair), merge_suggestions.c.other_id.in_(pair)))
    merge_id = _record(tx, "user.merged", kept, absorbed, None, at=at, actor=actor, zone=zone)
    row = {"id": merge_id, "kept_id": kept, "absorbed_id": absorbed, "event_id": merge_id}
    tx.execute(merges.insert().values(**row, reason=reason, moved=moved, merged_at=at))
    return MergeOutcome(merge_id, kept, absorbed, counts)


def last_merge(tx: Tx, absorbed: uuid.UUID) -> uuid.UUID:
    """The merge by which this user was absorbed and still is.

    Raises:
        ScrmError: `MERGE_NOT_FOUND`.
    """
    statement = sa.select(merges.c.id).where(merges.c.absorbed_id == absorbed, merges.c.undone_at.is_(None))
    found: uuid.UUID | None = tx.scalar(statement.order_by(merges.c.id.desc()))
    if found is None:
        said = global_id("User", absorbed)
        raise ScrmError(
            "MERGE_NOT_FOUND", f"the user {said} is not merged into another", path=("absorbedId",), params={"id": said}
        )
    return found


def unmerge(tx: Tx, merge_id: uuid.UUID, *, reason: str | None = None, at: datetime, actor: str, zone: ZoneInfo) -> MergeOutcome:
    """Take a merge back: what came before it goes back, what came after stays with the survivor.

    The reason is kept with the merge.

    If the survivor has since been absorbed itself, its own survivor gives back; `kept` says who that is.

    Raises:
        ScrmError: `MERGE_NOT_FOUND`, `MERGE_ALREADY_UNDONE`, `USER_ERASED`.
    """
    lock_owners(tx)
    row = tx.row(sa.select(merges).where(merges.c.id == merge_id))
    if row is None:
        raise ScrmError("MERGE_NOT_FOUND", f"no merge has the id {merge_id.hex}", path=("mergeId",), params={"id": merge_id.hex})
    if row.undone_at is not None:
        raise ScrmError("MERGE_ALREADY_UNDONE", f"the merge {merge_id.hex} was undone at {row.undone_at}", path=("mergeId",))
    absorbed = row.absorbed_id
    holders = _holders(tx, row.kept_id)
    holder = holders[-1][0]
    erased = tx.scalar(sa.select(users.c.id).where(users.c.id.in_([holder, absorbed]), users.c.erased_at.is_not(None)))
    if erased is not None:
        raise user_erased(erased, ("mergeId",))
    own = _absorbed_into(tx, absorbed)
    counts = {"core": _give_back(tx, row, holders, own)}
    _unfill(tx, row, holders, at)
    tx.execute(users.update().where(users.c.id == absorbed).values(merged_into=None, updated_at=at))
    if len(own) > 1:
        tx.execute(users.update().where(users.c.id.in_(own[1:])).values(merged_into=absorbed))
    recompute_seen(tx, [holder, absorbed])
    said = {**row.moved, "undoneReason": check_text(reason or "", ("reason",))}
    undone_by = _record(tx, "user.unmerged", holder, absorbed, merge_id, at=at, actor=actor, zone=zone)
    tx.execute(merges.update().where(merges.c.id == merge_id).values(undone_at=at, undone_by=undone_by, moved=said))
    return MergeOutcome(merge_id, holder, absorbed, counts)


def suggest_merge(tx: Tx, one: uuid.UUID, other: uuid.UUID, *, reason: str, at: datetime) -> None:
    """Remember that two users look like one person; once per pair."""
    if one == other:
        return
    first, second = sorted((one, other))
    statement = upsert(tx, merge_suggestions).values(user_id=first, other_id=second, reason=reason, suggested_at=at)
    tx.execute(statement.on_conflict_do_nothing())


def _two_users(tx: Tx, kept: uuid.UUID, absorbed: uuid.UUID, *, lock: bool) -> tuple[Row[Any], Row[Any]]:
    if kept == absorbed:
        said = global_id("User", kept)
        raise ScrmError(
            "MERGE_WITH_ITSELF", f"{said} is both kept and absorbed; name two users", path=("absorbedId",), params={"id": said}
        )
    statement = sa.select(users).where(users.c.id.in_([kept, absorbed])).order_by(users.c.id)
    rows = {row.id: row for row in tx.rows(statement.with_for_update(key_share=True) if lock else statement)}
    for user_id, path in ((kept, ("keptId",)), (absorbed, ("absorbedId",))):
        row = rows.get(user_id)
        if row is None:
            raise user_not_found(user_id, path)
        if row.erased_at is not None:
            raise user_erased(user_id, path)
        if row.merged_into is not None:
            said, into = global_id("User", user_id), global_id("User", owners(tx, [user_id])[user_id])
            message = f"the user {said} was merged into {into}; name that one"
            raise ScrmError("USER_ALREADY_MERGED", message, path=path, params={"id": said, "mergedInto": into})
    return rows[kept], rows[absorbed]


def _count(tx: Tx, user_id: uuid.UUID, counters: Counters | None) -> dict[str, int]:
    parts = [
        sa.select(sa.func.count()).where(table.c.user_id == user_id).scalar_subquery()
        for table in (identities, user_tags, events)
    ]
    core = sum(tx.rows(sa.select(*parts))[0])
    of_plugins = {name: count(tx, user_id) for name, count in (counters or {}).items()}
    return {"core": core, **{name: count for name, count in of_plugins.items() if count is not None}}


def _record(
    tx: Tx, type: str, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID | None, *, at: datetime, actor: str, zone: ZoneInfo
) -> uuid.UUID:
    said = {"kept": kept.hex, "absorbed": absorbed.hex}
    if merge is not None:
        said["merge"] = merge.hex
    return record_change(tx, type, kept, said, at=at, actor=actor, zone=zone)


def _move_identities(tx: Tx, absorbed: uuid.UUID, kept: uuid.UUID) -> list[str]:
    own = identities.c
    statement = identities.update().where(own.user_id == absorbed).values(user_id=kept).returning(own.id)
    return sorted(row.id.hex for row in tx.execute(statement))


def _fill(tx: Tx, keeper: Row[Any], other: Row[Any], at: datetime) -> dict[str, list[str]]:
    """Fill what is empty on the keeper; returns the names of what was filled."""
    mine, theirs = keeper._mapping, other._mapping
    filled = {name: theirs[name] for name in _FILLED if mine[name] is None and theirs[name] is not None}
    keys = [key for key in theirs["attributes"] if key not in mine["attributes"]]
    values = dict(filled)
    if keys:
        values["attributes"] = {**mine["attributes"], **{key: theirs["attributes"][key] for key in keys}}
    for name, pick in (("first_seen_at", min), ("last_seen_at", max)):
        seen = [moment for moment in (mine[name], theirs[name]) if moment is not None]
        if seen:
            values[name] = pick(seen)
    tx.execute(users.update().where(users.c.id == keeper.id).values(**values, updated_at=at))
    return {"fields": sorted(filled), "attributes": sorted(keys)}


def _holders(tx: Tx, kept: uuid.UUID) -> list[tuple[uuid.UUID, Row[Any] | None]]:
    """Who has held what the merge moved, from its keeper to today's survivor, each with the merge that brought it."""
    chain: list[tuple[uuid.UUID, Row[Any] | None]] = [(kept, None)]
    while True:
        here = chain[-1][0]
        statement = (
            sa.select(merges).where(merges.c.absorbed_id == here, merges.c.undone_at.is_(None)).order_by(merges.c.id.desc())
        )
        onward = tx.row(statement)
        if onward is None:
            return chain
        chain.append((onward.kept_id, onward))


def _absorbed_into(tx: Tx, user_id: uuid.UUID) -> list[uuid.UUID]:
    """The user and everybody who is absorbed into it, at whatever remove."""
    found = [user_id]
    edge = [user_id]
    while edge:
        statement = sa.select(merges.c.absorbed_id).where(merges.c.kept_id.in_(edge), merges.c.undone_at.is_(None))
        edge = [row.absorbed_id for row in tx.rows(statement) if row.absorbed_id not in found]
        found += edge
    return found


def _give_back(tx: Tx, merge_row: Row[Any], holders: list[tuple[uuid.UUID, Row[Any] | None]], own: list[uuid.UUID]) -> int:
    """Identities, tags and events that came with the absorbed user and are still here go back; returns how many."""
    absorbed, holder, moved = merge_row.absorbed_id, holders[-1][0], merge_row.moved
    ids = [uuid.UUID(hex) for hex in moved["identities"]]
    back = identities.update().where(identities.c.id.in_(ids), identities.c.user_id == holder).values(user_id=absorbed)
    theirs = events.update().where(events.c.user_id == holder, events.c.recorded_user_id.in_(own)).values(user_id=absorbed)
    restored = give_back_tags(tx, moved["tags"], holder, absorbed)
    for _, later in holders[1:]:
        if later is not None:
            left = {**later.moved, "tags": without_tags(later.moved["tags"], moved["tags"]["taken"], restored)}
            tx.execute(merges.update().where(merges.c.id == later.id).values(moved=left))
    return tx.execute(back).rowcount + tx.execute(theirs).rowcount + len(moved["tags"]["absorbed"])


def _unfill(tx: Tx, merge_row: Row[Any], holders: list[tuple[uuid.UUID, Row[Any] | None]], at: datetime) -> None:
    """Empty again what was filled from the absorbed user and nobody has changed since, on everybody it was handed on to."""
    absorbed = tx.rows(sa.select(users).where(users.c.id == merge_row.absorbed_id))[0]._mapping
    names, keys = list(merge_row.moved["fields"]), list(merge_row.moved["attributes"])
    for holder, by in holders:
        if by is not None:
            names = [name for name in names if name in by.moved["fields"]]
            keys = [key for key in keys if key in by.moved["attributes"]]
        row = tx.rows(sa.select(users).where(users.c.id == holder))[0]._mapping
        values: dict[str, Any] = {name: None for name in names if row[name] == absorbed[name]}
        gone = {key for key in keys if key in row["attributes"] and row["attributes"][key] == absorbed["attributes"].get(key)}
        if gone:
            values["attributes"] = {key: value for key, value in row["attributes"].items() if key not in gone}
        if values:
            tx.execute(users.update().where(users.c.id == holder).values(**values, updated_at=at))
