"""A filter given to a mutation, as a query for the rows it means."""

from __future__ import annotations

from enum import Enum
from itertools import count
from typing import Any

import sqlalchemy as sa
import strawberry
from graphql import GraphQLInputObjectType, get_named_type, is_list_type, is_non_null_type

from scrm.errors import ScrmError
from scrm.graphql.context import Context
from scrm.graphql.filters import Filters
from scrm.graphql.selection import TYPES, Given
from scrm.sql import ListOf, Row, Slot, Value, settled


def matching(context: Context, given: Any, table: sa.Table) -> sa.Select[Any]:
    """The ids of the table's rows that the caller's filter means; ready to run in a transaction.

    Raises:
        ScrmError: FORBIDDEN where the filter needs a scope the caller does not have.
    """
    alias = table.alias("matched_row")
    return sa.select(alias.c.id).select_from(alias).where(_condition(context, given, Row(dict(table.c), "matched_row")))


def condition_of(context: Context, given: Any, table: sa.Table) -> sa.ColumnElement[bool]:
    """The caller's filter as a condition on the table itself.

    Raises:
        ScrmError: FORBIDDEN where the filter needs a scope the caller does not have.
    """
    condition: sa.ColumnElement[bool] = _condition(context, given, Row(dict(table.c), table.name))
    return condition


def _condition(context: Context, given: Any, row: Row) -> Any:
    model, grants = context.plans.model, context.grants

    def permit(scope: str | None, what: str, personal: bool) -> None:
        for needed in (scope, "pii:read" if personal else None):
            if needed is not None and not grants.has(needed):
                raise ScrmError("FORBIDDEN", f"{what} needs the scope {needed}", params={"scope": needed})

    name = given.__strawberry_definition__.name
    values = _given(context, model.schema.type_map[name], given, count())
    return settled(Filters(model, permit, grants.pii).condition(row, values), context.moment)


def _given(context: Context, type_: Any, raw: Any, numbers: Any) -> Any:
    if raw is None or isinstance(raw, bool | Enum):
        return raw
    if is_non_null_type(type_):
        return _given(context, type_.of_type, raw, numbers)
    named = get_named_type(type_)
    if is_list_type(type_) and (isinstance(named, GraphQLInputObjectType) or any(isinstance(each, Enum | bool) for each in raw)):
        return [_given(context, type_.of_type, each, numbers) for each in raw]
    if isinstance(named, GraphQLInputObjectType):
        names = context.plans.model.python_names[named.name]
        said = {name: getattr(raw, name) for name in names.values() if getattr(raw, name) is not strawberry.UNSET}
        types = {names[key]: field.type for key, field in named.fields.items()}
        return Given(named.name, {name: _given(context, types[name], value, numbers) for name, value in said.items()})
    item = TYPES.get(named.name, sa.Text())
    return Value.make(f"m{next(numbers)}", Slot(constant=raw), ListOf(item) if is_list_type(type_) else item)
