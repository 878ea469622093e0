"""Scalars with one meaning in GraphQL, Python and both databases, and the operators that filter on them."""

from __future__ import annotations

import datetime as dt
from enum import Enum
from typing import Any, NewType

import orjson
import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

from scrm.db import instant_text
from scrm.graphql.enums import enum

BigInt = NewType("BigInt", int)
"""A 64-bit whole number."""

JSON = NewType("JSON", object)
"""Any JSON value."""

SAFE = 2**53 - 1


def _bigint_out(value: Any) -> int | str:
    return value if -SAFE <= value <= SAFE else str(value)


def _bigint_in(value: Any) -> int:
    if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isascii() and value.removeprefix("-").isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise GraphQLError("a BigInt is a whole number within 64 bits, or the same as a string")
    return value


def _instant_in(value: Any) -> dt.datetime:
    try:
        parsed = dt.datetime.fromisoformat(value)
        if parsed.tzinfo is None:
            raise ValueError
        return parsed.astimezone(dt.UTC)
    except (ValueError, TypeError, OverflowError):
        raise GraphQLError("a DateTime is RFC 3339 with a zone, as in 2026-01-02T03:04:05Z") from None


def _date_in(value: Any) -> dt.date:
    try:
        if len(value) != 10:
            raise ValueError
        return dt.date.fromisoformat(value)
    except (ValueError, TypeError):
        raise GraphQLError("a Date is year, month and day, as in 2026-01-02") from None


def _scalar(name: str, description: str, out: Any, into: Any) -> ScalarDefinition:
    return strawberry.scalar(name=name, description=description, serialize=out, parse_value=into)


SCALARS: dict[object, ScalarDefinition] = {
    BigInt: _scalar(
        "BigInt",
        "A 64-bit whole number: a JSON number within ±(2⁵³−1), else a string; both are accepted.",
        _bigint_out,
        _bigint_in,
    ),
    JSON: _scalar("JSON", "Any JSON value.", lambda value: value, lambda value: value),
    dt.datetime: _scalar("DateTime", "An instant, RFC 3339; answered in UTC with microseconds.", instant_text, _instant_in),
    dt.date: _scalar("Date", "A day in the business zone, as in 2026-01-02.", lambda value: value.isoformat(), _date_in),
}


def encode_json(value: Any) -> bytes:
    """The one encoder of answers."""
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


@enum(
    "Which way a list is sorted.",
    ASC="Smallest first; nulls last.",
    DESC="Largest first; nulls last.",
)
class Direction(Enum):
    ASC = "ASC"
    DESC = "DESC"


@enum(
    "How several keys are matched.",
    ANY="At least one of them.",
    ALL="Every one of them.",
    NONE="Not one of them.",
)
class MatchMode(Enum):
    ANY = "ANY"
    ALL = "ALL"
    NONE = "NONE"


def _operator(words: str) -> Any:
    return strawberry.field(description=words, default=strawberry.UNSET)


@strawberry.input(description="Compares text, by code point; every operator that is given must hold.")
class StringFilter:
    eq: str | None = _operator("Equal; null: has no value.")
    ne: str | None = _operator("Not equal; null: has a value.")
    in_: list[str] | None = strawberry.field(name="in", description="One of these.", default=strawberry.UNSET)
    not_in: list[str] | None = _operator("None of these.")
    contains: str | None = _operator("Contains this text, case-sensitive, taken literally.")
    starts_with: str | None = _operator("Starts with this text, case-sensitive, taken literally.")
    is_null: bool | None = _operator("Has no value.")


@strawberry.input(description="Compares whole numbers; every operator that is given must hold.")
class IntFilter:
    eq: BigInt | None = _operator("Equal; null: has no value.")
    ne: BigInt | None = _operator("Not equal; null: has a value.")
    gt: BigInt | None = _operator("Greater than.")
    gte: BigInt | None = _operator("Greater than or equal.")
    lt: BigInt | None = _operator("Less than.")
    lte: BigInt | None = _operator("Less than or equal.")
    in_: list[BigInt] | None = strawberry.field(name="in", description="One of these.", default=strawberry.UNSET)
    is_null: bool | None = _operator("Has no value.")


@strawberry.input(description="Compares instants; every operator that is given must hold.")
class DateTimeFilter:
    eq: dt.datetime | None = _operator("Equal; null: has no value.")
    gt: dt.datetime | None = _operator("Later than.")
    gte: dt.datetime | None = _operator("At or later than.")
    lt: dt.datetime | None = _operator("Earlier than.")
    lte: dt.datetime | None = _operator("At or earlier than.")
    is_null: bool | None = _operator("Has no value.")


@strawberry.input(description="Compares days; every operator that is given must hold.")
class DateFilter:
    eq: dt.date | None = _operator("Equal; null: has no value.")
    gt: dt.date | None = _operator("Later than.")
    gte: dt.date | None = _operator("On or later than.")
    lt: dt.date | None = _operator("Earlier than.")
    lte: dt.date | None = _operator("On or earlier than.")
    is_null: bool | None = _operator("Has no value.")


OPERATORS = (StringFilter, IntFilter, DateTimeFilter, DateFilter)
