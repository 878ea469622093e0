"""The same sources read the slow way: graphql-core's executor, a field of a row at a time; orders, pages and filters in Python.

Nothing here comes from the compiler. SQL is asked only for what a source says in SQL (an expression of one row, the rows of a
relation); the parent's columns are its values, so there is nothing to correlate.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cmp_to_key
from typing import Any

import orjson
import sqlalchemy as sa
from graphql import (
    DocumentNode,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLSchema,
    build_schema,
    execute,
    get_named_type,
    is_list_type,
    is_non_null_type,
    print_schema,
)
from sqlalchemy.sql.elements import BindParameter, UnaryExpression
from sqlalchemy.sql.visitors import replacement_traverse

from scrm.db import Instant, Json, Text, Tx, instant_text
from scrm.errors import ScrmError
from scrm.graphql import sources
from scrm.sql import ListOf, Moment, Row, Slot, Value
from tests.contract.cursors import Key, first_instant, key_text, mark, parts, read_key
from tests.contract.predicates import Predicates

TYPES: dict[str, Any] = {
    "String": Text, "ID": Text, "Int": sa.BigInteger(), "BigInt": sa.BigInteger(), "Float": sa.Float(),
    "DateTime": Instant(), "Date": sa.Date(), "JSON": Json, "Boolean": sa.Boolean(),
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """What a request is answered for."""

    moment: Moment
    language: str
    pii: bool


@dataclass
class Outcome:
    """Data and errors (path and code) of a request."""

    data: Any
    errors: list[tuple[tuple[Any, ...], str]] = field(default_factory=list)


class Item:
    """An object: its type, its values by column, and their SQL types."""

    def __init__(self, type_name: str, values: Mapping[str, Any], types: Mapping[str, Any], key: Any) -> None:
        self.type_name = type_name
        self.values = values
        self.types = types
        self.key = key

    @property
    def c(self) -> Any:
        return _Literals(self)


class _Literals:
    """An object's columns as SQL values."""

    def __init__(self, item: Item) -> None:
        self._item = item

    def __getattr__(self, name: str) -> Any:
        return sa.literal(self._item.values[name], self._item.types[name])

    __getitem__ = __getattr__


@dataclass
class Page:
    """What a connection resolves to."""

    type_name: str
    node_type: str
    items: list[Item]
    cursors: Callable[[Item], str]
    total: int
    before: bool
    after: bool


class Interpreter:
    """Answers requests from the rows as they were when it was made."""

    def __init__(self, schema: GraphQLSchema, personal: Mapping[str, frozenset[str]]) -> None:
        self.original = schema
        self.personal = personal
        self.schema = build_schema(print_schema(schema))
        self._memo: dict[Any, Any] = {}
        self.tables: dict[str, dict[Any, dict[str, Any]]] = {}
        self.predicates = Predicates(self)
        for name, out, into in (
            ("DateTime", instant_text, datetime.fromisoformat),
            ("Date", date.isoformat, date.fromisoformat),
            ("BigInt", lambda value: int(value) if abs(int(value)) < 2**53 else str(value), int),
            ("JSON", lambda value: value, lambda value: value),
        ):
            scalar: Any = self.schema.type_map[name]
            scalar.serialize = scalar.coerce_output_value = out
            scalar.parse_value = scalar.coerce_input_value = into
            scalar.parse_literal = scalar.coerce_input_literal = lambda node, *_, into=into: into(_untyped(node))

    def run(self, tx: Tx, document: DocumentNode, variables: Mapping[str, Any], asked: Asked) -> Outcome:
        """Answer one request inside a transaction that reads."""
        return _Run(self, tx, asked).execute(document, variables)

    def source_of(self, type_name: str, name: str) -> tuple[Any, str]:
        """A field's source, and its name in Python."""
        definition: Any = self.original.type_map[type_name].fields[name].extensions["strawberry-definition"]  # type: ignore[attr-defined]
        return (definition.metadata or {}).get(sources.KEY), definition.python_name

    def rows_of(self, type_name: str) -> Any:
        return getattr(self.origin_of(type_name), sources.ROWS)

    def origin_of(self, type_name: str) -> Any:
        return sources.origin_of(self.original.type_map[type_name].extensions.get("strawberry-definition"))

    def table(self, tx: Tx, table: Any) -> dict[Any, dict[str, Any]]:
        """All rows of a table by key."""
        if table.name not in self.tables:
            rows = [dict(row._mapping) for row in tx.rows(sa.select(table))]
            keys = [column.name for column in table.primary_key]
            self.tables[table.name] = {row[keys[0]] if len(keys) == 1 else tuple(row[key] for key in keys): row for row in rows}
        return self.tables[table.name]

    def remember(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]


def _untyped(node: Any) -> Any:
    kind = node.kind
    if kind == "null_value":
        return None
    if kind == "list_value":
        return [_untyped(each) for each in node.values]
    if kind == "object_value":
        return {each.name.value: _untyped(each.value) for each in node.fields}
    return int(node.value) if kind == "int_value" else float(node.value) if kind == "float_value" else node.value


class _Run:
    def __init__(self, interpreter: Interpreter, tx: Tx, asked: Asked) -> None:
        self.i = interpreter
        self.tx = tx
        self.asked = asked
        self.moment = asked.moment

    def execute(self, document: DocumentNode, variables: Mapping[str, Any]) -> Outcome:
        found: Any = execute(
            self.i.schema,
            document,
            variable_values=dict(variables),
            field_resolver=self._resolve,
            type_resolver=lambda value, *_: value.type_name,
        )
        outcome = Outcome(found.data)
        for error in found.errors or ():
            if not isinstance(error.original_error, ScrmError):
                raise error.original_error or error
            path = tuple(error.path)[:1]
            outcome.data[path[0]] = None
            outcome.errors.append((path, error.original_error.code))
        outcome.errors = sorted(set(outcome.errors))
        return outcome

    # ---- fields

    def _resolve(self, parent: Any, info: Any, **given: Any) -> Any:
        type_name, name = info.parent_type.name, info.field_name
        if isinstance(parent, Page | tuple):
            return self._of_page(parent, name)
        source, python_name = self.i.source_of(type_name, name)
        if parent is None:
            self.moment = self.asked.moment
            cursor = given.get("before") or given.get("after")
            if cursor is not None and isinstance(source, sources.ManySource):
                self.moment = self.moment.at(first_instant(cursor))
        if isinstance(source, sources.ResolverSource):
            return self._node(given)
        definition = self.i.original.type_map[type_name].fields[name]  # type: ignore[attr-defined]
        args = self._arguments(source, definition, given)
        if isinstance(source, sources.NodeIdSource):
            return f"{type_name}_{parent.values['id'].hex}"
        if isinstance(source, sources.ColumnSource):
            return self._masked(parent.values[source.name or python_name], source)
        if isinstance(source, sources.ExpressionSource):
            return self._masked(self._expression(source, parent, args, given), source)
        if isinstance(source, sources.BatchSource):
            return self._batch(source, parent, definition, given)
        target = get_named_type(definition.type).name
        if isinstance(source, sources.SameRowSource):
            return self._same_row(source, parent, target, args)
        if isinstance(source, sources.OneSource):
            return self._one(source, parent, target, args)
        self.place = f"{type_name}.{name}"
        return self._many(source, parent, target, args, given)

    def _node(self, given: Mapping[str, Any]) -> Any:
        if "ids" in given:
            return [self._node({"id": each}) for each in given["ids"]]
        type_name, _, key = given["id"].rpartition("_")
        table = self.i.rows_of(type_name).table
        found = self.i.table(self.tx, table).get(uuid.UUID(key))
        if type_name == "User" and found is not None and found["merged_into"] is not None:
            found = self.i.table(self.tx, table)[found["merged_into"]]
        return None if found is None else self._item(type_name, table, found)

    def _item(self, type_name: str, table: Any, row: Mapping[str, Any]) -> Item:
        types = {column.name: column.type for column in table.c}
        return Item(type_name, row, types, (table.name, *(row[column.name] for column in table.primary_key)))

    def _arguments(self, source: Any, definition: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        camel = {name: _camel(name.removesuffix("_")) for name in getattr(source, "arguments", {})}
        return {name: self.value(definition.args[said].type, given.get(said), name) for name, said in camel.items()}

    def value(self, type_: Any, raw: Any, name: str = "x") -> Any:
        """What the caller gave, as a source function takes it."""
        if raw is None:
            return None
        if is_non_null_type(type_):
            return self.value(type_.of_type, raw, name)
        named = get_named_type(type_)
        if is_list_type(type_) and isinstance(named, GraphQLInputObjectType | GraphQLEnumType):
            return [self.value(type_.of_type, each, f"{name}{index}") for index, each in enumerate(raw)]
        if isinstance(named, GraphQLEnumType):
            definition: Any = named.extensions["strawberry-definition"]
            return definition.wrapped_cls[raw]
        if isinstance(named, GraphQLInputObjectType):
            names = {said: each.extensions["strawberry-definition"].python_name for said, each in named.fields.items()}
            return {names[said]: self.value(named.fields[said].type, each, f"{name}_{said}") for said, each in raw.items()}
        if named.name == "Boolean":
            return raw
        kind = TYPES[named.name]
        return Value.make(f"i_{name}", Slot(constant=raw), ListOf(kind) if is_list_type(type_) else kind)

    def _masked(self, value: Any, source: Any) -> Any:
        if self.asked.pii or value is None:
            return value
        if getattr(source, "personal", False):
            return f"{value[:1]}***" if isinstance(value, str) else None
        keys = self.i.personal.get(getattr(source, "personal_keys", None) or "", frozenset())
        if keys and isinstance(value, dict):
            return {key: "***" if key in keys else item for key, item in value.items()}
        return value

    def _expression(self, source: Any, parent: Item, args: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
        key = ("expression", id(source), parent.key, repr(given), self.moment)
        return self.i.remember(key, lambda: self.scalar(source.build(parent, **args)))

    def _batch(self, source: Any, parent: Item, definition: Any, given: Mapping[str, Any]) -> Any:
        values = tuple(parent.values[name] for name in source.needs)
        key = values[0] if len(values) == 1 else values
        plain = {name: given.get(_camel(name)) for name in source.arguments}

        async def read(function: Callable[..., Any], *args: Any) -> Any:
            return function(self.tx, *args)

        moment = self.asked.moment
        call = source.load([key], sources.BatchInfo(read, moment.now, self.asked.language, zone=moment.zone), **plain)
        try:
            call.send(None)
        except StopIteration as ended:
            return ended.value.get(key)
        raise AssertionError("a batch function waited for something that is not here")

    def _same_row(self, source: Any, parent: Item, target: str, args: Mapping[str, Any]) -> Any:
        if source.values is None:
            made = Item(target, parent.values, parent.types, parent.key)
        else:
            expressions = source.values(parent, **args)
            values = {name: self.scalar(expression) for name, expression in expressions.items()}
            types = {name: expression.type for name, expression in expressions.items()}
            made = Item(target, values, types, ("made", target, *map(repr, values.values())))
        return None if source.null_without and made.values[source.null_without] is None else made

    def _one(self, source: Any, parent: Item | None, target: str, args: Mapping[str, Any]) -> Any:
        found = self._related(source, parent, target, args, visible=parent is None)
        keys = [self._default_key(each, target) for each in source.order]
        found.sort(
            key=cmp_to_key(lambda left, right: self.compare([k.read(left) for k in keys], [k.read(right) for k in keys], keys))
        )
        return found[0] if found else None

    # ---- lists

    def _many(self, source: Any, parent: Item | None, target: str, args: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
        connection = self.i.origin_of(target) is sources.Connection
        fields = self.i.original.type_map[target].fields  # type: ignore[attr-defined]
        node_type = get_named_type(fields["nodes"].type).name if connection else target
        found = self._rows(source, parent, node_type, args)
        if given.get("filter") is not None:
            filter_type = source.filter.__strawberry_definition__.name
            found = [each for each in found if self.i.predicates.holds(self, filter_type, given["filter"], each)]
        keys = self._order(source, node_type, given.get("orderBy"))
        found.sort(
            key=cmp_to_key(lambda left, right: self.compare([k.read(left) for k in keys], [k.read(right) for k in keys], keys))
        )
        if not connection:
            return found[: source.cap]
        return self._page(target, node_type, found, keys, given)

    def _rows(self, source: Any, parent: Item | None, node_type: str, args: Mapping[str, Any]) -> list[Item]:
        if source.select is None:
            return self._related(source, parent, node_type, args, visible=True)
        query = source.select(parent, **args)
        types = {str(column.key): column.type for column in query.selected_columns}
        rows = [dict(row._mapping) for row in self.tx.rows(self.settled(query))]
        return [Item(node_type, row, types, ("selected", repr(row))) for row in rows]

    def _related(self, source: Any, parent: Item | None, target: str, args: Mapping[str, Any], *, visible: bool) -> list[Item]:
        rows = self.i.rows_of(target)
        key = (
            "related",
            id(source),
            None if parent is None else parent.key,
            repr(args and {n: _said(v) for n, v in args.items()}),
            self.moment,
            visible,
        )
        return [
            self._item(target, rows.table, row)
            for row in self.i.remember(key, lambda: self._matching(source, parent, rows, args, visible))
        ]

    def _matching(self, source: Any, parent: Item | None, rows: Any, args: Mapping[str, Any], visible: bool) -> list[Any]:
        alias = rows.table.alias("c")
        child = Row(dict(rows.table.c), "c")
        conditions = (
            [] if source.on is None else [source.on(child, **args) if parent is None else source.on(parent, child, **args)]
        )
        if visible and rows.visible is not None:
            conditions.append(rows.visible(child))
        keys = [alias.c[column.name] for column in rows.table.primary_key]
        found = self.tx.rows(self.settled(sa.select(*keys).select_from(alias).where(*conditions)))
        table = self.i.table(self.tx, rows.table)
        return [table[row[0] if len(keys) == 1 else tuple(row)] for row in found]

    def _order(self, source: Any, node_type: str, given: Sequence[Mapping[str, Any]] | None) -> list[Key]:
        keys = [self._given_key(source, node_type, each) for each in given or ()] or [
            self._default_key(each, node_type) for each in source.order
        ]
        if source.select is None:
            descending = keys[-1].descending if keys else True
            for column in self.i.rows_of(node_type).table.primary_key:
                if column.name not in [key.name for key in keys]:
                    keys.append(self._column_key(column.name, column.type, descending))
        return keys

    def _column_key(self, name: str, type_: Any, descending: bool) -> Key:
        return Key(name, type_, descending, lambda item: item.values[name])

    def _default_key(self, said: Any, node_type: str) -> Key:
        descending = isinstance(said, UnaryExpression)
        column = said.element if isinstance(said, UnaryExpression) else said
        return self._column_key(column.name, column.type, descending)

    def _given_key(self, source: Any, node_type: str, said: Mapping[str, Any]) -> Key:
        named = {name: direction for name, direction in said.items() if direction is not None}
        if len(named) != 1:
            raise ScrmError("INVALID_ORDER", "one field each")
        ((name, direction),) = named.items()
        ordering, _ = self.i.source_of(source.order_by.__strawberry_definition__.name, name)
        values, type_ = self.all_values(ordering, self.i.rows_of(node_type).table)
        return Key(f"<{name}>", type_, direction == "DESC", lambda item: values[item.key])

    def all_values(self, source: Any, table: Any) -> tuple[dict[Any, Any], Any]:
        """An expression's value for every row of a table."""

        def read() -> tuple[dict[Any, Any], Any]:
            expression = source.build(Row(dict(table.c), "c"))
            alias = table.alias("c")
            keys = [alias.c[column.name] for column in table.primary_key]
            rows = self.tx.rows(self.settled(sa.select(expression.label("the_value"), *keys).select_from(alias)))
            return {(table.name, *row[1:]): row[0] for row in rows}, expression.type

        found: tuple[dict[Any, Any], Any] = self.i.remember(("all", id(source), table.name, self.moment), read)
        return found

    def compare(self, left: Sequence[Any], right: Sequence[Any], keys: Sequence[Key]) -> int:
        """Below 0 if `left` comes first; missing values come last, whichever the direction."""
        for one, other, key in zip(left, right, keys, strict=True):
            if one == other or (one is None and other is None):
                continue
            if one is None or other is None:
                return 1 if one is None else -1
            return (-1 if one < other else 1) * (-1 if key.descending else 1)
        return 0

    def _page(self, target: str, node_type: str, found: list[Item], keys: list[Key], given: Mapping[str, Any]) -> Page:
        first, last, after, before = (given.get(name) for name in ("first", "last", "after", "before"))
        if first is not None and last is not None:
            raise ScrmError("INVALID_PAGE", "both")
        backward = last is not None or (before is not None and first is None)
        size = (last if backward else first) or (20 if (last if backward else first) is None else 0)
        if not 1 <= size <= 100:
            raise ScrmError("INVALID_PAGE", "size")
        left, own = found, mark(self.place, keys)
        for said, sign in ((after, 1), (before, -1)):
            if said is not None:
                place = [read_key(text, key) for text, key in zip(parts(said, own, len(keys)), keys, strict=True)]
                left = [each for each in left if self.compare([key.read(each) for key in keys], place, keys) * sign > 0]
        page = left[-size:] if backward else left[:size]
        cut = len(left) > len(page)

        def cursor(item: Item) -> str:
            texts = [key_text(key.read(item)) for key in keys]
            return orjson.dumps([own, *texts, instant_text(self.moment.now)]).decode()

        has_before, has_after = after is not None or (cut and backward), before is not None or (cut and not backward)
        return Page(target, node_type, page, cursor, len(found), has_before, has_after)

    def _of_page(self, parent: Any, name: str) -> Any:
        if isinstance(parent, tuple):
            return parent[0].cursors(parent[1]) if name == "cursor" else parent[1]
        ends = [parent.cursors(each) for each in (*parent.items[:1], *parent.items[-1:])]
        found: dict[str, Callable[[], Any]] = {
            "edges": lambda: [(parent, each) for each in parent.items],
            "nodes": lambda: parent.items,
            "totalCount": lambda: parent.total,
            "pageInfo": lambda: parent,
            "hasNextPage": lambda: parent.after,
            "hasPreviousPage": lambda: parent.before,
            "startCursor": lambda: ends[0] if ends else None,
            "endCursor": lambda: ends[-1] if ends else None,
        }
        return found[name]()

    # ---- SQL

    def scalar(self, expression: Any) -> Any:
        return self.tx.scalar(sa.select(self.settled(expression)))

    def settled(self, clause: Any) -> Any:
        """The clause with the request's parameters filled in."""
        known = {"now": self.moment.now, "today": self.moment.today, "currency": self.moment.currency}

        def replace(element: Any, **_: Any) -> Any:
            if isinstance(element, Value):
                raw = element.slot.read({})
                return sa.bindparam(None, element.convert(raw, self.moment) if element.convert else raw, element.type)
            if isinstance(element, BindParameter) and element.key in known:
                return sa.bindparam(None, known[element.key], element.type)
            return None

        return replacement_traverse(clause, {}, replace)


def _said(value: Any) -> Any:
    """What an argument says, for telling two calls apart."""
    if isinstance(value, Value):
        return value.slot.constant
    if isinstance(value, Mapping):
        return {name: _said(each) for name, each in value.items()}
    return [_said(each) for each in value] if isinstance(value, list) else value


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)
