"""What can be said of an event before the database is asked: the same for every door."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import msgspec

from scrm.errors import ScrmError, UserError
from scrm.events.log import CORE, change_event_types, digest_of
from scrm.events.payloads import Payload
from scrm.events.records import LikeNewEvent
from scrm.money import is_code
from scrm.plugin import EventType
from scrm.text import MAX_KEY, check_external_id, is_junk_id, json_problem, text_problem

MAX_TYPE = 100
"""Longest event type, in characters."""

MAX_AMOUNT = 10**15
"""Largest amount of one event, in minor units: sums over any log stay within 64 bits."""

RESERVED_SOURCES = ("mutation:", "plugin:", "config:", "job:")
"""What the sources of the host's own events begin with."""

_TYPE = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
_CHANGES = frozenset(change.name for change in change_event_types)


class IngestSettings(Protocol):
    """The settings that recording depends on."""

    @property
    def zone(self) -> ZoneInfo: ...
    @property
    def auto_merge(self) -> bool: ...
    @property
    def late_after_days(self) -> int: ...
    @property
    def max_ahead_hours(self) -> int: ...


class Checked(msgspec.Struct, frozen=True):
    """An event in which nothing is wrong as far as it can be seen without the database. `digest` is of what the caller said."""

    index: int
    type: str
    key: tuple[str, str]
    digest: str
    user_id: uuid.UUID | None
    identity: tuple[str, str] | None
    union_id: str | None
    channel: str | None
    occurred_at: datetime
    business_date: date
    late: bool
    amount_minor: int | None
    currency: str | None
    properties: Mapping[str, Any]


class Checker:
    """Checks one event at a time; every problem of an event is told at once."""

    def __init__(self, settings: IngestSettings, types: Mapping[str, EventType]) -> None:
        self._zone = settings.zone
        self._late = timedelta(days=settings.late_after_days)
        self._ahead = timedelta(hours=settings.max_ahead_hours)
        self._ahead_hours = settings.max_ahead_hours
        self._payloads = {name: Payload(known.payload) for name, known in types.items()}
        self._own = frozenset(name for name, known in types.items() if known.own)
        self._without_user = frozenset(name for name, known in types.items() if known.without_user)

    def knows(self, type_: str) -> bool:
        """Whether somebody who is active has registered this event type."""
        return type_ in self._payloads

    def check(self, index: int, event: LikeNewEvent, at: datetime) -> Checked | tuple[UserError, ...]:
        """The event ready to record, or everything that is wrong with it; `at` is when it was received."""
        errors: list[UserError] = []
        _check_text(event, errors)
        if errors:
            return tuple(errors)
        self._check_type(event, errors)
        _check_key(event, errors)
        identity, union_id = _check_person(event, event.type in self._without_user, errors)
        occurred_at = self._check_time(event, at, errors)
        _check_amount(event, errors)
        self._check_properties(event, errors)
        if errors:
            return tuple(errors)
        channel = event.channel if event.channel is not None else identity[0] if identity is not None else None
        user = event.user_id.hex if event.user_id is not None else None
        said = (
            *(event.type, user, identity, union_id, channel, occurred_at),
            *(event.amount_minor, event.currency, event.properties),
        )
        return Checked(
            index=index,
            type=event.type,
            key=(event.source, event.external_id),
            digest=digest_of(said),
            user_id=event.user_id,
            identity=identity,
            union_id=union_id,
            channel=channel,
            occurred_at=occurred_at,
            business_date=occurred_at.astimezone(self._zone).date(),
            late=at - occurred_at > self._late,
            amount_minor=event.amount_minor,
            currency=event.currency,
            properties=event.properties,
        )

    def _check_type(self, event: LikeNewEvent, errors: list[UserError]) -> None:
        if event.type in _CHANGES:
            said = f"events of type {event.type} are recorded by the core itself; use the mutation that makes the change"
            errors.append(UserError("RESERVED_TYPE", said, ("type",), {"type": event.type}))
        elif event.type in self._own:
            errors.append(reserved(event.type))
        elif event.type not in self._payloads and (len(event.type) > MAX_TYPE or not _TYPE.fullmatch(event.type)):
            said = f'the type "{event.type[:MAX_TYPE]}" is not noun.verb in small letters, such as order.paid'
            errors.append(UserError("INVALID_TYPE", said, ("type",), {"type": event.type[:MAX_TYPE]}))

    def _check_time(self, event: LikeNewEvent, at: datetime, errors: list[UserError]) -> datetime:
        moment = event.occurred_at
        try:
            if moment.tzinfo is None:
                raise ValueError
            moment = moment.astimezone(UTC)
        except (ValueError, OverflowError):
            said = f"occurredAt is {moment.isoformat()}; expected a time with its zone, such as 2026-01-02T03:04:05+08:00"
            errors.append(UserError("INVALID_TIME", said, ("occurredAt",)))
            return at
        if moment - at > self._ahead:
            said = f"occurredAt is {moment.isoformat()}, over {self._ahead_hours} hours ahead; check the sender's clock and zone"
            errors.append(UserError("TOO_FAR_AHEAD", said, ("occurredAt",), {"maxAheadHours": self._ahead_hours}))
        elif moment < _EARLIEST:
            said = f"occurredAt is {moment.isoformat()}; nothing before {_EARLIEST.date()} is kept"
            errors.append(UserError("INVALID_TIME", said, ("occurredAt",)))
        return moment

    def _check_properties(self, event: LikeNewEvent, errors: list[UserError]) -> None:
        if not isinstance(event.properties, dict):
            errors.append(UserError("INVALID_PROPERTIES", "properties is not an object", ("properties",)))
            return
        problem = json_problem(event.properties)
        if problem is not None:
            code = "INVALID_TEXT" if "NUL" in problem or "surrogate" in problem else "INVALID_PROPERTIES"
            errors.append(UserError(code, f"properties {problem}", ("properties",)))
            return
        payload = self._payloads.get(event.type)
        if payload is not None:
            for path, problem in payload.problems(event.properties):
                path = ("properties", *path)
                errors.append(UserError("INVALID_PROPERTIES", f"{'.'.join(path)} {problem}", path, {"type": event.type}))


def _check_text(event: LikeNewEvent, errors: list[UserError]) -> None:
    """All texts at once; only if one is wrong, which."""
    identity = event.identity
    who = f"{identity.channel}{identity.external_id}" if identity is not None else ""
    all_texts = f"{event.type}{event.source}{event.external_id}{event.channel}{event.union_id}{event.currency}{who}"
    if text_problem(all_texts) is None:
        return
    texts: dict[tuple[str, ...], str | None] = {
        ("type",): event.type,
        ("source",): event.source,
        ("externalId",): event.external_id,
        ("channel",): event.channel,
        ("unionId",): event.union_id,
        ("amount", "currency"): event.currency,
        ("identity", "channel"): identity.channel if identity is not None else None,
        ("identity", "externalId"): identity.external_id if identity is not None else None,
    }
    for path, text in texts.items():
        problem = text_problem(text) if text is not None else None
        if problem is not None:
            errors.append(UserError("INVALID_TEXT", f"{'.'.join(path)} {problem}", path))


def _check_key(event: LikeNewEvent, errors: list[UserError]) -> None:
    for name, value in (("source", event.source), ("externalId", event.external_id)):
        if not value.strip():
            errors.append(
                UserError("INVALID_KEY", f"{name} is empty; give the event a key of its own within its source", (name,))
            )
        elif len(value) > MAX_KEY:
            said = f"{name} has {len(value)} characters; at most {MAX_KEY} are kept"
            errors.append(UserError("INVALID_KEY", said, (name,), {"length": len(value), "limit": MAX_KEY}))
    if event.source.startswith(RESERVED_SOURCES) or event.source == CORE:
        said = f'the source "{event.source[:MAX_KEY]}" is the host\'s own; name the system that the event comes from'
        errors.append(UserError("RESERVED_SOURCE", said, ("source",)))


def _check_person(event: LikeNewEvent, nobody: bool, errors: list[UserError]) -> tuple[tuple[str, str] | None, str | None]:
    """Who the event says it is about: (channel, external id) and the union id, both trimmed."""
    said = event.identity
    if said is None:
        if event.union_id is not None:
            problem = "unionId ties an identity to a person; send it with the identity"
            errors.append(UserError("INVALID_IDENTITY", problem, ("unionId",)))
        if event.user_id is None and not nobody:
            problem = f"an event of type {event.type} is about somebody; give userId or identity"
            errors.append(UserError("MISSING_USER", problem, ("identity",), {"type": event.type}))
        return None, None
    if event.user_id is not None:
        errors.append(UserError("INVALID_IDENTITY", "give userId or identity, not both", ("identity",)))
    external_id, union_id = said.external_id, event.union_id
    for path, value in ((("identity", "externalId"), external_id), (("unionId",), union_id)):
        if value is None or (len(value) <= MAX_KEY and not is_junk_id(value)):
            continue
        try:
            check_external_id(value, path)
        except ScrmError as error:
            errors.append(error.as_user_error())
    return (said.channel, external_id.strip()), union_id.strip() if union_id is not None else None


def reserved(type_: str) -> UserError:
    """Why an event of a type that is a plugin's own is refused, whether the plugin is active or disabled."""
    said = f"events of type {type_} are recorded by the plugin that defines it; nobody else can say that it happened"
    return UserError("RESERVED_TYPE", said, ("type",), {"type": type_})


def _check_amount(event: LikeNewEvent, errors: list[UserError]) -> None:
    amount, currency = event.amount_minor, event.currency
    if amount is None:
        if currency is not None:
            errors.append(UserError("INVALID_AMOUNT", "there is a currency without an amount; give both or none", ("amount",)))
        return
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= MAX_AMOUNT:
        said = f"the amount is {str(amount)[:40]}; expected a whole number of minor units from 0 to {MAX_AMOUNT}"
        errors.append(UserError("INVALID_AMOUNT", said, ("amount", "amountMinor")))
    if currency is None or not is_code(currency):
        said = f"the currency is {'missing' if currency is None else f'{currency[:40]!r}'}; expected an ISO 4217 code such as CNY"
        errors.append(UserError("INVALID_CURRENCY", said, ("amount", "currency")))
