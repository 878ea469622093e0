"""Erasing a person, and handing over what is kept of one. Both reach core here and each plugin through its hooks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from scrm.audit import audit
from scrm.changes import global_id, record_change
from scrm.channels.models import channels
from scrm.config import PERSONAL_PROPERTIES
from scrm.db import Tx, instant_text
from scrm.errors import ScrmError
from scrm.events.log import lock_owners
from scrm.events.models import event_types, events
from scrm.tags.models import tags, user_tags
from scrm.users.fields import FIELDS, camel
from scrm.users.models import identities, merge_suggestions, merges, users
from scrm.users.service import find_user, user_erased

PluginExports = Callable[[Tx, uuid.UUID], Mapping[str, Any]]
"""What the plugins keep of a user, by plugin."""


class Erased(NamedTuple):
    """Who was erased, of whomever the caller named, and under which pseudonym ledgers go on."""

    user_id: uuid.UUID
    pseudonym: uuid.UUID


def erase(
    tx: Tx,
    user_id: uuid.UUID,
    *,
    at: datetime,
    actor: str,
    zone: ZoneInfo,
    pseudonym: uuid.UUID | None = None,
    personal: Collection[str] = PERSONAL_PROPERTIES,
) -> Erased:
    """Remove what is personal of a user and of all merged into it; ledgers go on under the pseudonym.
    The id of one that was merged means the user it was merged into.

    Names, contact data, attributes, tags and union ids go; external ids become random; `personal` properties, and those that a
    registered event type marks so, leave this user's events. What remains is an empty shell. Plugins follow when they reach
    `user.erased`.

    Raises:
        ScrmError: `USER_NOT_FOUND`, `USER_ERASED`.
    """
    lock_owners(tx)
    user_id = find_user(tx, user_id)
    if tx.scalar(sa.select(users.c.erased_at).where(users.c.id == user_id)) is not None:
        raise user_erased(user_id)
    pseudonym = pseudonym or uuid.uuid4()
    shells = [user_id, *(row.id for row in tx.rows(sa.select(users.c.id).where(users.c.merged_into == user_id)))]
    _empty_rows(tx, shells, at)
    for row in tx.rows(sa.select(identities.c.id).where(identities.c.user_id.in_(shells))):
        blank = {"external_id": f"erased:{uuid.uuid4().hex}", "union_id": None}
        tx.execute(identities.update().where(identities.c.id == row.id).values(**blank))
    tx.execute(user_tags.delete().where(user_tags.c.user_id.in_(shells)))
    pair = (merge_suggestions.c.user_id.in_(shells), merge_suggestions.c.other_id.in_(shells))
    tx.execute(merge_suggestions.delete().where(sa.or_(*pair)))
    involved = sa.or_(merges.c.kept_id.in_(shells), merges.c.absorbed_id.in_(shells))
    tx.execute(
        merges.update().where(involved).values(reason="", moved={"identities": [], "tags": {}, "fields": [], "attributes": []})
    )
    strip_events(tx, shells, personal)
    said = {"user": user_id.hex, "pseudonym": pseudonym.hex}
    record_change(tx, "user.erased", user_id, said, at=at, actor=actor, zone=zone)
    return Erased(user_id, pseudonym)


def _empty_rows(tx: Tx, shells: Sequence[uuid.UUID], at: datetime) -> None:
    empty: dict[str, Any] = dict.fromkeys(FIELDS)
    tx.execute(users.update().where(users.c.id.in_(shells)).values(**{**empty, "attributes": {}}, erased_at=at, updated_at=at))


def strip_events(tx: Tx, owners: Sequence[uuid.UUID], personal: Collection[str]) -> int:
    """Remove personal properties of these users' events; digests stay, so a repeat is known. Returns how many changed."""
    everywhere = frozenset(personal)
    marked = {row.type: everywhere.union(row.personal) for row in tx.rows(sa.select(event_types)) if row.personal}
    mine = sa.select(events.c.id, events.c.type, events.c.properties).where(events.c.user_id.in_(owners))
    changed = []
    for row in tx.rows(mine):
        gone = marked.get(row.type, everywhere)
        left = {key: value for key, value in row.properties.items() if key not in gone}
        if len(left) < len(row.properties):
            changed.append({"event": row.id, "left": left})
    if changed:
        statement = events.update().where(events.c.id == sa.bindparam("event")).values(properties=sa.bindparam("left"))
        tx.execute(statement, changed)
    return len(changed)


def export(
    tx: Tx,
    user_id: uuid.UUID,
    plugin_exports: PluginExports | None = None,
    *,
    at: datetime | None = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Everything that is kept of a user, as JSON can hold it: profile, identities, tags, events, merges, plugins.

    With `at` and `actor` an audit line says that it was handed over.

    Raises:
        ScrmError: `USER_NOT_FOUND`.
    """
    user_id = find_user(tx, user_id)
    if actor is not None:
        if at is None:
            raise ScrmError("INVALID_RANGE", "an audited export needs the time it was asked for")
        audit(tx, actor, "user.exported", global_id("User", user_id), at=at)
    profile = tx.rows(sa.select(users).where(users.c.id == user_id))[0]._mapping
    tag = sa.select(
        tags.c.key, tags.c.name, *(user_tags.c[name] for name in ("source", "actor", "reason", "tagged_at", "expires_at"))
    )
    identity = sa.select(channels.c.key.label("channel"), identities.c.external_id, identities.c.union_id, identities.c.linked_at)
    merged = sa.select(
        merges.c.id, merges.c.kept_id, merges.c.absorbed_id, merges.c.reason, merges.c.merged_at, merges.c.undone_at
    )
    mine = sa.or_(merges.c.kept_id == user_id, merges.c.absorbed_id == user_id)
    return {
        "profile": _said(profile),
        "identities": _all(
            tx,
            identity.join(channels, channels.c.id == identities.c.channel_id)
            .where(identities.c.user_id == user_id)
            .order_by(identities.c.id),
        ),
        "tags": _all(
            tx, tag.join(tags, tags.c.id == user_tags.c.tag_id).where(user_tags.c.user_id == user_id).order_by(tags.c.key)
        ),
        "events": _events(tx, user_id),
        "merges": _all(tx, merged.where(mine).order_by(merges.c.id)),
        "plugins": dict(plugin_exports(tx, user_id)) if plugin_exports is not None else {},
    }


_EVENT = ("id", "type", "occurred_at", "received_at", "amount_minor", "currency", "properties", "source", "external_id", "late")


def _events(tx: Tx, user_id: uuid.UUID) -> list[dict[str, Any]]:
    statement = sa.select(*(events.c[name] for name in _EVENT), channels.c.key.label("channel"))
    statement = statement.outerjoin(channels, channels.c.id == events.c.channel_id).where(events.c.user_id == user_id)
    return _all(tx, statement.order_by(events.c.occurred_at, events.c.id))


def _all(tx: Tx, statement: sa.Select[Any]) -> list[dict[str, Any]]:
    return [_said(row._mapping) for row in tx.rows(statement)]


def _said(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {camel(str(name)): _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return value.hex
    if isinstance(value, datetime):
        return instant_text(value)
    return value.isoformat() if isinstance(value, date) else value
