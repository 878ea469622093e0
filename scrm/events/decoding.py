"""An event as JSON says it, with the names of `EventInput`."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from scrm.errors import ScrmError, UserError
from scrm.events.ingest import Item, Undecoded
from scrm.events.records import IdentityRef, NewEvent

_AT = re.compile(r" - at `\$\.?(.*)`$")
_FIELD = re.compile(r"field `([A-Za-z]+)`")
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_USER = "User_"
_CODES = {
    "type": "INVALID_TYPE",
    "source": "INVALID_KEY",
    "externalId": "INVALID_KEY",
    "occurredAt": "INVALID_TIME",
    "amount": "INVALID_AMOUNT",
    "identity": "INVALID_IDENTITY",
    "unionId": "INVALID_IDENTITY",
    "properties": "INVALID_PROPERTIES",
}


class _Input(msgspec.Struct, forbid_unknown_fields=True, rename="camel", gc=False):
    pass


class _Identity(_Input):
    channel: str
    external_id: str


class _Money(_Input):
    amount_minor: int | str
    currency: str


class SaidEvent(_Input):
    """An event as JSON says it. Where nothing in it has to be read further it is taken as it is, for it looks as a `NewEvent`."""

    type: str
    occurred_at: datetime
    source: str
    external_id: str
    user: str | None = msgspec.field(default=None, name="userId")
    identity: _Identity | None = None
    union_id: str | None = None
    channel: str | None = None
    amount: _Money | None = None
    said_properties: dict[str, Any] | None = msgspec.field(default=None, name="properties")

    @property
    def is_plain(self) -> bool:
        """Whether it names nobody by an id and its amount is a number, so that it is what it says."""
        return self.user is None and (self.amount is None or type(self.amount.amount_minor) is int)

    @property
    def user_id(self) -> None:
        """Nobody, where it is plain."""
        return None

    @property
    def amount_minor(self) -> int | None:
        """Its amount, where it is plain."""
        return None if self.amount is None else self.amount.amount_minor  # type: ignore[return-value]

    @property
    def currency(self) -> str | None:
        """Its amount's."""
        return None if self.amount is None else self.amount.currency

    @property
    def properties(self) -> Mapping[str, Any]:
        """Its properties; none where it says null."""
        return self.said_properties if self.said_properties is not None else {}


_DECODER = msgspec.json.Decoder(SaidEvent)


def decode_event(said: bytes | Mapping[str, Any]) -> NewEvent:
    """The event in a JSON text, or in a mapping that was one.

    Raises:
        ScrmError: `INVALID_JSON`, or the code of the field that is wrong; the first problem only.
    """
    return _new_event(_decode(said))


def _decode(said: bytes | Mapping[str, Any]) -> SaidEvent:
    try:
        return _DECODER.decode(said) if isinstance(said, bytes | bytearray | memoryview) else msgspec.convert(said, SaidEvent)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    except RecursionError:
        raise ScrmError("INVALID_JSON", "the event is not JSON: nested too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if _has_half_a_pair(said):
            raise ScrmError("INVALID_TEXT", "the event holds half of a surrogate pair; send valid Unicode") from None
        raise ScrmError("INVALID_JSON", f"the event is not JSON: {error}") from None


def _new_event(event: SaidEvent) -> NewEvent:
    amount, identity = event.amount, event.identity
    return NewEvent(
        type=event.type,
        source=event.source,
        external_id=event.external_id,
        occurred_at=event.occurred_at,
        user_id=None if event.user is None else _user_id(event.user),
        identity=None if identity is None else IdentityRef(identity.channel, identity.external_id),
        union_id=event.union_id,
        channel=event.channel,
        amount_minor=None if amount is None else _minor(amount.amount_minor),
        currency=None if amount is None else amount.currency,
        properties=event.properties,
    )


def decode_item(said: bytes | Mapping[str, Any]) -> Item:
    """As `decode_event`, for a batch: what is wrong becomes the answer to this item."""
    try:
        event = _decode(said)
        return event if event.is_plain else _new_event(event)
    except ScrmError as error:
        return Undecoded((error.as_user_error(),))


def undecoded(code: str, message: str) -> Undecoded:
    """An item that is refused before it is read."""
    return Undecoded((UserError(code, message),))


def _minor(said: int | str) -> int:
    """BigInt: a number, or text where a number would lose digits."""
    if isinstance(said, int):
        return said
    if not _INTEGER.fullmatch(said):
        path = ("amount", "amountMinor")
        raise ScrmError("INVALID_AMOUNT", f'the amount "{said[:40]}" is not a whole number of minor units', path=path)
    return int(said)


def _user_id(said: str) -> uuid.UUID:
    digits = said.removeprefix(_USER)
    try:
        if len(digits) != 32 or digits == said:
            raise ValueError
        return uuid.UUID(hex=digits)
    except ValueError:
        message = f'userId is "{said[:80]}"; expected {_USER} and 32 hex digits'
        raise ScrmError("INVALID_ID", message, path=("userId",)) from None


def _has_half_a_pair(said: object) -> bool:
    """Whether this would be JSON if halves of surrogate pairs were text."""
    try:
        json.dumps(json.loads(bytes(said)), ensure_ascii=False).encode()  # type: ignore[call-overload]
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def _refusal(message: str) -> ScrmError:
    """msgspec's words as ours: "Expected `str`, got `int` - at `$.identity.channel`"."""
    at = _AT.search(message)
    path = [step for step in re.split(r"[.\[\]]+", at[1]) if step] if at is not None else []
    words = message[: at.start()] if at is not None else message
    field = _FIELD.search(words)
    if field is not None:
        path.append(field[1])
    code = _CODES.get(path[0], "INVALID_INPUT") if path else "INVALID_INPUT"
    if field is not None and "unknown field" in words:
        code = "INVALID_INPUT"
    words = words.replace("`", "")
    return ScrmError(code, f"{'.'.join(path) or 'the event'}: {words[:1].lower()}{words[1:]}", path=path)
