"""UUIDs in numbers: made without the checks that `uuid.UUID` makes of what people write."""

from __future__ import annotations

import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

_new = object.__new__
_set_int = vars(uuid.UUID)["int"].__set__
_set_safe = vars(uuid.UUID)["is_safe"].__set__
_SAFE = uuid.SafeUUID.unknown


def uuid_of(value: int) -> uuid.UUID:
    """The UUID with this value, which must be one of 128 bits."""
    made = _new(uuid.UUID)
    _set_int(made, value)
    _set_safe(made, _SAFE)
    return made


def uuid_of_hex(digits: str) -> uuid.UUID:
    """The UUID with these 32 hex digits, as the database keeps it."""
    return uuid_of(int(digits, 16))


class Uuids(sa.Uuid[uuid.UUID]):
    """`sqlalchemy.Uuid`, read quickly where the database has no such type."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        if dialect.supports_native_uuid:
            return super().result_processor(dialect, coltype)  # type: ignore[no-untyped-call]
        return lambda value: None if value is None else uuid_of_hex(value)
