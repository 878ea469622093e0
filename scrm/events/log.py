"""The log's lowest layer: what everybody who records an event writes with."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import orjson
import sqlalchemy as sa
from uuid6 import uuid7

from scrm.db import Database, Id, Tx, instant_text, new_id
from scrm.plugin import EventType
from scrm.uuids import uuid_of, uuid_of_hex

CORE = "core"
"""The source of core's own changes; nobody else may say it."""

_OWNERS_LOCK = 0x7363726D_6F776E72  # "scrmownr"


class Entry(msgspec.Struct, frozen=True):
    """An event about to be written: all but its position. `user_id` is its owner now, and so the one it is recorded for."""

    id: uuid.UUID
    type: str
    user_id: uuid.UUID | None
    channel_id: uuid.UUID | None
    occurred_at: datetime
    received_at: datetime
    business_date: date
    amount_minor: int | None
    currency: str | None
    properties: Mapping[str, Any]
    source: str
    external_id: str
    late: bool
    digest: str
    cause_id: uuid.UUID | None = None
    depth: int = 0
    backfill: bool = False


class Appended(NamedTuple):
    """What became of one entry; if its (source, external id) was taken, `event_id` and `digest` are of the event that has it."""

    event_id: uuid.UUID
    inserted: bool
    digest: str


class NumberedTwiceError(Exception):
    """Somebody else recorded one of the keys at that moment, so its number would be a gap: the transaction must begin again."""


def append(tx: Tx, entries: Sequence[Entry], *, number: bool = False) -> list[Appended]:
    """Write the entries in their order, leaving out those whose (source, external id) is taken; one answer per entry.

    The caller holds `share_owners` since before it looked up who owns the events. With `number` they get their positions at
    once where nothing before them waits for one, which saves the sequencer from writing each of them again; nobody else
    gets one until the transaction ends, so it must end soon.

    Raises: NumberedTwiceError, with `number`.
    """
    if not entries:
        return []
    if tx.dialect == "sqlite":
        received = {at: instant_text(at) for at in {entry.received_at for entry in entries}}
        written = tx.connection.exec_driver_sql(_INSERT_SQLITE, [_values(entry, received) for entry in entries])
        if written.rowcount == len(entries):
            return [Appended(entry.id, True, entry.digest) for entry in entries]
        inserted: set[uuid.UUID] | None = None
    else:
        inserted = _insert(tx, msgspec.json.encode(entries).decode(), number)
        if len(inserted) == len(entries):
            return [Appended(entry.id, True, entry.digest) for entry in entries]
    stored = find_events(tx, ((entry.source, entry.external_id) for entry in entries))
    answers = []
    for entry in entries:
        event_id, digest = stored[entry.source, entry.external_id]
        answers.append(Appended(event_id, event_id == entry.id if inserted is None else entry.id in inserted, digest))
    return answers


def _insert(tx: Tx, rows: str, number: bool) -> set[uuid.UUID]:
    head = tx.scalar(_TAKE_HEAD) if number else None
    if head is None:
        return {row.id for row in tx.execute(_INSERT_POSTGRESQL, {"rows": rows})}
    written = tx.rows(_INSERT_NUMBERED, {"rows": rows, "head": head})
    inserted = {row.id for row in written if row.id is not None}
    if len(inserted) != written[0].fresh:
        raise NumberedTwiceError
    return inserted


def find_events(tx: Tx, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[uuid.UUID, str]]:
    """The id and digest of the events that have these (source, external id); absent where there is none."""
    rows = orjson.dumps([{"source": source, "external_id": external_id} for source, external_id in keys]).decode()
    statement = _FIND_SQLITE if tx.dialect == "sqlite" else _FIND_POSTGRESQL
    found = tx.rows(statement, {"rows": rows})
    return {(row.source, row.external_id): (uuid.UUID(str(row.id)), row.digest) for row in found}


def new_ids(count: int) -> list[uuid.UUID]:
    """So many ids as `new_id` makes them, later ones after earlier ones; at most 65 536."""
    first = uuid7().int & ~0xFFFF
    return [uuid_of(first | n) for n in range(count)]


def refuse_core_types(type: str) -> None:
    """Stop a plugin from saying what only the core can say.

    Raises: PermissionError.
    """
    if any(type == change.name for change in change_event_types):
        raise PermissionError(f"events of type {type} are recorded by the core itself; a plugin announces types of its own")


def core_event(
    type: str,
    user_id: uuid.UUID | None,
    properties: Mapping[str, Any],
    at: datetime,
    zone: ZoneInfo,
    key: str | None = None,
    *,
    event_id: uuid.UUID | None = None,
) -> Entry:
    """An entry for one of core's own changes, with a new id unless one is given. With a `key`, recording it again changes
    nothing; `properties` names fields, never personal values."""
    event_id = event_id or new_id()
    said = {"type": type, "userId": user_id.hex if user_id else None, "properties": properties}
    return Entry(
        id=event_id,
        type=type,
        user_id=user_id,
        channel_id=None,
        occurred_at=at,
        received_at=at,
        business_date=at.astimezone(zone).date(),
        amount_minor=None,
        currency=None,
        properties=properties,
        source=CORE,
        external_id=key or event_id.hex,
        late=False,
        digest=digest_of(said),
    )


def digest_of(said: object) -> str:
    """32 hex digits that two equal JSON values share, whatever the order of their keys.

    Raises:
        TypeError: JSON cannot hold the value.
    """
    return hashlib.blake2b(orjson.dumps(said, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def share_owners(tx: Tx) -> None:
    """Keep every user's identity as it is until the transaction ends: taken before owners are looked up and events appended."""
    if tx.dialect != "sqlite":
        tx.execute(_SHARE_OWNERS)


def lock_owners(tx: Tx) -> None:
    """Wait until nobody appends, and let nobody until the transaction ends: taken first by merge, unmerge and erase."""
    if tx.dialect != "sqlite":
        tx.execute(_LOCK_OWNERS)


def owners(tx: Tx, user_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID]:
    """Who each user is now: itself, or the survivor of its merges; an id that nobody has is absent."""
    ids = orjson.dumps([{"id": user_id.hex} for user_id in set(user_ids)]).decode()
    rows = tx.rows(_OWNERS_SQLITE if tx.dialect == "sqlite" else _OWNERS_POSTGRESQL, {"rows": ids})
    if tx.dialect == "sqlite":
        return {uuid_of_hex(row.said): uuid_of_hex(row.id) for row in rows}
    return {row.said: row.id for row in rows}


class Owner(NamedTuple):
    """Who somebody is now, whether they were erased, and whether they were merged or parted behind a place of the log."""

    id: uuid.UUID
    erased: bool
    moved: bool = False


def owner_of(tx: Tx, user_id: uuid.UUID) -> Owner | None:
    """Who this user is now: itself, or the survivor of its merges; None for an id that nobody has."""
    row = tx.row(_OWNER, {"said": user_id})
    return Owner(row.id, bool(row.erased)) if row is not None else None


async def ask_owner(db: Database, user_id: uuid.UUID) -> Owner | None:
    """The same, asked by itself."""
    lite = db.dialect == "sqlite"
    rows = await db.fetch(_CHAIN.format(said="?" if lite else "$1", more=""), [user_id.hex if lite else user_id])
    return Owner(uuid_of_hex(rows[0][0]) if lite else rows[0][0], bool(rows[0][1])) if rows else None


def owner_since(tx: Tx, user_id: uuid.UUID, position: int) -> Owner | None:
    """The same, with what happened to them behind this position."""
    row = tx.row(_OWNER_SINCE, {"said": user_id, "position": position})
    return Owner(row.id, bool(row.erased), bool(row.moved)) if row is not None else None


def _values(entry: Entry, received: Mapping[datetime, str]) -> tuple[Any, ...]:
    return (
        entry.id.hex,
        entry.type,
        entry.user_id.hex if entry.user_id else None,
        entry.channel_id.hex if entry.channel_id else None,
        instant_text(entry.occurred_at),
        received[entry.received_at],
        entry.business_date.isoformat(),
        entry.amount_minor,
        entry.currency,
        msgspec.json.encode(entry.properties).decode(),
        entry.source,
        entry.external_id,
        entry.late,
        entry.digest,
        entry.cause_id.hex if entry.cause_id else None,
        entry.depth,
        entry.backfill,
    )


_TYPES = {
    "id": "uuid",
    "type": "text",
    "user_id": "uuid",
    "channel_id": "uuid",
    "occurred_at": "timestamptz",
    "received_at": "timestamptz",
    "business_date": "date",
    "amount_minor": "bigint",
    "currency": "text",
    "properties": "json",
    "source": "text",
    "external_id": "text",
    "late": "boolean",
    "digest": "text",
    "cause_id": "uuid",
    "depth": "smallint",
    "backfill": "boolean",
}
_COLUMNS = ", ".join(_TYPES)
_INSERT_POSTGRESQL = sa.text(
    f"insert into events ({_COLUMNS}, recorded_user_id)"
    f" select {_COLUMNS}, user_id from json_to_recordset(cast(:rows as json)) as said("
    + ", ".join(f"{name} {type}" for name, type in _TYPES.items())
    + ") on conflict (source, external_id) do nothing returning id"
)
# Held until the transaction ends. What was committed before this statement began and has no position yet goes first.
# And what is written then is planned anew: a plan kept from when the log was small would read all of it.
_TAKE_HEAD = sa.text(
    "select position, set_config('plan_cache_mode', 'force_custom_plan', true) from log_head"
    " where one = 1 and not exists (select from events where position is null) for update skip locked"
)
_INSERT_NUMBERED = sa.text(
    f"with fresh as (select {_COLUMNS}, row_number() over (order by place) as n from rows from"
    f" (json_to_recordset(cast(:rows as json)) as ({', '.join(f'{name} {type}' for name, type in _TYPES.items())}))"
    f" with ordinality as said({_COLUMNS}, place) where not exists"
    " (select from events where events.source = said.source and events.external_id = said.external_id)),"
    f" inserted as (insert into events ({_COLUMNS}, recorded_user_id, position) select {_COLUMNS}, user_id, :head + n from fresh"
    " order by n on conflict (source, external_id) do nothing returning id),"
    " total as (select count(*) as n from fresh),"
    " moved as (update log_head set position = position + total.n from total where one = 1)"
    " select inserted.id, total.n as fresh from total left join inserted on true"
)
_INSERT_SQLITE = (
    f"insert into events ({_COLUMNS}, recorded_user_id) values ({', '.join('?' * len(_TYPES))}, ?3)"
    " on conflict (source, external_id) do nothing"
)
_FIND_POSTGRESQL = sa.text(
    "select events.source, events.external_id, events.id, events.digest"
    " from json_to_recordset(cast(:rows as json)) as said(source text, external_id text) join events using (source, external_id)"
)
_FIND_SQLITE = sa.text(
    "select events.source, events.external_id, events.id, events.digest from json_each(:rows) as said"
    " cross join events on events.source = said.value ->> 'source' and events.external_id = said.value ->> 'external_id'"
)
SHARING = sa.func.pg_advisory_xact_lock_shared(_OWNERS_LOCK)
"""`share_owners` as a column of another statement of PostgreSQL."""
_SHARE_OWNERS = sa.text(f"select pg_advisory_xact_lock_shared({_OWNERS_LOCK})")
_LOCK_OWNERS = sa.text(f"select pg_advisory_xact_lock({_OWNERS_LOCK})")
_OWNERS = (
    "with recursive chain(said, id, merged_into) as ("
    "select users.id, users.id, users.merged_into from {said} join users on users.id = {id}"
    " union all select chain.said, users.id, users.merged_into from chain join users on users.id = chain.merged_into"
    ") select said, id from chain where merged_into is null"
)


_CHAIN = (
    "with recursive chain(id, merged_into, erased_at) as ("
    "select id, merged_into, erased_at from users where id = {said}"
    " union all select users.id, users.merged_into, users.erased_at from chain join users on users.id = chain.merged_into"
    ") select id, erased_at is not null as erased{more} from chain where merged_into is null"
)


def _owner(more: str = "") -> sa.TextualSelect:
    said = sa.text(_CHAIN.format(said=":said", more=more))
    return said.bindparams(sa.bindparam("said", type_=Id)).columns(id=Id, erased=sa.Boolean())


_OWNER = _owner()
_OWNER_SINCE = _owner(
    ", exists (select 1 from merges join events on events.id in (merges.event_id, merges.undone_by)"
    " where (merges.kept_id = chain.id or merges.absorbed_id = chain.id)"  # said so that each has its index
    " and (events.position is null or events.position > :position)) as moved"
)
_OWNERS_POSTGRESQL = sa.text(_OWNERS.format(said="json_to_recordset(cast(:rows as json)) as said(id uuid)", id="said.id"))
_OWNERS_SQLITE = sa.text(_OWNERS.format(said="json_each(:rows) as said cross", id="said.value ->> 'id'"))


def _type(name: str, description: str, *, without_user: bool = False, **properties: str) -> EventType:
    """`properties` maps a name to its JSON type; `campaign` may be said on any event, and so may anything that is not named."""
    known = {**properties, "campaign": "string"}
    payload = {"type": "object", "properties": {key: {"type": kind} for key, kind in known.items()}}
    return EventType(name, description, payload, without_user=without_user)


_ITEMS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "sku": {"type": "string"},
            "category": {"type": "string"},
            "quantity": {"type": "number"},
            "amount": {"type": "integer"},
        },
    },
}


def _order(name: str, description: str) -> EventType:
    properties = {
        "orderId": {"type": "string", "minLength": 1},
        "items": _ITEMS,
        "store": {"type": "string"},
        "campaign": {"type": "string"},
    }
    return EventType(name, description, {"type": "object", "properties": properties, "required": ["orderId"]})


standard_event_types: tuple[EventType, ...] = (
    _type("user.followed", "Followed the brand on a channel."),
    _type("user.unfollowed", "Stopped following the brand on a channel."),
    _type("user.signed_up", "Became a member."),
    _type("page.viewed", "Looked at a page.", page="string", category="string"),
    _type("content.read", "Read a piece of content.", contentId="string"),
    _type("content.liked", "Liked a piece of content.", contentId="string"),
    _type("content.shared", "Shared a piece of content.", contentId="string"),
    _type("content.commented", "Commented on a piece of content.", contentId="string"),
    _type("message.received", "The brand received a message from this person.", messageId="string", staff="string"),
    _type("message.sent", "The brand sent this person a message.", messageId="string", staff="string"),
    _type("group.joined", "Joined a group.", groupId="string"),
    _type("group.left", "Left a group.", groupId="string"),
    _type("group.spoke", "Spoke in a group.", groupId="string"),
    _order("order.placed", "Placed an order; the amount is the order's."),
    _order("order.paid", "Paid an order; the amount is what was paid."),
    _order("order.refunded", "Was refunded; the amount is this refund, orderId the paid order."),
    _type("coupon.redeemed", "Used a coupon; cost in minor units.", couponId="string", orderId="string", cost="integer"),
    _type("survey.answered", "Answered a survey.", score="number"),
    _type("complaint.filed", "Complained.", orderId="string", reason="string"),
    _type("dispute.opened", "Disputed an order.", orderId="string", reason="string"),
    _type("referral.accepted", "Came on another person's invitation.", inviter="string"),
    _type("indicator.reported", "A figure from outside, about nobody.", without_user=True, indicator="string", value="number"),
)
"""What callers may record without any plugin."""

change_event_types: tuple[EventType, ...] = (
    _type("user.created", "Core: a user came to be.", fields="array"),
    _type("user.updated", "Core: fields of a user changed; their names only.", fields="array"),
    _type("user.tagged", "Core: got tags.", tags="array", source="string"),
    replace(
        _type("user.untagged", "Core: lost tags.", tags="array", source="string", untagReason="string"),
        personal=("untagReason",),
    ),
    _type("user.merged", "Core: absorbed another user.", kept="string", absorbed="string", merge="string"),
    _type("user.unmerged", "Core: a merge was undone.", kept="string", absorbed="string", merge="string"),
    _type("user.erased", "Core: personal data was removed.", user="string", pseudonym="string"),
    _type("identity.linked", "Core: an identity was attached.", channel="string"),
    _type("identity.unlinked", "Core: an identity was detached.", channel="string"),
    _type("plugin.configured", "Core: a plugin's rules from here on.", without_user=True, plugin="string"),
    _type("mutation.answered", "Core: what a mutation answered to a caller's key.", without_user=True),
    _type("key.revoked", "Core: an API key ended.", without_user=True, key="string"),
)
"""Core's own changes: recorded by core only."""

core_event_types: tuple[EventType, ...] = (*standard_event_types, *change_event_types)
"""Every event type that core registers."""
