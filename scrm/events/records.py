"""What an event looks like on its way into the log and out of it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Protocol

from scrm.errors import UserError
from scrm.uuids import uuid_of


@dataclass(frozen=True, slots=True)
class IdentityRef:
    """A person as a channel knows them."""

    channel: str
    external_id: str


class LikeIdentityRef(Protocol):
    """What looks as an `IdentityRef` does."""

    @property
    def channel(self) -> str: ...
    @property
    def external_id(self) -> str: ...


class LikeNewEvent(Protocol):
    """What looks as a `NewEvent` does."""

    @property
    def type(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def external_id(self) -> str: ...
    @property
    def occurred_at(self) -> datetime: ...
    @property
    def user_id(self) -> uuid.UUID | None: ...
    @property
    def identity(self) -> LikeIdentityRef | None: ...
    @property
    def union_id(self) -> str | None: ...
    @property
    def channel(self) -> str | None: ...
    @property
    def amount_minor(self) -> int | None: ...
    @property
    def currency(self) -> str | None: ...
    @property
    def properties(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class NewEvent:
    """What a caller says happened. `amount_minor` is in the currency's minor unit; `occurred_at` is aware.

    Either `user_id`, or `identity`, or neither for a type that is registered without a user.
    """

    type: str
    source: str
    external_id: str
    occurred_at: datetime
    user_id: uuid.UUID | None = None
    identity: IdentityRef | None = None
    union_id: str | None = None
    channel: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


class RecordStatus(StrEnum):
    """What became of one item of a batch."""

    ACCEPTED = "ACCEPTED"
    DUPLICATE = "DUPLICATE"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class RecordResult:
    """The answer to one item: the event's id unless it was rejected, the reasons if it was."""

    index: int
    status: RecordStatus
    event_id: uuid.UUID | None = None
    errors: tuple[UserError, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """An event as a handler sees it. `user_id` is its owner as of its position; `position` is 0 while it has none (a
    decision's)."""

    id: uuid.UUID
    position: int
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
    cause_id: uuid.UUID | None = None
    depth: int = 0
    backfill: bool = False

    @property
    def order_id(self) -> str:
        """The id of the order that it speaks of, as its source says it: at most 200 characters, a hash of a longer one. An event
        that names none is an order of its own."""
        said = str(self.properties.get("orderId") or f"event:{self.id.hex}")
        if len(said) <= _LONGEST_ORDER_ID:
            return said
        return f"long:{hashlib.blake2b(said.encode(), digest_size=16).hexdigest()}"


_LONGEST_ORDER_ID = 200
"""An index takes no endless text."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """An event that a handler records as an effect: `cause` is the event being handled, `key` tells several of one cause
    apart."""

    type: str
    cause: Event
    user_id: uuid.UUID | None
    properties: Mapping[str, Any]
    key: str = "0"
    amount_minor: int | None = None
    currency: str | None = None


def derive_id(cause: uuid.UUID, *parts: object) -> uuid.UUID:
    """An id that follows from an event's: the same on every replay, and sorting beside its cause.

    The first 48 bits (the time) are the cause's, the rest is a hash of the cause and `parts`; it has the form of a UUIDv7.
    """
    said = "\x1f".join([cause.hex, *map(str, parts)])
    digest = int.from_bytes(hashlib.blake2b(said.encode(), digest_size=10).digest())
    return uuid_of(cause.int & _TIME | digest & _RANDOM | _UUID7)


_TIME = (2**48 - 1) << 80
_RANDOM = 2**80 - 1 & ~(0xF << 76) & ~(0x3 << 62)
_UUID7 = 0x7 << 76 | 0x2 << 62
