"""A filter given to a mutation or a subscription, as a condition on the rows it means.

It is read from the request and not from strawberry's input object, which knows nothing of the fields that others added to its
type.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import Enum
from itertools import count
from typing import Any

import sqlalchemy as sa
from graphql import GraphQLEnumType, GraphQLInputObjectType, get_named_type, is_list_type, is_non_null_type
from graphql.execution.values import VariableValues, get_argument_values

from scrm.db import instant_text
from scrm.errors import ScrmError
from scrm.graphql.context import Context, Info
from scrm.graphql.filters import Filters
from scrm.graphql.model import Model
from scrm.graphql.selection import TYPES, Given
from scrm.sql import ListOf, Row, Slot, Value, settled


def matching(info: Info, table: sa.Table, *path: str) -> sa.Select[Any]:
    """The ids of the table's rows that the filter at this path of the field's arguments means; ready to run in a transaction.

    Raises:
        ScrmError: FORBIDDEN where the filter needs a scope the caller does not have.
    """
    alias = table.alias("matched_row")
    condition = _condition(info, Row(dict(table.c), "matched_row"), path)
    return sa.select(alias.c.id).select_from(alias).where(sa.true() if condition is None else condition)


def condition_of(info: Info, table: sa.Table, *path: str) -> sa.ColumnElement[bool] | None:
    """The filter at this path of the field's arguments as a condition on the table itself; None where none was given.

    Raises:
        ScrmError: FORBIDDEN where the filter needs a scope the caller does not have.
    """
    condition: sa.ColumnElement[bool] | None = _condition(info, Row(dict(table.c), table.name), path)
    return condition


def says_nothing(info: Info, *path: str) -> bool:
    """Whether the filter at this path of the field's arguments is there, and means everything because it names nothing."""
    context: Context = info.context
    model = context.plans.model
    values = _given(model, *_at(info, path), count())
    return values is not None and Filters(model, lambda scope, what, personal: None, True).says_nothing(values)


def as_said(info: Info, *path: str) -> Any:
    """What the caller said there as JSON: equal where two callers said the same."""
    return _plain(_at(info, path)[1])


def _plain(said: Any) -> Any:
    if isinstance(said, dict):
        return {name: _plain(value) for name, value in said.items()}
    if isinstance(said, list):
        return [_plain(each) for each in said]
    if isinstance(said, datetime):
        return instant_text(said)
    if isinstance(said, date):
        return said.isoformat()
    return said.value if isinstance(said, Enum) else said


def _at(info: Info, path: tuple[str, ...]) -> tuple[Any, Any]:
    """The GraphQL type and the coerced value at a path of the field's arguments."""
    raw = info._raw_info
    definition = raw.parent_type.fields[raw.field_name]
    variables: Any = raw.variable_values
    known = variables if isinstance(variables, VariableValues) else VariableValues({}, variables)
    values = get_argument_values(definition, raw.field_nodes[0], known)
    type_: Any = definition.args[path[0]].type
    value: Any = values.get(path[0])
    for name in path[1:]:
        type_ = get_named_type(type_).fields[name].type
        value = value.get(name) if value is not None else None
    return type_, value


def _condition(info: Info, row: Row, path: tuple[str, ...]) -> Any:
    context: Context = info.context
    model, grants = context.plans.model, context.grants

    def permit(scope: str | None, what: str, personal: bool) -> None:
        for needed in (scope, "pii:read" if personal else None):
            if needed is not None and not grants.has(needed):
                raise ScrmError("FORBIDDEN", f"{what} needs the scope {needed}", params={"scope": needed})

    values = _given(model, *_at(info, path), count())
    return None if values is None else settled(Filters(model, permit, grants.pii).condition(row, values), context.moment)


def _given(model: Model, type_: Any, said: Any, numbers: Any) -> Any:
    if said is None:
        return None
    if is_non_null_type(type_):
        return _given(model, type_.of_type, said, numbers)
    named = get_named_type(type_)
    if isinstance(named, GraphQLInputObjectType):
        if is_list_type(type_):
            return [_given(model, type_.of_type, each, numbers) for each in said]
        names = model.python_names[named.name]
        return Given(
            named.name, {names[key]: _given(model, named.fields[key].type, value, numbers) for key, value in said.items()}
        )
    if isinstance(named, GraphQLEnumType) or named.name == "Boolean":
        return said
    item = TYPES.get(named.name, sa.Text())
    return Value.make(f"m{next(numbers)}", Slot(constant=said), ListOf(item) if is_list_type(type_) else item)
