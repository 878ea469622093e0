"""Whose an event is: from what channels say of people to users, set-based."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import sqlalchemy as sa

from scrm.db import Tx, json_rows, new_id
from scrm.events.log import append, core_event
from scrm.users.merging import merge, older_first, suggest_merge
from scrm.users.models import identities
from scrm.users.service import (
    IdentityDraft,
    KnownIdentity,
    UserDraft,
    create_users,
    find_identities,
    find_unions,
    lock_unions,
    set_union_ids,
)
from scrm.uuids import uuid_of_hex

IdentityKey = tuple[uuid.UUID, str]
"""A root channel and the external id in it."""

ACTOR = "ingest"
"""Who the core's own changes name when an event brought them about."""

_ROUNDS = 20


class MergeNeededError(Exception):
    """Two users turned out to be one person; to be done again under `lock_owners`."""


@dataclass(frozen=True, slots=True)
class ChannelRef:
    """A channel by its key; identities belong to its root."""

    id: uuid.UUID
    key: str
    root_id: uuid.UUID
    root_key: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What one event says of a person: an identity, perhaps a union id, and the channel it came over."""

    identity: IdentityKey
    union_id: str | None
    root_key: str
    channel_id: uuid.UUID


@dataclass(frozen=True, slots=True)
class Terms:
    """How to decide: when, in which zone, whether one person's two users are merged or only suggested, and under which lock."""

    at: datetime
    zone: ZoneInfo
    auto_merge: bool
    exclusive: bool


@dataclass(slots=True)
class _Person:
    """Somebody that the batch speaks of: a user, or one about to be. `same` leads to whom it turned out to be."""

    user_id: uuid.UUID | None
    channel_id: uuid.UUID
    new: list[IdentityDraft] = field(default_factory=list)
    root_keys: list[str] = field(default_factory=list)
    same: _Person | None = None

    def now(self) -> _Person:
        person = self
        while person.same is not None:
            person = person.same
        return person


@dataclass(slots=True)
class _Plan:
    persons: list[_Person] = field(default_factory=list)
    by_identity: dict[IdentityKey, _Person] = field(default_factory=dict)
    by_union: dict[str, _Person] = field(default_factory=dict)
    by_user: dict[uuid.UUID, _Person] = field(default_factory=dict)
    unions: dict[IdentityKey, str] = field(default_factory=dict)
    one_person: list[tuple[uuid.UUID, uuid.UUID]] = field(default_factory=list)


def find_channels(tx: Tx, keys: Collection[str]) -> dict[str, ChannelRef]:
    """The channels with these keys and their roots; absent where there is none."""
    if not keys:
        return {}
    statement = _CHANNELS_SQLITE if tx.dialect == "sqlite" else _CHANNELS_POSTGRESQL
    rows = tx.rows(statement, {"rows": json_rows([{"key": key} for key in keys])})
    return {row.key: ChannelRef(_uuid(row.id), row.key, _uuid(row.root_id), row.root_key) for row in rows}


def find_known(tx: Tx, said: Sequence[tuple[ChannelRef, str]]) -> list[KnownIdentity | None]:
    """The identities that these channels know by these ids, in the order of `said`; one statement, and little of Python."""
    if not said:
        return []
    # Texts and numbers only, so nothing has to be made ready for JSON.
    rows = orjson.dumps(
        [{"n": n, "channel": channel.root_id.hex, "id": external_id} for n, (channel, external_id) in enumerate(said)]
    ).decode()
    known: list[KnownIdentity | None] = [None] * len(said)
    lite = tx.dialect == "sqlite"
    for row in tx.rows(_KNOWN_SQLITE if lite else _KNOWN_POSTGRESQL, {"rows": rows}):
        known[row.n] = KnownIdentity(uuid_of_hex(row.user_id) if lite else row.user_id, row.union_id)
    return known


def resolve(tx: Tx, claims: Sequence[Claim], terms: Terms) -> dict[IdentityKey, uuid.UUID]:
    """The user of every claimed identity, after creating, attaching and merging what the claims ask for.

    Raises:
        MergeNeededError: two users must become one, and the transaction does not hold `lock_owners`.
    """
    for _ in range(_ROUNDS):
        plan = _plan(tx, claims)
        if plan.one_person and terms.auto_merge:
            if not terms.exclusive:
                raise MergeNeededError
            _merge(tx, plan.one_person, terms)
        elif _create(tx, plan, terms) and _attach(tx, plan, terms):
            if plan.unions:
                set_union_ids(tx, plan.unions)
            for one, other in plan.one_person:
                suggest_merge(tx, one, other, reason="unionId", at=terms.at)
            users = ((key, person.now().user_id) for key, person in plan.by_identity.items())
            return {key: user_id for key, user_id in users if user_id is not None}
        # Somebody else was first with an identity, or two users are one now: look again.
    raise RuntimeError(f"owners of {len(claims)} events did not settle in {_ROUNDS} rounds")


def _plan(tx: Tx, claims: Sequence[Claim]) -> _Plan:
    plan = _Plan()
    known = find_identities(tx, list({claim.identity: None for claim in claims}))
    news = {claim.union_id for claim in claims if claim.union_id is not None and _is_news(claim, known.get(claim.identity))}
    if news:
        lock_unions(tx, sorted(news))
        for union_id, user_id in find_unions(tx, sorted(news)).items():
            plan.by_union[union_id] = _of_user(plan, user_id, claims[0].channel_id)
    for claim in claims:
        if claim.identity not in plan.by_identity and claim.identity in known:
            plan.by_identity[claim.identity] = _of_user(plan, known[claim.identity].user_id, claim.channel_id)
        _follow(plan, claim, claim.union_id in news)
    return plan


def _is_news(claim: Claim, identity: KnownIdentity | None) -> bool:
    """Whether the claim says something that the database does not know of the identity."""
    return identity is None or (claim.union_id is not None and identity.union_id != claim.union_id)


def _of_user(plan: _Plan, user_id: uuid.UUID, channel_id: uuid.UUID) -> _Person:
    person = plan.by_user.get(user_id)
    if person is None:
        person = plan.by_user[user_id] = _Person(user_id, channel_id)
        plan.persons.append(person)
    return person


def _follow(plan: _Plan, claim: Claim, news: bool) -> None:
    """Take one claim into the plan; `news`: the database did not know its union id for every identity that claims it."""
    person = plan.by_identity.get(claim.identity)
    other = plan.by_union.get(claim.union_id) if claim.union_id is not None and news else None
    if person is None:
        person = other
        if person is None:
            person = _Person(None, claim.channel_id)
            plan.persons.append(person)
        person = person.now()
        person.new.append(IdentityDraft(*claim.identity, claim.union_id))
        person.root_keys.append(claim.root_key)
        plan.by_identity[claim.identity] = person
    elif news and claim.union_id is not None:
        plan.unions[claim.identity] = claim.union_id
        if other is not None:
            _one_person(plan, person.now(), other.now())
    if claim.union_id is not None and news:
        plan.by_union.setdefault(claim.union_id, person)


def _one_person(plan: _Plan, person: _Person, other: _Person) -> None:
    if person is other:
        return
    if person.user_id is not None and other.user_id is not None:
        plan.one_person.append((person.user_id, other.user_id))
        return
    nobody, somebody = (person, other) if person.user_id is None else (other, person)
    somebody.new.extend(nobody.new)
    somebody.root_keys.extend(nobody.root_keys)
    nobody.same = somebody


def _create(tx: Tx, plan: _Plan, terms: Terms) -> bool:
    """Insert the new users; False where somebody else had one of their identities first."""
    newcomers = [person for person in plan.persons if person.user_id is None and person.same is None]
    if not newcomers:
        return True
    if any(
        draft.union_id is None and (draft.channel_id, draft.external_id) in plan.unions
        for person in newcomers
        for draft in person.new
    ):
        for person in newcomers:
            person.new = [_with_union(draft, plan.unions) for draft in person.new]
    # In one order for everybody, or two transactions with the same newcomers wait for each other.
    newcomers.sort(key=lambda person: min((draft.channel_id, draft.external_id) for draft in person.new))
    drafts = [UserDraft(tuple(person.new), acquisition_channel_id=person.channel_id) for person in newcomers]
    settled = True
    for person, created in zip(newcomers, create_users(tx, drafts, at=terms.at, actor=ACTOR, zone=terms.zone), strict=True):
        person.user_id = created.user_id
        settled = settled and created.created
    return settled


def _with_union(draft: IdentityDraft, unions: Mapping[IdentityKey, str]) -> IdentityDraft:
    union_id = draft.union_id or unions.get((draft.channel_id, draft.external_id))
    return IdentityDraft(draft.channel_id, draft.external_id, union_id)


def _attach(tx: Tx, plan: _Plan, terms: Terms) -> bool:
    """Insert new identities of users that were there; False where somebody else was first."""
    drafts = [
        (draft, root_key, user_id)
        for user_id, person in plan.by_user.items()
        for draft, root_key in zip(person.new, person.root_keys, strict=True)
    ]
    if not drafts:
        return True
    drafts.sort(key=lambda row: (row[0].channel_id, row[0].external_id))
    rows = [
        {
            "id": new_id().hex,
            "user_id": user_id.hex,
            "channel_id": draft.channel_id.hex,
            "external_id": draft.external_id,
            "union_id": _with_union(draft, plan.unions).union_id,
        }
        for draft, _, user_id in drafts
    ]
    statement = _ATTACH_SQLITE if tx.dialect == "sqlite" else _ATTACH_POSTGRESQL
    inserted = {_uuid(row.id).hex for row in tx.rows(statement, {"rows": json_rows(rows), "at": terms.at})}
    linked = [
        core_event("identity.linked", user_id, {"channel": root_key}, terms.at, terms.zone)
        for row, (_, root_key, user_id) in zip(rows, drafts, strict=True)
        if row["id"] in inserted
    ]
    append(tx, linked)
    return len(inserted) == len(rows)


def _merge(tx: Tx, pairs: Iterable[tuple[uuid.UUID, uuid.UUID]], terms: Terms) -> None:
    for one, other in pairs:
        kept, absorbed = older_first(tx, one, other)
        if kept != absorbed:
            merge(tx, kept, absorbed, reason="unionId", at=terms.at, actor=ACTOR, zone=terms.zone)


def _uuid(value: Any) -> uuid.UUID:
    return value if isinstance(value, uuid.UUID) else uuid.UUID(value)


_CHANNELS = (
    "with recursive up(key, id, root_id, root_key, parent_id) as ("
    "select one.key, one.id, one.id, one.key, one.parent_id from {said} join channels as one on one.key = {key}"
    " union all select up.key, up.id, parent.id, parent.key, parent.parent_id"
    " from up join channels as parent on parent.id = up.parent_id"
    ") select key, id, root_id, root_key from up where parent_id is null"
)
_CHANNELS_POSTGRESQL = sa.text(_CHANNELS.format(said="json_to_recordset(cast(:rows as json)) as said(key text)", key="said.key"))
_CHANNELS_SQLITE = sa.text(_CHANNELS.format(said="json_each(:rows) as said cross", key="said.value ->> 'key'"))
_KNOWN_POSTGRESQL = sa.text(
    "select said.n, known.user_id, known.union_id"
    " from json_to_recordset(cast(:rows as json)) as said(n integer, channel uuid, id text)"
    " join identities as known on known.channel_id = said.channel and known.external_id = said.id"
)
_KNOWN_SQLITE = sa.text(
    "select said.key as n, known.user_id, known.union_id from json_each(:rows) as said cross join identities as known"
    " on known.channel_id = said.value ->> 'channel' and known.external_id = said.value ->> 'id'"
)
_AT = sa.bindparam("at", type_=identities.c.linked_at.type)
_ATTACHED = "id, user_id, channel_id, external_id, union_id"
_ATTACH_POSTGRESQL = sa.text(
    f"insert into identities ({_ATTACHED}, linked_at) select {_ATTACHED}, :at from json_to_recordset(cast(:rows as json))"
    " as said(id uuid, user_id uuid, channel_id uuid, external_id text, union_id text)"
    " on conflict (channel_id, external_id) do nothing returning id"
).bindparams(_AT)
_ATTACH_SQLITE = sa.text(
    f"insert into identities ({_ATTACHED}, linked_at) select "
    + ", ".join(f"value ->> '{name}'" for name in _ATTACHED.split(", "))
    + ", :at from json_each(:rows) where true on conflict (channel_id, external_id) do nothing returning id"
).bindparams(_AT)
