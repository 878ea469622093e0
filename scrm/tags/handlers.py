"""Rule tags: recomputed from the log for the users of a batch, and for everybody when a rule is saved.

load (who fits which rule, who has which tag) → fold (what is to change) → store.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import Row

from scrm.db import Tx
from scrm.events.log import share_owners
from scrm.events.records import Announcement, Event
from scrm.plugin import HandlerTx
from scrm.tags.models import tag_groups, tags, user_tags
from scrm.tags.rules import TagRule, ends_at, latest_dates, parse_rule
from scrm.tags.tagging import TagSource, UserTag, record_tags, store_rule_tags, unexpired
from scrm.users.models import users

_REOWNING = ("user.merged", "user.unmerged")


@dataclass(frozen=True, slots=True)
class RuleTag:
    """A tag that comes and goes by a rule. `group_id` only if the group is exclusive."""

    id: uuid.UUID
    key: str
    rule: TagRule
    group_id: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class Held:
    """A tag that a user has. `group_id` only if the group is exclusive; `expires_at` None: for ever."""

    user_id: uuid.UUID
    tag_id: uuid.UUID
    key: str
    group_id: uuid.UUID | None
    source: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be written; `tagged` and `untagged` are what people are told: keys by user."""

    given: list[UserTag] = field(default_factory=list)
    taken: list[tuple[uuid.UUID, uuid.UUID]] = field(default_factory=list)
    tagged: dict[uuid.UUID, list[str]] = field(default_factory=lambda: defaultdict(list))
    untagged: dict[uuid.UUID, list[str]] = field(default_factory=lambda: defaultdict(list))


Days = Mapping[uuid.UUID, Mapping[uuid.UUID, date]]
"""By rule tag, by user: the day of the n-th newest matching event."""


def fold(rule_tags: Sequence[RuleTag], days: Days, held: Iterable[Held], at: datetime, zone: ZoneInfo) -> Changes:
    """What the rules change.

    A tag that somebody or something else gave is not touched, except that in an exclusive group a rule's tag replaces what is not
    manual; there the rule with the newest day wins, then the first key.
    """
    known = {tag.id: tag for tag in rule_tags}
    mine: dict[uuid.UUID, list[Held]] = defaultdict(list)
    for row in held:
        mine[row.user_id].append(row)
    fitting: dict[uuid.UUID, list[tuple[RuleTag, date]]] = defaultdict(list)
    for tag in rule_tags:
        for user_id, day in days.get(tag.id, {}).items():
            if ends_at(day, tag.rule, zone) > at:
                fitting[user_id].append((tag, day))
    changes = Changes()
    for user_id in sorted(mine.keys() | fitting.keys()):
        _fold_user(user_id, known, _winners(fitting[user_id], mine[user_id], at), mine[user_id], changes, at, zone)
    return changes


def _winners(
    fitting: Sequence[tuple[RuleTag, date]], held: Sequence[Held], at: datetime
) -> dict[uuid.UUID, tuple[RuleTag, date]]:
    manual = {
        row.group_id: row.tag_id
        for row in held
        if row.source == TagSource.MANUAL and row.group_id is not None and _holds(row, at)
    }
    won: dict[uuid.UUID, tuple[RuleTag, date]] = {}
    for tag, day in sorted(fitting, key=lambda pair: (-pair[1].toordinal(), pair[0].key)):
        if tag.group_id is None:
            won[tag.id] = tag, day
        elif manual.get(tag.group_id, tag.id) == tag.id:
            won.setdefault(tag.group_id, (tag, day))
    return {tag.id: (tag, day) for tag, day in won.values()}


def _fold_user(
    user_id: uuid.UUID,
    known: Mapping[uuid.UUID, RuleTag],
    won: Mapping[uuid.UUID, tuple[RuleTag, date]],
    held: Sequence[Held],
    changes: Changes,
    at: datetime,
    zone: ZoneInfo,
) -> None:
    groups = {tag.group_id for tag, _ in won.values() if tag.group_id is not None}
    has = {row.tag_id: row for row in held if _holds(row, at)}
    for row in held:
        ended = row.source == TagSource.RULE and row.tag_id in known
        if row.tag_id not in won and (ended or row.group_id in groups):
            changes.taken.append((user_id, row.tag_id))
            if row.tag_id in has:
                changes.untagged[user_id].append(row.key)
    for tag, day in won.values():
        expires_at, now = ends_at(day, tag.rule, zone), has.get(tag.id)
        if now is None:
            changes.given.append(UserTag(user_id, tag.id, expires_at))
            changes.tagged[user_id].append(tag.key)
        elif now.source == TagSource.RULE and now.expires_at != expires_at:
            changes.given.append(UserTag(user_id, tag.id, expires_at))


def _holds(row: Held, at: datetime) -> bool:
    return row.expires_at is None or row.expires_at > at


def follow_rules(tx: HandlerTx, batch: Sequence[Event], present: Mapping[uuid.UUID, uuid.UUID], zone: ZoneInfo) -> None:
    """Recompute rule tags for the users of a batch, from the log up to its end. `present` says who an event's user is now."""
    rule_tags = load_rule_tags(tx)
    types = {name for tag in rule_tags for name in tag.rule.types}
    causes: dict[uuid.UUID, Event] = {}
    seen: set[str] = set()
    for event in batch:
        if event.type not in types and event.type not in _REOWNING:
            continue
        seen.add(event.type)
        for said in _people(event):
            if said in present:
                causes[present[said]] = event
    if not causes:
        return
    touched = [tag for tag in rule_tags if seen.intersection(tag.rule.types) or seen.intersection(_REOWNING)]
    groups = {tag.group_id for tag in touched if tag.group_id is not None}
    wanted = [tag for tag in rule_tags if tag in touched or tag.group_id in groups]
    at, position = max(event.received_at for event in batch), max(event.position for event in batch)
    days = {
        tag.id: latest_dates(tx, tag.rule, on=at.astimezone(zone).date(), users=sorted(causes), position=position or None)
        for tag in wanted
    }
    changes = fold(wanted, days, load_held(tx, wanted, user_tags.c.user_id.in_(sorted(causes))), at, zone)
    store_rule_tags(tx, changes.given, changes.taken, at=at)
    for type, keys in (("user.untagged", changes.untagged), ("user.tagged", changes.tagged)):
        for user_id, lost_or_got in keys.items():
            said_of = {"tags": sorted(lost_or_got), "source": TagSource.RULE.value}
            tx.announce(Announcement(type, causes[user_id], user_id, said_of, key=user_id.hex))


def _people(event: Event) -> list[uuid.UUID]:
    if event.type in _REOWNING:
        return [uuid.UUID(event.properties["kept"]), uuid.UUID(event.properties["absorbed"])]
    return [event.user_id] if event.user_id is not None else []


def recompute_tag(tx: Tx, tag_id: uuid.UUID, *, as_of: datetime, zone: ZoneInfo) -> int:
    """Compute a rule tag for everybody, as of an instant; returns how many users it came to or left. An archived tag stays."""
    rule_tags = load_rule_tags(tx)
    this = next((tag for tag in rule_tags if tag.id == tag_id), None)
    if this is None:
        return 0
    share_owners(tx)
    wanted = [tag for tag in rule_tags if tag == this or (this.group_id is not None and tag.group_id == this.group_id)]
    live = {row.id for row in tx.rows(sa.select(users.c.id).where(users.c.merged_into.is_(None), users.c.erased_at.is_(None)))}
    days = {}
    for tag in wanted:
        found = latest_dates(tx, tag.rule, on=as_of.astimezone(zone).date(), until=as_of)
        days[tag.id] = {user_id: day for user_id, day in found.items() if user_id in live}
    changes = fold(wanted, days, load_held(tx, wanted), as_of, zone)
    return _store_for_all(tx, changes, at=as_of, zone=zone)


def drop_rule_tags(tx: Tx, tag_id: uuid.UUID, *, at: datetime, zone: ZoneInfo) -> int:
    """Take away what a tag's former rule gave; returns from how many users."""
    share_owners(tx)
    own = user_tags.c
    holds = unexpired(user_tags, at)
    mine = sa.select(own.user_id, tags.c.key, holds.label("holds")).join(tags, tags.c.id == own.tag_id)
    rows = tx.rows(mine.where(own.tag_id == tag_id, own.source == TagSource.RULE.value).order_by(own.user_id))
    untagged = {row.user_id: [row.key] for row in rows if row.holds}
    taken = [(row.user_id, tag_id) for row in rows]
    return _store_for_all(tx, Changes(taken=taken, untagged=untagged), at=at, zone=zone)


def _store_for_all(tx: Tx, changes: Changes, *, at: datetime, zone: ZoneInfo) -> int:
    store_rule_tags(tx, changes.given, changes.taken, at=at)
    record_tags(tx, "user.untagged", changes.untagged, TagSource.RULE, at=at, zone=zone)
    record_tags(tx, "user.tagged", changes.tagged, TagSource.RULE, at=at, zone=zone)
    return len(changes.tagged.keys() | changes.untagged.keys())


def load_rule_tags(tx: Tx) -> list[RuleTag]:
    """Every tag that has a rule and is not archived, by key."""
    statement = (
        sa.select(tags.c.id, tags.c.key, tags.c.rule, sa.case((tag_groups.c.exclusive, tags.c.group_id)).label("group_id"))
        .outerjoin(tag_groups, tag_groups.c.id == tags.c.group_id)
        .where(tags.c.rule.is_not(None), tags.c.archived.is_(False))
        .order_by(tags.c.key)
    )
    return [RuleTag(row.id, row.key, parse_rule(row.rule), row.group_id) for row in tx.rows(statement)]


def load_held(tx: Tx, rule_tags: Sequence[RuleTag], whose: sa.ColumnElement[bool] | None = None) -> list[Held]:
    """Who has these tags, or others of their exclusive groups."""
    own = user_tags.c
    group = sa.case((tag_groups.c.exclusive, tags.c.group_id)).label("group_id")
    groups: Collection[uuid.UUID] = {tag.group_id for tag in rule_tags if tag.group_id is not None}
    among = sa.or_(own.tag_id.in_([tag.id for tag in rule_tags]), tags.c.group_id.in_(groups))
    statement = (
        sa.select(own.user_id, own.tag_id, tags.c.key, group, own.source, own.expires_at)
        .join(tags, tags.c.id == own.tag_id)
        .outerjoin(tag_groups, tag_groups.c.id == tags.c.group_id)
        .where(among if whose is None else sa.and_(among, whose))
    )
    return [_held(row) for row in tx.rows(statement)]


def _held(row: Row[Any]) -> Held:
    return Held(row.user_id, row.tag_id, row.key, row.group_id, row.source, row.expires_at)
