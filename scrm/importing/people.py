"""Users as rows say they are: created or updated, found by their identity."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from scrm.channels.service import ChannelInfo, all_channels
from scrm.config import Settings
from scrm.db import Database, Tx
from scrm.errors import ScrmError, UserError
from scrm.events.log import share_owners
from scrm.events.records import RecordStatus
from scrm.importing.mapping import UserRow
from scrm.importing.run import Outcome
from scrm.tags.models import tags, user_tags
from scrm.tags.tagging import TagSource, tag_users
from scrm.text import check_external_id
from scrm.users.fields import check_fields
from scrm.users.models import users
from scrm.users.service import (
    IdentityDraft,
    NewIdentity,
    UserDraft,
    create_users,
    find_identities,
    find_unions,
    link_identity,
    lock_unions,
    update_user,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Checked:
    """A row whose values may be kept; `drafts` is beside `row.identities`."""

    row: UserRow
    drafts: tuple[IdentityDraft, ...]
    fields: Mapping[str, Any]
    attributes: Mapping[str, Any]
    acquired_through: uuid.UUID


@dataclass(frozen=True, slots=True)
class _Who:
    at: datetime
    actor: str
    zone: ZoneInfo


async def upsert_users(db: Database, settings: Settings, rows: Sequence[UserRow], *, actor: str) -> Sequence[Outcome]:
    """Create the users that nobody has the identities of, and update the others; one answer per row.

    ACCEPTED is created or changed, DUPLICATE is all as it was. Attributes are added to those there are; tags are only added, with
    source IMPORT.
    """
    return await db.write(_upsert, rows, _Who(db.clock(), actor, settings.zone))


def _upsert(tx: Tx, rows: Sequence[UserRow], who: _Who) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}
    checked: dict[int, _Checked] = {}
    channels, known_tags = all_channels(tx), _known_tags(tx)
    for n, row in enumerate(rows):
        try:
            checked[n] = _check(row, channels, known_tags, who)
        except ScrmError as error:
            outcomes[n] = Outcome(RecordStatus.REJECTED, (error.as_user_error(),))
    share_owners(tx)
    lock_unions(tx, sorted({draft.union_id for row in checked.values() for draft in row.drafts if draft.union_id}))
    owner = _create_new(tx, checked, who)
    outcomes |= {n: Outcome(RecordStatus.ACCEPTED) for n in owner}
    for n, ready in checked.items():
        if n not in owner:
            owner_id, outcomes[n] = _change(tx, ready, who)
            if owner_id is not None:
                owner[n] = owner_id
    for n in _add_tags(tx, checked, owner, who):
        if outcomes[n].status is RecordStatus.DUPLICATE:
            outcomes[n] = Outcome(RecordStatus.ACCEPTED)
    return [outcomes[n] for n in range(len(rows))]


def _check(row: UserRow, channels: Mapping[str, ChannelInfo], known_tags: frozenset[str], who: _Who) -> _Checked:
    today = who.at.astimezone(who.zone).date()
    fields = check_fields(row.fields, today=today)
    attributes = check_fields({"attributes": dict(row.attributes)}, today=today)["attributes"] if row.attributes else {}
    for tag in row.tags:
        if tag not in known_tags:
            raise ScrmError("UNKNOWN_TAG", f'no tag has the key "{tag}"; create it first', path=("tags",), params={"tag": tag})
    drafts = tuple(_draft(identity, channels) for identity in row.identities)
    path = ("channel",) if row.channel else ("identity", "channel")
    won_on = _channel(row.channel or row.identities[0].channel, channels, path)
    return _Checked(row, drafts, fields, attributes, won_on.id)


def _draft(identity: NewIdentity, channels: Mapping[str, ChannelInfo]) -> IdentityDraft:
    channel = _channel(identity.channel, channels, ("identity", "channel"))
    external_id = check_external_id(identity.external_id, ("identity", "externalId"))
    union_id = check_external_id(identity.union_id, ("unionId",)) if identity.union_id is not None else None
    return IdentityDraft(channel.root_id, external_id, union_id)


def _channel(key: str, channels: Mapping[str, ChannelInfo], path: tuple[str, ...]) -> ChannelInfo:
    if key not in channels:
        message = f'no channel has the key "{key}"; create it first, or say --create-channel KIND'
        raise ScrmError("UNKNOWN_CHANNEL", message, path=path, params={"channel": key})
    return channels[key]


def _create_new(tx: Tx, checked: Mapping[int, _Checked], who: _Who) -> dict[int, uuid.UUID]:
    """Those whom nobody knows yet, all at once: no identity or union id is known, and none is said twice in the batch."""
    drafts = [draft for row in checked.values() for draft in row.drafts]
    known = find_identities(tx, [(draft.channel_id, draft.external_id) for draft in drafts])
    unions = find_unions(tx, [draft.union_id for draft in drafts if draft.union_id])
    said = Counter(mark for row in checked.values() for mark in _marks(row))
    fresh = {
        n: row for n, row in checked.items() if not any(mark in known or mark in unions or said[mark] > 1 for mark in _marks(row))
    }
    new = [
        UserDraft(row.drafts, {**row.fields, **({"attributes": row.attributes} if row.attributes else {})}, row.acquired_through)
        for row in fresh.values()
    ]
    created = create_users(tx, new, at=who.at, actor=who.actor, zone=who.zone)
    return {n: one.user_id for n, one in zip(fresh, created, strict=True) if one.created}


def _marks(row: _Checked) -> set[Any]:
    """What a person may be known by: identities, and union ids."""
    unions = {draft.union_id for draft in row.drafts if draft.union_id}
    return {*unions, *((draft.channel_id, draft.external_id) for draft in row.drafts)}


def _change(tx: Tx, row: _Checked, who: _Who) -> tuple[uuid.UUID | None, Outcome]:
    """One user, in a savepoint: a row that cannot be taken leaves nothing."""
    savepoint = tx.connection.begin_nested()
    try:
        user_id, changed = _change_one(tx, row, who)
    except ScrmError as error:
        savepoint.rollback()
        path = ("identity", *error.path) if error.path in (("externalId",), ("channel",)) else error.path
        problem = UserError(error.code, error.message, path, error.params)
        return None, Outcome(RecordStatus.REJECTED, (problem,))
    savepoint.commit()
    return user_id, Outcome(RecordStatus.ACCEPTED if changed else RecordStatus.DUPLICATE)


def _change_one(tx: Tx, row: _Checked, who: _Who) -> tuple[uuid.UUID, bool]:
    known = find_identities(tx, [(draft.channel_id, draft.external_id) for draft in row.drafts])
    unions = find_unions(tx, [draft.union_id for draft in row.drafts if draft.union_id])
    found = [known[key].user_id for draft in row.drafts if (key := (draft.channel_id, draft.external_id)) in known]
    owner = next(iter([*found, *unions.values()]), None)
    if owner is None:
        attributes = {"attributes": row.attributes} if row.attributes else {}
        new = UserDraft(row.drafts, {**row.fields, **attributes}, row.acquired_through)
        [created] = create_users(tx, [new], at=who.at, actor=who.actor, zone=who.zone)
        if created.created:
            return created.user_id, True
        owner = created.user_id
        known = find_identities(tx, [(draft.channel_id, draft.external_id) for draft in row.drafts])
    changed = False
    for draft, identity in zip(row.drafts, row.row.identities, strict=True):
        has = known.get((draft.channel_id, draft.external_id))
        if has is None or has.user_id != owner or (draft.union_id is not None and has.union_id != draft.union_id):
            link_identity(
                tx, owner, NewIdentity(identity.channel, draft.external_id, draft.union_id),
                at=who.at, actor=who.actor, zone=who.zone,
            )  # fmt: skip
            changed = True
    return owner, _update(tx, owner, row, who) or changed


def _update(tx: Tx, owner: uuid.UUID, row: _Checked, who: _Who) -> bool:
    now = tx.execute(sa.select(users).where(users.c.id == owner)).one()._mapping
    changes = {name: value for name, value in row.fields.items() if now[name] != value}
    attributes = {**now["attributes"], **row.attributes}
    if attributes != now["attributes"]:
        changes["attributes"] = attributes
    if changes:
        update_user(tx, owner, changes, at=who.at, actor=who.actor, zone=who.zone)
    return bool(changes)


def _known_tags(tx: Tx) -> frozenset[str]:
    return frozenset(row.key for row in tx.rows(sa.select(tags.c.key).where(tags.c.archived.is_(False))))


def _add_tags(tx: Tx, checked: Mapping[int, _Checked], owner: Mapping[int, uuid.UUID], who: _Who) -> set[int]:
    """The rows whose user has a tag now that they had not before."""
    tagged = {n: row for n, row in checked.items() if row.row.tags and n in owner}
    if not tagged:
        return set()
    valid = sa.or_(user_tags.c.expires_at.is_(None), user_tags.c.expires_at > who.at)
    chosen = sa.select(user_tags.c.user_id, tags.c.key).join(tags, tags.c.id == user_tags.c.tag_id)
    had = {(row.user_id, row.key) for row in tx.rows(chosen.where(valid, user_tags.c.user_id.in_({owner[n] for n in tagged})))}
    missing: dict[str, list[uuid.UUID]] = {}
    changed = set()
    for n, row in tagged.items():
        for tag in row.row.tags:
            if (owner[n], tag) not in had:
                had.add((owner[n], tag))
                missing.setdefault(tag, []).append(owner[n])
                changed.add(n)
    for tag, user_ids in missing.items():
        tag_users(tx, [tag], user_ids, source=TagSource.IMPORT, at=who.at, actor=who.actor, zone=who.zone)
    return changed
