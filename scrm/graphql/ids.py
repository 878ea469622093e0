"""Global ids: `Type_` and the key's 32 hex digits."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from scrm.db import Id
from scrm.errors import ScrmError
from scrm.sql import ListOf, Value

_KEY = re.compile("[0-9a-fA-F]{32}", re.ASCII)


def node_id(type_name: str, value: str, path: Sequence[str] = ("id",)) -> uuid.UUID:
    """The key in a global id, which the caller gave at `path`.

    Raises:
        ScrmError: INVALID_ID if it is not an id of that type.
    """
    kind, _, key = value.rpartition("_")
    try:
        if kind != type_name or not _KEY.fullmatch(key):
            raise ValueError
        return uuid.UUID(hex=key)
    except ValueError:
        said = f"the id {value[:100]!r} is not an id of {type_name}; ids look like {type_name}_ and 32 hex digits"
        raise ScrmError("INVALID_ID", said, path=path) from None


def as_node_id(value: Value, type_name: str) -> Value:
    """A global id given by the caller, as the key of that type."""
    return value.converted("id", Id, lambda text, _: node_id(type_name, text))


def as_node_ids(value: Value, type_name: str) -> Value:
    """A list of global ids given by the caller, as keys of that type."""
    return value.converted("ids", ListOf(Id), lambda texts, _: [node_id(type_name, text) for text in texts])


def global_id(type_name: str, key: uuid.UUID) -> str:
    """`Type_` and 32 hex digits."""
    return f"{type_name}_{key.hex}"


def global_id_of(type_name: str, key: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """The global id of a row that a column names, in SQL."""
    hexed = sa.func.lower(sa.func.replace(sa.cast(sa.type_coerce(key, sa.Text()), sa.Text), "-", ""))
    return sa.literal(f"{type_name}_", sa.Text()).concat(hexed)
