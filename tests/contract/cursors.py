"""What a cursor says, read and written in Python."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import orjson
import sqlalchemy as sa

from scrm.db import Instant, instant_text
from scrm.errors import ScrmError


@dataclass(frozen=True)
class Key:
    """One key of an order."""

    name: str
    type: Any
    descending: bool
    read: Callable[[Any], Any]


def key_text(value: Any) -> str | None:
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, uuid.UUID):
        return value.hex
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return value.isoformat() if isinstance(value, date) else None if value is None else str(value)


def parts(cursor: str, count: int) -> list[str | None]:
    try:
        parts = orjson.loads(cursor)
        if len(parts) == count + 1 and all(part is None or isinstance(part, str) for part in parts):
            return list(parts[:-1])
    except (ValueError, TypeError):
        pass
    raise ScrmError("INVALID_CURSOR", "not one of this list")


def first_instant(cursor: str) -> datetime:
    try:
        return datetime.fromisoformat(orjson.loads(cursor)[-1])
    except (ValueError, TypeError, IndexError, KeyError):
        raise ScrmError("INVALID_CURSOR", "not one of this list") from None


def read_key(text: str | None, key: Key) -> Any:
    if text is None:
        return None
    try:
        kind = key.type
        if isinstance(kind, Instant):
            return datetime.fromisoformat(text)
        if isinstance(kind, sa.Uuid):
            return uuid.UUID(hex=text)
        if isinstance(kind, sa.Date):
            return date.fromisoformat(text)
        if isinstance(kind, sa.Boolean):
            return bool(int(text))
        if isinstance(kind, sa.Integer):
            return int(text)
        return float(text) if isinstance(kind, sa.Numeric | sa.Float) else text
    except ValueError:
        raise ScrmError("INVALID_CURSOR", "not one of this list") from None
