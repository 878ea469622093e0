"""The frozen schema as the compiler sees it: every compiled type, its fields, where they come from, whose they are, what they
need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
)

from scrm.graphql.sources import (
    KEY,
    ROWS,
    SCOPE,
    BatchSource,
    ColumnSource,
    CombineSource,
    Connection,
    Edge,
    ExpressionSource,
    ManySource,
    NodeIdSource,
    OneSource,
    OperatorSource,
    OrderingSource,
    PageInfo,
    ResolverSource,
    RowType,
    SameRowSource,
    Source,
    WhereSource,
    origin_of,
)

CORE = "core"
KINDS = {
    "String": "text",
    "ID": "text",
    "Int": "int",
    "BigInt": "bigint",
    "Float": "float",
    "Boolean": "bool",
    "DateTime": "datetime",
    "Date": "date",
    "JSON": "json",
}
GENERIC = (Connection, Edge, PageInfo)
LIST_CAP = 1_000
"""No list that is no connection has more items."""


@dataclass(frozen=True, slots=True)
class BoundField:
    """A field of the schema with its source."""

    parent: str
    name: str
    python_name: str
    source: Source
    owner: str
    scope: str | None
    definition: GraphQLField
    kind: str
    target: str | None
    is_list: bool
    is_connection: bool
    nullable: bool
    opens: str | None = None
    """The scope of the rows behind it, needed beside its own."""

    @property
    def place(self) -> str:
        """Its type and its name."""
        return f"{self.parent}.{self.name}"


@dataclass(frozen=True, slots=True)
class BoundInput:
    """A field of a filter or an orderBy with its source."""

    name: str
    python_name: str
    source: Source
    owner: str
    scope: str | None
    type: Any


@dataclass(frozen=True, slots=True)
class Added:
    """The types and the fields on others' types that an owner added."""

    types: list[str]
    fields: list[str]


@dataclass(frozen=True)
class Model:
    """Everything that compiling needs to know of one schema."""

    schema: GraphQLSchema
    fields: Mapping[str, Mapping[str, BoundField]]
    inputs: Mapping[str, Mapping[str, BoundInput]]
    python_names: Mapping[str, Mapping[str, str]]
    rows: Mapping[str, RowType]
    plugins: frozenset[str]
    type_names: Mapping[type, str]
    owned: Mapping[str, Mapping[str, str]]
    personal_keys: dict[str, frozenset[str]] = field(default_factory=dict)

    def mask(self, of: str, names: frozenset[str]) -> None:
        """Take these keys for personal too, before anything is compiled."""
        self.personal_keys[of] = self.personal_keys.get(of, frozenset()) | names

    def added_by(self, owner: str) -> Added:
        """What of the schema is this owner's."""
        types = sorted(name for name, named in self.owned.items() if named.get("*") == owner)
        fields = sorted(
            f"{name}.{key}" for name, named in self.owned.items() for key, whose in named.items() if whose == owner and key != "*"
        )
        return Added(types, fields)

    def root(self, parent: str, name: str) -> BoundField | None:
        """The compiled or scoped field of Query, Mutation or Subscription."""
        return self.fields.get(parent, {}).get(name)


Problem = tuple[str, str]
"""Whose fault it is, and what is wrong."""


def build_model(schema: GraphQLSchema, owners: Mapping[str, Mapping[str, str]]) -> tuple[Model, list[Problem]]:
    """Read the sources off a finished schema; `owners` says whose each type's field is. Returns what is wrong with it too."""
    builder = _Builder(schema, owners)
    for named in schema.type_map.values():
        builder.add(named)
    builder.inherit_filter_scopes()
    model = Model(
        schema,
        builder.fields,
        builder.inputs,
        builder.python_names,
        builder.rows,
        builder.plugins,
        builder.type_names,
        owners,
    )
    return model, builder.problems


class _Builder:
    def __init__(self, schema: GraphQLSchema, owners: Mapping[str, Mapping[str, str]]) -> None:
        self.schema = schema
        self.owner_of = owners
        self.fields: dict[str, dict[str, BoundField]] = {}
        self.inputs: dict[str, dict[str, BoundInput]] = {}
        self.python_names: dict[str, dict[str, str]] = {}
        self.rows: dict[str, RowType] = {}
        self.plugins = frozenset(owner for of_type in owners.values() for owner in of_type.values()) - {CORE}
        self.type_names: dict[type, str] = {}
        self.problems: list[Problem] = []

    def add(self, named: GraphQLNamedType) -> None:
        definition = named.extensions.get("strawberry-definition")
        origin = origin_of(definition)
        if named.name.startswith("__") or definition is None:
            return
        if not (named.description or "").strip():
            self._wrong("type", named.name, "*", "has no description; write its docstring")
        if isinstance(named, GraphQLInputObjectType):
            self._add_input(named)
        elif isinstance(named, GraphQLObjectType):
            if (rows := getattr(origin, ROWS, None)) is not None:
                self._check_rows(named.name, rows)
                self.rows[named.name] = rows
            if isinstance(origin, type):
                self.type_names.setdefault(origin, named.name)
            self._add_object(named, origin)

    def _check_rows(self, name: str, rows: RowType) -> None:
        if rows.owner is None and not rows.public:
            self._wrong("type", name, "*", "does not say whose its rows are; give @rows owner=… or public=True")

    def _wrong(self, kind: str, type_name: str, field_name: str, said: str) -> None:
        owner = self._owner(type_name, field_name)
        where = type_name if field_name == "*" else f"{type_name}.{field_name}"
        self.problems.append((owner, f"{kind} {where}{f' of {owner}' if owner != CORE else ''} {said}"))

    def _owner(self, type_name: str, field_name: str) -> str:
        of_type = self.owner_of.get(type_name, {})
        return of_type.get(field_name) or of_type.get("*", CORE)

    def _add_object(self, named: GraphQLObjectType, origin: Any) -> None:
        compiled = named.name in self.rows or origin in GENERIC
        root = named.name in ("Query", "Mutation", "Subscription")
        bound: dict[str, BoundField] = {}
        for name, definition in named.fields.items():
            strawberry_field: Any = definition.extensions.get("strawberry-definition")
            metadata = getattr(strawberry_field, "metadata", None) or {}
            source = metadata.get(KEY)
            place = ("field", named.name, name)
            if not (definition.description or "").strip():
                self._wrong(*place, "has no description; say what it is in its first argument, or description=…")
            for arg_name, argument in definition.args.items():
                if not (argument.description or "").strip():
                    self._wrong(*place, f"has the argument {arg_name} without a description; say what it is")
            if source is None:
                if compiled:
                    self._wrong(*place, "is of a compiled type and has no source; use column, expression, one, many or batch")
                elif root:
                    self._wrong(*place, "has no scope; declare it with query, mutation or subscription")
                continue
            made = self._bind(named, name, definition, strawberry_field, source, origin)
            bound[name] = made
            if isinstance(source, ManySource) and source.cap > LIST_CAP:
                self._wrong(*place, f"has cap={source.cap}; a list has {LIST_CAP} items at most, so make it a connection")
            if root and made.scope is None:
                self._wrong(*place, "has no scope; say scope=…")
            elif compiled and origin not in GENERIC and made.scope is None and not self._is_public(named.name):
                self._wrong(*place, "has no scope; say scope=… on it, on its class or on @rows")
        self.fields[named.name] = bound

    def _is_public(self, type_name: str) -> bool:
        rows = self.rows.get(type_name)
        return rows is not None and rows.table is None

    def _bind(
        self, named: GraphQLObjectType, name: str, definition: GraphQLField, strawberry_field: Any, source: Source, origin: Any
    ) -> BoundField:
        target = get_named_type(definition.type)
        inner = get_nullable_type(definition.type)
        target_origin = origin_of(target.extensions.get("strawberry-definition"))
        scope = source.scope or getattr(strawberry_field.origin, SCOPE, None)
        if scope is None and self._owner(named.name, name) == self._owner(named.name, "*"):
            scope = getattr(origin, SCOPE, None)  # a type's own fields take its scope; what others add to it says its own
        self._check_column(named.name, name, strawberry_field, source)
        node = _connection_node(target) if target_origin is Connection else target_origin
        opens = None if is_leaf_type(target) else getattr(node, SCOPE, None)
        scope = scope or opens
        owner = self._owner(named.name, name)
        shared = self._owner(named.name, "*") == CORE and named.name != "Subscription"  # whose fields are asked alone
        if owner != CORE and shared and is_non_null_type(definition.type):
            self._wrong("field", named.name, name, "is added to a core type and must be nullable; annotate it with | None")
        return BoundField(
            parent=named.name,
            name=name,
            python_name=strawberry_field.python_name,
            source=source,
            owner=owner,
            scope=scope,
            definition=definition,
            kind=self._kind(named.name, name, definition, source),
            target=None if is_leaf_type(target) else target.name,
            is_list=is_list_type(inner),
            is_connection=target_origin is Connection,
            nullable=not is_non_null_type(definition.type),
            opens=opens if opens != scope else None,
        )

    def _check_column(self, type_name: str, name: str, strawberry_field: Any, source: Source) -> None:
        rows = self.rows.get(type_name)
        if not isinstance(source, ColumnSource) or rows is None or rows.table is None:
            return
        column = source.name or strawberry_field.python_name
        if column not in rows.table.c:
            self._wrong("field", type_name, name, f"shows the column {column}, which {rows.table} has not; check its name")

    def _kind(self, type_name: str, name: str, definition: GraphQLField, source: Source) -> str:
        target = get_named_type(definition.type)
        if isinstance(source, NodeIdSource):
            return "id"
        if not is_leaf_type(target):
            return "object"
        if is_list_type(get_nullable_type(definition.type)):
            return "json"
        if isinstance(target, GraphQLEnumType):
            return "enum"
        kind = KINDS.get(target.name)
        if kind is None and not isinstance(source, BatchSource | ResolverSource):
            said = f"has the scalar {target.name}, which does not compile; use one of {', '.join(KINDS)}"
            self._wrong("field", type_name, name, said)
        return kind or "text"

    def _add_input(self, named: GraphQLInputObjectType) -> None:
        bound: dict[str, BoundInput] = {}
        names: dict[str, str] = {}
        for name, definition in named.fields.items():
            strawberry_field: Any = definition.extensions.get("strawberry-definition")
            names[name] = strawberry_field.python_name
            if not (definition.description or "").strip():
                self._wrong("input field", named.name, name, "has no description; say what it is")
            source = (strawberry_field.metadata or {}).get(KEY)
            if source is not None:
                scope = source.scope or getattr(strawberry_field.origin, SCOPE, None)
                owner = self._owner(named.name, name)
                bound[name] = BoundInput(name, strawberry_field.python_name, source, owner, scope, definition.type)
        self.python_names[named.name] = names
        if bound:
            self.inputs[named.name] = bound

    def inherit_filter_scopes(self) -> None:
        """A filter or an ordering built on a field's own expression needs that field's scope."""
        scopes = {
            bound.source.build: bound.scope
            for of_type in self.fields.values()
            for bound in of_type.values()
            if isinstance(bound.source, ExpressionSource) and bound.scope
        }
        for type_name, of_input in self.inputs.items():
            for name, bound in of_input.items():
                if bound.scope is None and not isinstance(bound.source, CombineSource):
                    scope = scopes.get(getattr(bound.source, "build", None))  # type: ignore[arg-type]
                    if scope is None and bound.owner != CORE:
                        self._wrong("input field", type_name, name, "has no scope; say scope=…")
                    if scope is not None:
                        of_input[name] = BoundInput(bound.name, bound.python_name, bound.source, bound.owner, scope, bound.type)


def _connection_node(target: GraphQLNamedType) -> Any:
    assert isinstance(target, GraphQLObjectType)
    node = get_named_type(target.fields["nodes"].type)
    return getattr(node.extensions.get("strawberry-definition"), "origin", None)


COMPILED = (ManySource, OneSource, SameRowSource)
FILTERS = (OperatorSource, WhereSource, CombineSource, OrderingSource)
