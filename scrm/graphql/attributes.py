"""Filters on a JSON object's keys: attributes of users, properties of events."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
import strawberry

from scrm.db import Text
from scrm.graphql.filters import operators
from scrm.graphql.scalars import DateFilter, IntFilter, StringFilter
from scrm.sql import Value, day_text, json_kind, json_text


@strawberry.input(
    description="Compares the value at one key; every operator that is given must hold. An absent key is a missing value."
)
class AttributeFilter:
    key: str = strawberry.field(description="The key.")
    string: StringFilter | None = strawberry.field(description="If the value is text.", default=strawberry.UNSET)
    number: IntFilter | None = strawberry.field(description="If the value is a number.", default=strawberry.UNSET)
    boolean: bool | None = strawberry.field(description="If the value is true or false.", default=strawberry.UNSET)
    date: DateFilter | None = strawberry.field(
        description="If the value is text that starts with a day, as 2026-01-02.", default=strawberry.UNSET
    )


def matches(document: sa.ColumnElement[Any], given: list[Any]) -> sa.ColumnElement[bool]:
    """All of these attribute filters hold for a JSON object."""
    return sa.and_(sa.true(), *(_matches(document, each) for each in given))


def _matches(document: sa.ColumnElement[Any], given: Any) -> sa.ColumnElement[bool]:
    key = given["key"]
    kind, text = json_kind(document, key), json_text(document, key)
    conditions: list[sa.ColumnElement[bool]] = []
    if given["string"] is not None:
        conditions.append(operators(sa.case((kind == "string", sa.type_coerce(text, Text))), given["string"]))
    if given["number"] is not None:
        conditions.append(operators(sa.case((kind == "number", sa.cast(text, sa.Numeric()))), given["number"]))
    if given["boolean"] is not None:
        conditions.append(sa.and_(kind == "boolean", text == ("true" if given["boolean"] else "false")))
    if given["date"] is not None:
        day = sa.case((kind == "string", day_text(text)))
        conditions.append(operators(day, {name: _day_text(value) for name, value in given["date"].items()}))
    return sa.and_(sa.true(), *conditions)


def _day_text(value: Any) -> Any:
    return value.converted("day", Text, lambda day, _: day.isoformat()) if isinstance(value, Value) else value
