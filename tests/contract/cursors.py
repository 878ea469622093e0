"""What a cursor says, read and written in Python."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Callable, Sequence
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


def mark(place: str, keys: Sequence[Key]) -> str:
    """What the cursors of a list in this order have in common."""
    words = [place]
    for key in keys:
        words.append(key.name.strip("<>") + "+-"[key.descending])
    return hex(zlib.crc32(bytes(" ".join(words), "ascii")))[2:].rjust(8, "0")


def parts(cursor: str, mark: str, count: int) -> list[str | None]:
    try:
        first, *parts, _ = orjson.loads(cursor)
        if first == mark and len(parts) == count and all(part is None or isinstance(part, str) for part in parts):
            return list(parts)
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
