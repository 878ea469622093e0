"""What a request selects: fields merged from fragments, and arguments as parts of a statement.

Variables are replaced by slots before arguments are coerced, so a plan made for one request serves every other of the same shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from graphql import (
    FieldNode,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    OperationDefinitionNode,
    VariableNode,
    Visitor,
    get_named_type,
    get_nullable_type,
    is_list_type,
    is_non_null_type,
    type_from_ast,
    visit,
)
from graphql.execution.collect_fields import FieldDetails, FragmentDetails, collect_subfields
from graphql.execution.values import VariableValues, get_argument_values

from scrm.db import Instant, Json, Text
from scrm.errors import ScrmError
from scrm.graphql.model import Model
from scrm.sql import ListOf, Slot, Value

TYPES: dict[str, Any] = {
    "String": Text,
    "ID": Text,
    "Int": sa.BigInteger(),
    "BigInt": sa.BigInteger(),
    "Float": sa.Float(),
    "DateTime": Instant(),
    "Date": sa.Date(),
    "JSON": Json,
}
PAGE = ("first", "last")


class SizeVariables(Visitor):
    """Finds the variables that size a page: their values, not their shape, belong to a plan."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_argument(self, node: Any, *_: Any) -> None:
        if node.name.value in PAGE and isinstance(node.value, VariableNode):
            self.names.add(node.value.name.value)


KEY_BYTES = 60
"""Longest response key: PostgreSQL cuts the names of columns to 63 bytes."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one document, read once and kept with its plans."""

    schema: GraphQLSchema
    node: OperationDefinitionNode
    fragments: Mapping[str, FragmentDetails]
    types: Mapping[str, GraphQLInputType]
    by_value: frozenset[str]
    leaves: frozenset[str]
    """The variables that are one parameter each, whatever their value."""


def read_operation(schema: GraphQLSchema, node: OperationDefinitionNode, fragments: Mapping[str, FragmentDetails]) -> Operation:
    """What of an operation does not change from request to request."""
    finder = SizeVariables()
    visit(node, finder)
    for fragment in fragments.values():
        visit(fragment.definition, finder)
    types: dict[str, Any] = {d.variable.name.value: type_from_ast(schema, d.type) for d in node.variable_definitions or ()}
    leaves = frozenset(name for name, type_ in types.items() if _is_leaf(type_))
    return Operation(schema, node, fragments, types, frozenset(finder.names), leaves - finder.names)


def _is_leaf(type_: Any) -> bool:
    type_ = get_nullable_type(type_)
    return isinstance(type_, GraphQLScalarType) and type_.name != "Boolean"


def shape(operation: Operation, variables: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of the variables' values decides the statement: enums, booleans, nulls, keys present, page sizes, lengths of
    input lists."""
    parts: list[Any] = []
    for name, type_ in operation.types.items():
        if name not in variables:
            parts.append("absent")
        elif name in operation.leaves:
            parts.append(None if variables[name] is None else "?")
        elif name in operation.by_value:
            parts.append(variables[name])
        else:
            parts.append(_shape(type_, variables[name]))
    return tuple(parts)


def _shape(type_: Any, value: Any) -> Any:
    if value is None:
        return None
    if is_non_null_type(type_):
        type_ = type_.of_type
    if is_list_type(type_):
        item = get_named_type(type_)
        if isinstance(item, GraphQLInputObjectType | GraphQLEnumType) or item.name == "Boolean":
            return ("[]", *(_shape(type_.of_type, each) for each in value))
        return ("[n]", any(each is None for each in value))
    if isinstance(type_, GraphQLInputObjectType):
        return tuple((name, _shape(type_.fields[name].type, each)) for name, each in value.items())
    if isinstance(type_, GraphQLEnumType) or type_.name == "Boolean":
        return ("=", value)
    return "?"


def slots(operation: Operation, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables with every leaf that may differ replaced by its slot."""
    return {
        name: value
        if name in operation.by_value or name not in operation.types
        else _slots(operation.types[name], value, (name,))
        for name, value in variables.items()
    }


def _slots(type_: Any, value: Any, path: tuple[Any, ...]) -> Any:
    if value is None:
        return None
    if is_non_null_type(type_):
        type_ = type_.of_type
    if is_list_type(type_):
        item = get_named_type(type_)
        if isinstance(item, GraphQLInputObjectType | GraphQLEnumType) or item.name == "Boolean":
            return [_slots(type_.of_type, each, (*path, index)) for index, each in enumerate(value)]
        return Slot(path)
    if isinstance(type_, GraphQLInputObjectType):
        return {name: _slots(type_.fields[name].type, each, (*path, name)) for name, each in value.items()}
    if isinstance(type_, GraphQLEnumType) or type_.name == "Boolean":
        return value
    return Slot(path)


class Selection:
    """A walk over one request's selection while its plan is made."""

    def __init__(self, model: Model, operation: Operation, variables: Mapping[str, Any]) -> None:
        self.model = model
        self.operation = operation
        self._values = VariableValues({}, slots(operation, variables))
        self._fragments = dict(operation.fragments)
        self._count = 0

    def fields(self, type_name: str, details: list[FieldDetails]) -> Iterator[tuple[str, str, list[FieldDetails]]]:
        """Response key, field name and nodes of every field selected on a type."""
        type_: Any = self.operation.schema.type_map[type_name]
        assert isinstance(type_, GraphQLObjectType)
        collected = collect_subfields(self.operation.schema, self._fragments, self._values, self.operation.node, type_, details)
        for key, nodes in collected.grouped_field_set.items():
            if len(key) > KEY_BYTES:
                said = f"the response key {key[:20]}… is longer than {KEY_BYTES} characters; use a shorter alias"
                raise ScrmError("RESPONSE_KEY_TOO_LONG", said)
            yield key, nodes[0].node.name.value, nodes

    def arguments(self, definition: GraphQLField, node: FieldNode) -> dict[str, Any]:
        """A field's arguments: enums and booleans as values, leaves as parameters, inputs as mappings by their Python names."""
        if not definition.args:
            return {}
        coerced = get_argument_values(definition, node, self._values)
        return {
            name: value if name in PAGE else self._value(definition.args[name].type, value) for name, value in coerced.items()
        }

    def _value(self, type_: Any, raw: Any) -> Any:
        if raw is None:
            return None
        if is_non_null_type(type_):
            return self._value(type_.of_type, raw)
        named = get_named_type(type_)
        if isinstance(named, GraphQLInputObjectType):
            if is_list_type(type_):
                return [self._value(type_.of_type, each) for each in raw]
            names = self.model.python_names[named.name]
            return Given(named.name, {names[name]: self._value(named.fields[name].type, each) for name, each in raw.items()})
        if isinstance(named, GraphQLEnumType) or named.name == "Boolean":
            return raw
        item = TYPES.get(named.name, Text)
        slot = raw if isinstance(raw, Slot) else Slot(constant=raw)
        self._count += 1
        return Value.make(f"v{self._count}", slot, ListOf(item) if is_list_type(type_) else item)


class Given(dict[str, Any]):
    """An input object's fields that were given, by their Python names; absent ones read as None."""

    def __init__(self, type_name: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.type_name = type_name

    def __missing__(self, name: str) -> None:
        return None
