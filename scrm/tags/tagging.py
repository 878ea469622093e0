"""Giving tags to users and taking them away, whole sets at a time."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import Row

from scrm.audit import audit
from scrm.changes import record_changes
from scrm.db import Id, Tx
from scrm.errors import ScrmError
from scrm.events.log import share_owners
from scrm.rowset import id_set, row_set, upsert
from scrm.tags.models import tag_groups, tags, user_tags
from scrm.text import check_text
from scrm.users.models import users
from scrm.users.service import find_users, user_not_found

T = TypeVar("T")

CHUNK = 5_000
"""Users per statement."""


class TagSource(StrEnum):
    """Who gave a user a tag."""

    MANUAL = "MANUAL"
    RULE = "RULE"
    IMPORT = "IMPORT"
    PLUGIN = "PLUGIN"


@dataclass(frozen=True, slots=True)
class Tagged:
    """What came of it: users looked at, users of whom a tag changed, and given ids that nobody has."""

    matched: int
    changed: int
    unknown: tuple[uuid.UUID, ...] = ()

    def errors(self) -> list[ScrmError]:
        """One `USER_NOT_FOUND` for each unknown id."""
        return [user_not_found(user_id, ("userIds",)) for user_id in self.unknown]


Users = Sequence[uuid.UUID] | sa.Select[Any]
"""Ids, or a query whose first column is the ids."""


def find_tags(tx: Tx, keys: Sequence[str], path: Sequence[str] = ("tags",)) -> list[Row[Any]]:
    """The tags with these keys, each with its group's `exclusive`, in the order given.

    Raises:
        ScrmError: `TAG_NOT_FOUND`.
    """
    exclusive = sa.func.coalesce(tag_groups.c.exclusive, sa.false()).label("exclusive")
    statement = sa.select(tags, exclusive).outerjoin(tag_groups, tag_groups.c.id == tags.c.group_id)
    found = {row.key: row for row in tx.rows(statement.where(tags.c.key.in_(keys)))}
    for key in keys:
        if key not in found:
            raise ScrmError("TAG_NOT_FOUND", f'no tag has the key "{key}"', path=path, params={"key": key})
    return [found[key] for key in dict.fromkeys(keys)]


def _named_tags(tx: Tx, keys: Sequence[str]) -> list[Row[Any]]:
    if not keys:
        raise ScrmError("INVALID_INPUT", "tags is empty; name one at least", path=("tags",))
    return find_tags(tx, keys)


def tag_users(
    tx: Tx,
    keys: Sequence[str],
    users: Users,
    *,
    source: str = TagSource.MANUAL,
    reason: str | None = None,
    expires_at: datetime | None = None,
    strict: bool = False,
    at: datetime,
    actor: str,
    zone: ZoneInfo,
) -> Tagged:
    """Give each user each tag. What a user has already, until the same time and from the same source, is left as it is; a tag of
    an exclusive group replaces its siblings; a manual tag stays manual.

    With `strict`, an unknown user id refuses everything.

    Raises:
        ScrmError: `TAG_NOT_FOUND`, `TAG_ARCHIVED`, `TAGS_EXCLUDE_EACH_OTHER`, `INVALID_EXPIRY`, `INVALID_TEXT`; with `strict`
            `USER_NOT_FOUND`. `INVALID_INPUT` where no tag is named.
    """
    wanted = _named_tags(tx, keys)
    _check_together(wanted)
    if expires_at is not None and expires_at <= at:
        said = f"expiresAt is {expires_at.isoformat()}, which has passed; name a later time"
        raise ScrmError("INVALID_EXPIRY", said, path=("expiresAt",))
    reason = check_text(reason, ("reason",)) or None if reason is not None else None
    share_owners(tx)
    ids, unknown = targets(tx, users, strict)
    given = {"source": str(source), "actor": actor, "reason": reason, "tagged_at": at, "expires_at": expires_at}
    changed: set[uuid.UUID] = set()
    for chunk in _chunks(ids):
        lost = _drop_siblings(tx, chunk, wanted, at)
        got = _give(tx, chunk, wanted, given)
        record_tags(tx, "user.untagged", lost, source, at=at, zone=zone)
        record_tags(tx, "user.tagged", got, source, at=at, zone=zone)
        changed |= lost.keys() | got.keys()
    detail = {"tags": [tag.key for tag in wanted], "matched": len(ids), "changed": len(changed)}
    audit(tx, actor, "users.tagged", None, detail, at=at)
    return Tagged(len(ids), len(changed), unknown)


def untag_users(
    tx: Tx,
    keys: Sequence[str],
    users: Users,
    *,
    source: str = TagSource.MANUAL,
    reason: str | None = None,
    strict: bool = False,
    at: datetime,
    actor: str,
    zone: ZoneInfo,
) -> Tagged:
    """Take each tag from each user, whoever gave it. (A rule gives its tag again at the user's next matching event.)

    The reason is kept in the users' events, from where erasing takes it.

    Raises:
        ScrmError: `TAG_NOT_FOUND`, `INVALID_TEXT`; with `strict` `USER_NOT_FOUND`; `INVALID_INPUT` where no tag is named.
    """
    wanted = _named_tags(tx, keys)
    reason = check_text(reason, ("reason",)) or None if reason is not None else None
    share_owners(tx)
    ids, unknown = targets(tx, users, strict)
    names = {tag.id: tag.key for tag in wanted}
    changed = 0
    for chunk in _chunks(ids):
        mine = user_tags.c.user_id.in_(sa.select(id_set(tx, "chunk", chunk).c.id))
        lost = _by_user(_delete(tx, sa.and_(mine, user_tags.c.tag_id.in_(names)), at), names)
        record_tags(tx, "user.untagged", lost, source, reason, at=at, zone=zone)
        changed += len(lost)
    detail = {"tags": list(names.values()), "matched": len(ids), "changed": changed}
    audit(tx, actor, "users.untagged", None, detail, at=at)
    return Tagged(len(ids), changed, unknown)


def sweep_expired(tx: Tx, *, at: datetime, zone: ZoneInfo, limit: int) -> int:
    """Take away what has expired and record it, at most `limit` rows; returns how many. Until then it is only not shown."""
    keys = [user_tags.c.user_id, user_tags.c.tag_id]
    old = sa.select(*keys).where(user_tags.c.expires_at <= at).limit(limit)
    gone = tx.rows(user_tags.delete().where(sa.tuple_(*keys).in_(old)).returning(*keys))
    if gone:
        names = {row.id: row.key for row in tx.rows(sa.select(tags.c.id, tags.c.key))}
        record_tags(tx, "user.untagged", _by_user(gone, names), "EXPIRY", at=at, zone=zone)
    return len(gone)


def enforce_exclusive(tx: Tx, group_id: uuid.UUID, *, at: datetime, zone: ZoneInfo) -> int:
    """Leave each user one tag of the group: a manual one before others, then the newest. Returns how many users lost one."""
    manual = sa.case((user_tags.c.source == TagSource.MANUAL.value, 0), else_=1)
    order = (manual, user_tags.c.tagged_at.desc(), user_tags.c.tag_id)
    place = sa.func.row_number().over(partition_by=user_tags.c.user_id, order_by=order).label("place")
    ranked = (
        sa.select(user_tags.c.user_id, user_tags.c.tag_id, place)
        .join(tags, tags.c.id == user_tags.c.tag_id)
        .where(tags.c.group_id == group_id, unexpired(user_tags, at))
        .subquery()
    )
    losers = sa.select(ranked.c.user_id, ranked.c.tag_id).where(ranked.c.place > 1)
    gone = _delete(tx, sa.tuple_(user_tags.c.user_id, user_tags.c.tag_id).in_(losers), at)
    names = {row.id: row.key for row in tx.rows(sa.select(tags.c.id, tags.c.key).where(tags.c.group_id == group_id))}
    lost = _by_user(gone, names)
    record_tags(tx, "user.untagged", lost, TagSource.MANUAL, at=at, zone=zone)
    return len(lost)


def unexpired(row: Any, at: Any) -> sa.ColumnElement[bool]:
    """The condition that a row of `user_tags` still holds at an instant."""
    return sa.or_(row.c.expires_at.is_(None), row.c.expires_at > at)


def record_tags(
    tx: Tx,
    type: str,
    changed: Mapping[uuid.UUID, Sequence[str]],
    source: str,
    reason: str | None = None,
    *,
    at: datetime,
    zone: ZoneInfo,
) -> None:
    """One event per user, with the keys of the tags and, where there is one, the reason for taking them."""
    more = {"untagReason": reason} if reason is not None else {}
    said = ((user_id, {"tags": sorted(keys), "source": str(source), **more}) for user_id, keys in changed.items())
    record_changes(tx, type, said, at=at, zone=zone)


@dataclass(frozen=True, slots=True)
class UserTag:
    """A tag of a user as a rule gives it."""

    user_id: uuid.UUID
    tag_id: uuid.UUID
    expires_at: datetime


def store_rule_tags(tx: Tx, given: Sequence[UserTag], taken: Sequence[tuple[uuid.UUID, uuid.UUID]], *, at: datetime) -> None:
    """Write what a rule gives and takes, whatever stood there before: the caller has looked."""
    pair = sa.tuple_(user_tags.c.user_id, user_tags.c.tag_id)
    for chunk in _chunks(taken):
        pairs = [{"user_id": user_id, "tag_id": tag_id} for user_id, tag_id in chunk]
        said = row_set(tx, "said", {"user_id": Id, "tag_id": Id}, pairs)
        tx.execute(user_tags.delete().where(pair.in_(sa.select(said.c.user_id, said.c.tag_id))))
    kinds = {name: column.type for name, column in user_tags.c.items()}
    for tagged in _chunks(given):
        rows = [
            {"user_id": tag.user_id, "tag_id": tag.tag_id, "source": "RULE", "tagged_at": at, "expires_at": tag.expires_at}
            | {"actor": None, "reason": None}
            for tag in tagged
        ]
        said = row_set(tx, "said", kinds, rows)
        insert = upsert(tx, user_tags).from_select(list(kinds), sa.select(*said.c).where(sa.true()))
        now = {name: insert.excluded[name] for name in ("source", "actor", "reason", "expires_at")}
        kept = sa.case((unexpired(user_tags, at), user_tags.c.tagged_at), else_=insert.excluded.tagged_at)
        tx.execute(insert.on_conflict_do_update(index_elements=["user_id", "tag_id"], set_={**now, "tagged_at": kept}))


def _check_together(wanted: Sequence[Row[Any]]) -> None:
    seen: dict[uuid.UUID, str] = {}
    for tag in wanted:
        if tag.archived:
            raise ScrmError(
                "TAG_ARCHIVED", f'the tag "{tag.key}" is archived; restore it first', path=("tags",), params={"key": tag.key}
            )
        if not tag.exclusive:
            continue
        if tag.group_id in seen:
            said = f'"{seen[tag.group_id]}" and "{tag.key}" exclude each other; a user has one of their group'
            raise ScrmError("TAGS_EXCLUDE_EACH_OTHER", said, path=("tags",))
        seen[tag.group_id] = tag.key


def targets(tx: Tx, said: Users, strict: bool) -> tuple[list[uuid.UUID], tuple[uuid.UUID, ...]]:
    """The users that are meant, merged ones as their survivors, and the ids that nobody has.

    Raises:
        ScrmError: with `strict`, USER_NOT_FOUND for the first of these.
    """
    if isinstance(said, sa.Select):
        inner = said.subquery()
        live = sa.select(users.c.id).where(users.c.merged_into.is_(None), users.c.erased_at.is_(None))
        return [row.id for row in tx.rows(live.where(users.c.id.in_(sa.select(inner.c[0]))).order_by(users.c.id))], ()
    present = find_users(tx, said)
    unknown = tuple(user_id for user_id in dict.fromkeys(said) if user_id not in present)
    if unknown and strict:
        raise user_not_found(unknown[0], ("userIds",))
    return sorted(set(present.values())), unknown


def _drop_siblings(tx: Tx, ids: Sequence[uuid.UUID], wanted: Sequence[Row[Any]], at: datetime) -> dict[uuid.UUID, list[str]]:
    groups = [tag.group_id for tag in wanted if tag.exclusive]
    if not groups:
        return {}
    others = sa.select(tags.c.id, tags.c.key).where(tags.c.group_id.in_(groups), tags.c.id.not_in([tag.id for tag in wanted]))
    siblings = {row.id: row.key for row in tx.rows(others)}
    mine = user_tags.c.user_id.in_(sa.select(id_set(tx, "chunk", ids).c.id))
    return _by_user(_delete(tx, sa.and_(mine, user_tags.c.tag_id.in_(siblings)), at), siblings)


def _give(tx: Tx, ids: Sequence[uuid.UUID], wanted: Sequence[Row[Any]], given: Mapping[str, Any]) -> dict[uuid.UUID, list[str]]:
    chunk = id_set(tx, "chunk", ids)
    said = [sa.literal(value, user_tags.c[name].type).label(name) for name, value in given.items()]
    chosen = sa.select(chunk.c.id, tags.c.id, *said).select_from(chunk.join(tags, sa.true()))
    insert = upsert(tx, user_tags).from_select(
        ["user_id", "tag_id", *given], chosen.where(tags.c.id.in_([tag.id for tag in wanted])).order_by(chunk.c.id, tags.c.id)
    )
    own, new = user_tags.c, insert.excluded
    differs = sa.or_(own.source != new.source, own.expires_at.is_distinct_from(new.expires_at))
    if given["source"] != TagSource.MANUAL:
        differs = sa.and_(differs, own.source != TagSource.MANUAL.value)
    expired = ~unexpired(user_tags, given["tagged_at"])
    statement = insert.on_conflict_do_update(
        index_elements=["user_id", "tag_id"], set_={name: new[name] for name in given}, where=sa.or_(expired, differs)
    )
    return _by_user(tx.rows(statement.returning(own.user_id, own.tag_id)), {tag.id: tag.key for tag in wanted})


def _delete(tx: Tx, condition: sa.ColumnElement[bool], at: datetime) -> list[Row[Any]]:
    """Delete, and return those that had not expired: nobody misses the others."""
    own = user_tags.c
    gone = tx.rows(user_tags.delete().where(condition).returning(own.user_id, own.tag_id, own.expires_at))
    return [row for row in gone if row.expires_at is None or row.expires_at > at]


def _by_user(rows: Iterable[Row[Any]], names: Mapping[uuid.UUID, str]) -> dict[uuid.UUID, list[str]]:
    found: dict[uuid.UUID, list[str]] = defaultdict(list)
    for row in rows:
        found[row.user_id].append(names[row.tag_id])
    return dict(found)


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
