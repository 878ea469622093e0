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
from scrm.events.ingest import Undecoded
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


class _Event(_Input):
    type: str
    occurred_at: datetime
    source: str
    external_id: str
    user_id: str | None = None
    identity: _Identity | None = None
    union_id: str | None = None
    channel: str | None = None
    amount: _Money | None = None
    properties: dict[str, Any] | None = None


_DECODER = msgspec.json.Decoder(_Event)


def decode_event(said: bytes | Mapping[str, Any]) -> NewEvent:
    """The event in a JSON text, or in a mapping that was one.

    Raises:
        ScrmError: `INVALID_JSON`, or the code of the field that is wrong; the first problem only.
    """
    try:
        event = _DECODER.decode(said) if isinstance(said, bytes | bytearray | memoryview) else msgspec.convert(said, _Event)
    except msgspec.ValidationError as error:
        raise _refusal(str(error)) from None
    except RecursionError:
        raise ScrmError("INVALID_JSON", "the event is not JSON: nested too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if _has_half_a_pair(said):
            raise ScrmError("INVALID_TEXT", "the event holds half of a surrogate pair; send valid Unicode") from None
        raise ScrmError("INVALID_JSON", f"the event is not JSON: {error}") from None
    amount, identity = event.amount, event.identity
    return NewEvent(
        type=event.type,
        source=event.source,
        external_id=event.external_id,
        occurred_at=event.occurred_at,
        user_id=None if event.user_id is None else _user_id(event.user_id),
        identity=None if identity is None else IdentityRef(identity.channel, identity.external_id),
        union_id=event.union_id,
        channel=event.channel,
        amount_minor=None if amount is None else _minor(amount.amount_minor),
        currency=None if amount is None else amount.currency,
        properties=event.properties if event.properties is not None else {},
    )


def decode_item(said: bytes | Mapping[str, Any]) -> NewEvent | Undecoded:
    """As `decode_event`, for a batch: what is wrong becomes the answer to this item."""
    try:
        return decode_event(said)
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
