"""Users and their identities."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from scrm.audit import audit
from scrm.changes import global_id, record_change, record_changes
from scrm.channels.service import ChannelInfo, all_channels
from scrm.db import Id, Text, Tx, new_id
from scrm.errors import ScrmError
from scrm.events.log import owner_of, share_owners
from scrm.rowset import id_set, insert_rows, row_set, upsert
from scrm.text import check_external_id
from scrm.users.fields import FIELDS, camel, check_fields
from scrm.users.models import identities, users


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """An identity as a caller names it: the channel by its key (a child's identities are its root's)."""

    channel: str
    external_id: str
    union_id: str | None = None


@dataclass(frozen=True, slots=True)
class IdentityDraft:
    """An identity to insert: `channel_id` is a root channel; the ids are checked and trimmed."""

    channel_id: uuid.UUID
    external_id: str
    union_id: str | None = None


@dataclass(frozen=True, slots=True)
class UserDraft:
    """A user to insert, all of it checked: `fields` by column name."""

    identities: tuple[IdentityDraft, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    acquisition_channel_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """What became of a draft: not `created` where somebody else made an identity of it meanwhile; `user_id` is theirs then."""

    user_id: uuid.UUID
    created: bool


class KnownIdentity(NamedTuple):
    """An identity in the database, with its present owner."""

    user_id: uuid.UUID
    union_id: str | None


IdentityKey = tuple[uuid.UUID, str]
"""(root channel, external id)."""


# ---- set-based, for ingestion and imports


def find_identities(tx: Tx, keys: Sequence[IdentityKey]) -> dict[IdentityKey, KnownIdentity]:
    """The known ones among these; one statement."""
    if not keys:
        return {}
    rows = [{"channel_id": channel, "external_id": external} for channel, external in keys]
    said = row_set(tx, "said", {"channel_id": Id, "external_id": Text}, rows)
    own = identities.c
    found = tx.rows(
        sa.select(own.channel_id, own.external_id, own.user_id, own.union_id).join_from(
            said, identities, sa.and_(own.channel_id == said.c.channel_id, own.external_id == said.c.external_id)
        )
    )
    return {(row.channel_id, row.external_id): KnownIdentity(row.user_id, row.union_id) for row in found}


def find_unions(tx: Tx, union_ids: Sequence[str]) -> dict[str, uuid.UUID]:
    """The owners of these union ids, as far as known (the oldest user where several have one); one statement."""
    if not union_ids:
        return {}
    said = row_set(tx, "said", {"union_id": Text}, [{"union_id": union_id} for union_id in set(union_ids)])
    rows = tx.rows(
        sa.select(identities.c.union_id, identities.c.user_id)
        .join_from(said, identities, identities.c.union_id == said.c.union_id)
        .join(users, users.c.id == identities.c.user_id)
        .order_by(users.c.created_at.desc(), users.c.id.desc())
    )
    return {row.union_id: row.user_id for row in rows}


def lock_unions(tx: Tx, union_ids: Sequence[str]) -> None:
    """Make others who meet the same new union ids wait until this transaction ends; nothing to do on SQLite."""
    if tx.dialect == "sqlite" or not union_ids:
        return
    said = row_set(tx, "said", {"union_id": Text}, [{"union_id": union_id} for union_id in sorted(set(union_ids))])
    keys = sa.select(sa.func.hashtextextended(said.c.union_id, 0).label("key")).distinct().order_by("key").subquery()
    tx.execute(sa.select(sa.func.count(sa.func.pg_advisory_xact_lock(keys.c.key))))


def create_users(tx: Tx, drafts: Sequence[UserDraft], *, at: datetime, actor: str, zone: ZoneInfo) -> list[Created]:
    """Insert users with their identities and `user.created` events, set-based; answers in the order of the drafts.

    A draft of which somebody else inserted an identity meanwhile is not created. The caller holds `share_owners`.
    """
    if not drafts:
        return []
    ids = [new_id() for _ in drafts]
    insert_rows(tx, users, [_user_row(user_id, draft, at) for user_id, draft in zip(ids, drafts, strict=True)])
    rows = [
        _identity_row(user_id, identity, at) for user_id, draft in zip(ids, drafts, strict=True) for identity in draft.identities
    ]
    lost = _insert_identities(tx, rows)
    if lost:
        tx.execute(identities.delete().where(identities.c.user_id.in_(lost)))
        tx.execute(users.delete().where(users.c.id.in_(lost)))
    made = [(user_id, _created(draft)) for user_id, draft in zip(ids, drafts, strict=True) if user_id not in lost]
    record_changes(tx, "user.created", made, at=at, zone=zone)
    if not lost:
        return [Created(user_id, True) for user_id in ids]
    keys = {
        (identity.channel_id, identity.external_id): user_id
        for user_id, draft in zip(ids, drafts, strict=True)
        if user_id in lost
        for identity in draft.identities
    }
    known = find_identities(tx, list(keys))
    theirs = {keys[key]: identity.user_id for key, identity in reversed(known.items())}
    return [Created(theirs[user_id], False) if user_id in lost else Created(user_id, True) for user_id in ids]


def _insert_identities(tx: Tx, rows: list[dict[str, Any]]) -> set[uuid.UUID]:
    """The users of whom an identity was taken. Written in the order of the unique key, so that two batches never deadlock."""
    if not rows:
        return set()
    rows.sort(key=lambda row: (row["channel_id"].int, row["external_id"]))
    kinds = {name: column.type for name, column in identities.c.items()}
    said = row_set(tx, "said", kinds, rows)
    statement = (
        upsert(tx, identities)
        .from_select(list(kinds), sa.select(*said.c).where(sa.true()))
        .on_conflict_do_nothing(index_elements=["channel_id", "external_id"])
        .returning(identities.c.id)
    )
    written = {row.id for row in tx.execute(statement)}
    return {row["user_id"] for row in rows if row["id"] not in written}


_NOTHING_KNOWN = dict.fromkeys(users.c.keys())


def _user_row(user_id: uuid.UUID, draft: UserDraft, at: datetime) -> dict[str, Any]:
    said = {name: draft.fields.get(name) for name in FIELDS}
    own = {"id": user_id, "acquisition_channel_id": draft.acquisition_channel_id, "created_at": at, "updated_at": at}
    return {**_NOTHING_KNOWN, **said, "attributes": said["attributes"] or {}, **own}


def _identity_row(user_id: uuid.UUID, identity: IdentityDraft, at: datetime) -> dict[str, Any]:
    return {
        "id": new_id(),
        "user_id": user_id,
        "channel_id": identity.channel_id,
        "external_id": identity.external_id,
        "union_id": identity.union_id,
        "linked_at": at,
    }


def _created(draft: UserDraft) -> dict[str, Any]:
    return {"fields": sorted(camel(name) for name, value in draft.fields.items() if value is not None)}


def set_union_ids(tx: Tx, unions: Mapping[IdentityKey, str]) -> None:
    """Write the union ids that known identities report for the first time."""
    if not unions:
        return
    rows = [{"channel_id": key[0], "external_id": key[1], "union_id": union_id} for key, union_id in unions.items()]
    said = row_set(tx, "said", {"channel_id": Id, "external_id": Text, "union_id": Text}, rows)
    tx.execute(
        identities.update()
        .values(union_id=said.c.union_id)
        .where(identities.c.channel_id == said.c.channel_id, identities.c.external_id == said.c.external_id)
    )


# ---- one user


def find_user(tx: Tx, user_id: uuid.UUID, path: Sequence[str] = ("id",)) -> uuid.UUID:
    """The user's present id: a merged one resolves to the survivor.

    Raises:
        ScrmError: `USER_NOT_FOUND`.
    """
    found = owner_of(tx, user_id)
    if found is None:
        raise user_not_found(user_id, path)
    return found.id


def find_users(tx: Tx, user_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID]:
    """Present ids by given id, as far as known; merged ones resolve to the survivor, erased ones are not found."""
    if not user_ids:
        return {}
    wanted = id_set(tx, "wanted", set(user_ids))
    # A merge points everybody it absorbs at the survivor, and erasing one erases all of them: one row says it.
    statement = sa.select(users.c.id, users.c.merged_into).where(users.c.id == wanted.c.id, users.c.erased_at.is_(None))
    return {row.id: row.merged_into or row.id for row in tx.rows(statement)}


def erased_users(tx: Tx, user_ids: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Which of these ids were somebody's who was erased."""
    wanted = set(user_ids)
    if not wanted:
        return set()
    asked = id_set(tx, "wanted", wanted)
    return {row.id for row in tx.rows(sa.select(users.c.id).where(users.c.id == asked.c.id, users.c.erased_at.is_not(None)))}


def user_not_found(user_id: uuid.UUID, path: Sequence[str] = ("id",)) -> ScrmError:
    """The error for an id that no user has."""
    said = global_id("User", user_id)
    return ScrmError("USER_NOT_FOUND", f"no user has the id {said}", path=path, params={"id": said})


def user_by_identity(tx: Tx, channel: str, external_id: str) -> uuid.UUID | None:
    """The user whom this channel (or its root) knows by this id, or None; an unknown channel knows nobody."""
    info = all_channels(tx).get(channel)
    if info is None:
        return None
    own = identities.c
    return tx.scalar(  # type: ignore[no-any-return]
        sa.select(own.user_id).where(own.channel_id == info.root_id, own.external_id == external_id.strip())
    )


def create_user(
    tx: Tx,
    *,
    identities: Sequence[NewIdentity] = (),
    fields: Mapping[str, Any] | None = None,
    channel: str | None = None,
    at: datetime,
    actor: str,
    zone: ZoneInfo,
) -> uuid.UUID:
    """Add a user. `fields` by column name; `channel` is where they were won (default: their first identity's).

    Raises:
        ScrmError: `IDENTITY_TAKEN`, `INVALID_IDENTITY`, `UNKNOWN_CHANNEL`, and those of `check_fields`.
    """
    known = all_channels(tx)
    won_on = channel or (identities[0].channel if identities else None)
    acquisition = _channel(known, won_on, ("channel",) if channel else ("identities", "0", "channel"))
    said = check_fields(fields or {}, today=at.astimezone(zone).date())
    share_owners(tx)
    drafts = [_identity_draft(known, identity, ("identities", str(n))) for n, identity in enumerate(identities)]
    _check_free(tx, drafts, [("identities", str(n)) for n in range(len(drafts))], owner=None)
    draft = UserDraft(tuple(drafts), said, acquisition.id if acquisition else None)
    [result] = create_users(tx, [draft], at=at, actor=actor, zone=zone)
    if not result.created:
        raise _identity_taken(drafts[0].external_id, result.user_id, ("identities",))
    audit(tx, actor, "user.created", global_id("User", result.user_id), _created(draft), at=at)
    return result.user_id


def update_user(tx: Tx, user_id: uuid.UUID, changes: Mapping[str, Any], *, at: datetime, actor: str, zone: ZoneInfo) -> uuid.UUID:
    """Change the fields that `changes` names (None clears; `attributes` is replaced whole); returns the present id.

    Nothing is recorded where nothing differs.

    Raises:
        ScrmError: `USER_NOT_FOUND`, `USER_ERASED`, and those of `check_fields`.
    """
    said = check_fields(changes, today=at.astimezone(zone).date())
    share_owners(tx)
    user_id = find_user(tx, user_id)
    row = tx.row(sa.select(users).where(users.c.id == user_id).with_for_update(key_share=True))
    if row is None or row.erased_at is not None:
        raise user_erased(user_id)
    now = row._mapping
    changed = {name: value for name, value in said.items() if now[name] != value}
    if changed:
        tx.execute(users.update().where(users.c.id == user_id).values(**changed, updated_at=at))
        names = {"fields": sorted(map(camel, changed))}
        record_change(tx, "user.updated", user_id, names, at=at, actor=actor, zone=zone)
    return user_id


def user_erased(user_id: uuid.UUID, path: Sequence[str] = ("id",)) -> ScrmError:
    """The error for a user whose personal data is gone for good."""
    said = global_id("User", user_id)
    return ScrmError(
        "USER_ERASED", f"the user {said} was erased; nothing can be changed any more", path=path, params={"id": said}
    )


# ---- identities


def link_identity(
    tx: Tx,
    user_id: uuid.UUID,
    identity: NewIdentity,
    *,
    at: datetime,
    actor: str,
    zone: ZoneInfo,
) -> uuid.UUID:
    """Attach an identity, or add a union id to one that the user has; returns the user's present id.

    Raises:
        ScrmError: `USER_NOT_FOUND`, `USER_ERASED`, `UNKNOWN_CHANNEL`, `INVALID_IDENTITY`, `IDENTITY_TAKEN`.
    """
    draft = _identity_draft(all_channels(tx), identity, ("identity",))
    share_owners(tx)
    user_id = _live_user(tx, user_id, ("userId",))
    mine = _check_free(tx, [draft], [("identity",)], owner=user_id)
    if mine:
        if draft.union_id is None or mine[0].union_id == draft.union_id:
            return user_id
        set_union_ids(tx, {(draft.channel_id, draft.external_id): draft.union_id})
    elif _insert_identities(tx, [_identity_row(user_id, draft, at)]):
        raise _identity_taken(draft.external_id, None, ("identity", "externalId"))
    record_change(tx, "identity.linked", user_id, {"channel": identity.channel}, at=at, actor=actor, zone=zone)
    return user_id


def unlink_identity(tx: Tx, *, channel: str, external_id: str, at: datetime, actor: str, zone: ZoneInfo) -> uuid.UUID:
    """Detach an identity from its user, whose last one it may be; returns the user's id.

    Raises:
        ScrmError: `UNKNOWN_CHANNEL`, `IDENTITY_NOT_FOUND`.
    """
    info = _channel(all_channels(tx), channel, ("identity", "channel"))
    assert info is not None
    external_id = check_external_id(external_id, ("identity", "externalId"))
    share_owners(tx)
    own = identities.c
    user_id: uuid.UUID | None = tx.scalar(
        identities.delete().where(own.channel_id == info.root_id, own.external_id == external_id).returning(own.user_id)
    )
    if user_id is None:
        said = f'nobody has an identity of this id on the channel "{channel}"'
        raise ScrmError("IDENTITY_NOT_FOUND", said, path=("identity", "externalId"), params={"channel": channel})
    record_change(tx, "identity.unlinked", user_id, {"channel": channel}, at=at, actor=actor, zone=zone)
    return user_id


def _live_user(tx: Tx, user_id: uuid.UUID, path: Sequence[str]) -> uuid.UUID:
    present = find_user(tx, user_id, path)
    if tx.scalar(sa.select(users.c.erased_at).where(users.c.id == present)) is not None:
        raise user_erased(present, path)
    return present


def _channel(known: Mapping[str, ChannelInfo], key: str | None, path: Sequence[str]) -> ChannelInfo | None:
    if key is None:
        return None
    if key not in known:
        said = f'no channel has the key "{key}"; create it first'
        raise ScrmError("UNKNOWN_CHANNEL", said, path=path, params={"channel": key})
    return known[key]


def _identity_draft(known: Mapping[str, ChannelInfo], identity: NewIdentity, path: tuple[str, ...]) -> IdentityDraft:
    info = _channel(known, identity.channel, (*path, "channel"))
    assert info is not None
    external_id = check_external_id(identity.external_id, (*path, "externalId"))
    union_id = check_external_id(identity.union_id, (*path, "unionId")) if identity.union_id is not None else None
    return IdentityDraft(info.root_id, external_id, union_id)


def _check_free(
    tx: Tx, drafts: Sequence[IdentityDraft], paths: Sequence[tuple[str, ...]], *, owner: uuid.UUID | None
) -> list[KnownIdentity]:
    """Refuse ids that somebody other than `owner` has; returns those that `owner` has."""
    keys = [(draft.channel_id, draft.external_id) for draft in drafts]
    for n, key in enumerate(keys):
        if key in keys[:n]:
            said = f'{".".join((*paths[n], "externalId"))} says "{key[1]}" a second time'
            raise ScrmError("IDENTITY_TAKEN", said, path=(*paths[n], "externalId"))
    lock_unions(tx, [draft.union_id for draft in drafts if draft.union_id is not None])
    known = find_identities(tx, keys)
    unions = find_unions(tx, [draft.union_id for draft in drafts if draft.union_id is not None])
    for key, draft, path in zip(keys, drafts, paths, strict=True):
        if key in known and known[key].user_id != owner:
            raise _identity_taken(draft.external_id, known[key].user_id, (*path, "externalId"))
        whose = unions.get(draft.union_id) if draft.union_id is not None else None
        if whose is not None and whose != owner:
            raise _identity_taken(draft.union_id or "", whose, (*path, "unionId"))
    return list(known.values())


def _identity_taken(said: str, user_id: uuid.UUID | None, path: Sequence[str]) -> ScrmError:
    params = {"userId": global_id("User", user_id)} if user_id else {}
    message = f'the id "{said}" is another user\'s; unlink it there, or merge the two'
    return ScrmError("IDENTITY_TAKEN", message, path=path, params=params)
