"""Selection → one SQL statement whose result is the answer's JSON.

A type's rows come from an alias; everything below a row refers to it by plain column names (`Row`), so a nested list cannot
lose its
correlation. A page is a derived table of its own: what is selected is computed for its rows only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from graphql import GraphQLEnumType, get_named_type
from graphql.execution.collect_fields import FieldDetails
from sqlalchemy.sql.elements import ColumnElement

from scrm.errors import ScrmError
from scrm.graphql.encoding import (
    MARKED,
    Encoding,
    Pairs,
    PostgresEncoding,
    SqliteEncoding,
    decoder,
    leaf_kind,
    parents_from,
    raw,
    stored,
)
from scrm.graphql.filters import Filters, order_by, order_keys
from scrm.graphql.model import CORE, BoundField, Model
from scrm.graphql.pages import Page, PageRows, checked_size
from scrm.graphql.selection import Selection
from scrm.graphql.sources import (
    MASK,
    BatchSource,
    ColumnSource,
    ExpressionSource,
    ManySource,
    NodeIdSource,
    OneSource,
    RowType,
    SameRowSource,
)
from scrm.sql import SELF, AnyRow, Held, ListOf, Row, Values, json_masked, member

PAGING = ("first", "last", "after", "before", "filter", "order_by")


@dataclass(frozen=True, slots=True)
class Grants:
    """What the caller may see; part of every plan's key."""

    scopes: frozenset[str]
    pii: bool
    restricted: bool

    def has(self, scope: str | None) -> bool:
        return scope is None or scope in self.scopes or "*" in self.scopes


def _values_of(bound: BoundField) -> Sequence[str]:
    """The values of an enum."""
    named = get_named_type(bound.definition.type)
    return tuple(named.values) if isinstance(named, GraphQLEnumType) else ()


def arguments_of(selection: Selection, bound: BoundField, nodes: list[FieldDetails]) -> dict[str, Any]:
    """A field's arguments as its source calls them; leaves are parameters, to be filled from each request."""
    given = {_snake(name): value for name, value in selection.arguments(bound.definition, nodes[0].node).items()}
    wanted = (*bound.source.arguments, *PAGING) if isinstance(bound.source, ManySource) else tuple(bound.source.arguments)
    return {name: given.get(name.removesuffix("_")) for name in wanted}


@dataclass(frozen=True, slots=True)
class BatchCall:
    """A field to be filled in by Python: where its objects are, and how what it needs of them is read."""

    path: tuple[str, ...]
    key: str
    decoders: tuple[Callable[[Any], Any], ...]
    field: BoundField
    arguments: Mapping[str, Any]
    details: tuple[FieldDetails, ...] = ()
    """What is selected of each, where the values are objects."""


@dataclass(frozen=True, slots=True)
class Part:
    """A field that a statement of its own reads, for all its parents at once: where they are, and under which reserved key they
    say who they are."""

    path: tuple[str, ...]
    key: str
    reserved: str
    statement: sa.Select[Any]


@dataclass(frozen=True, slots=True)
class FieldFailure:
    """A field that is null because a plugin could not compute it, or because of what the caller is refused."""

    path: tuple[Any, ...]
    owner: str
    refusal: ScrmError | None = None


@dataclass
class Compiled:
    """A statement and what is left to do with its result."""

    statement: sa.Select[Any]
    batches: list[BatchCall] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    failed: list[FieldFailure] = field(default_factory=list)
    first_now: Any = None


class Compiler:
    """Compiles one selection for one caller on one dialect. The fields in `excluded`, as `Type.field`, are null.

    What is nested deeper than `levels` objects and lists is left to statements of its own, one for each such place.
    """

    def __init__(
        self,
        model: Model,
        dialect: str,
        selection: Selection,
        grants: Grants,
        excluded: frozenset[str] = frozenset(),
        levels: int | None = None,
    ) -> None:
        self.model = model
        self.selection = selection
        self.grants = grants
        self.excluded = excluded
        self.encoding: Encoding = PostgresEncoding() if dialect == "postgresql" else SqliteEncoding()
        self.filters = Filters(model, self._permit, grants.pii)
        self.compiled = Compiled(sa.select())
        self.levels = levels
        self._level = 0
        self._aliases = 0

    def root(self, bound: BoundField, details: list[FieldDetails], row: AnyRow | None = None) -> Compiled:
        """The statement of a root field, or of a field on something that Python holds."""
        self._enter(bound)
        value = self._field(bound, row, details, ())
        self.compiled.statement = sa.select(value.label("#"))
        return self.compiled

    def refs(self, type_name: str, ids: ColumnElement[Any], details: list[FieldDetails]) -> Compiled:
        """The statement for rows that Python named: (key, object) of each."""
        rows = self.model.rows[type_name]
        assert rows.table is not None
        self._permit(rows.scope, type_name, False)
        alias, row = self._alias(rows.table)
        condition = rows.loads(row, ids) if rows.loads else member(row.c.id, ids)
        pairs = self.object(type_name, row, details, ())
        key = row.c.id
        statement = sa.select(key.label("key"), self.encoding.object(pairs).label("#")).select_from(alias)
        self.compiled.statement = statement.where(condition, *self._restrictions(rows, row, visible=False))
        return self.compiled

    def _permit(self, scope: str | None, what: str, personal: bool) -> None:
        if not self.grants.has(scope):
            raise ScrmError("FORBIDDEN", f"{what} needs the scope {scope}", params={"scope": scope})
        if personal and not self.grants.pii:
            raise ScrmError(
                "FORBIDDEN", f"{what} is about personal values and needs the scope pii:read", params={"scope": "pii:read"}
            )

    def _enter(self, bound: BoundField) -> None:
        for scope in (bound.scope, bound.opens):
            if scope is not None:
                self._permit(scope, f"{bound.parent}.{bound.name}", False)

    def _alias_name(self) -> str:
        self._aliases += 1
        return f"t{self._aliases}"

    def _alias(self, table: Any) -> tuple[Any, Row]:
        name = self._alias_name()
        return table.alias(name), Row(dict(table.c), name)

    # ---- objects

    def object(self, type_name: str, row: AnyRow, details: list[FieldDetails], path: tuple[str, ...]) -> Pairs:
        pairs: Pairs = []
        fields = self.model.fields[type_name]
        for key, name, nodes in self.selection.fields(type_name, details):
            if name == "__typename":
                pairs.append((key, self.encoding.text(type_name)))
                continue
            pairs.extend(self._allowed(fields[name], row, key, nodes, path))
        return pairs

    def _allowed(self, bound: BoundField, row: AnyRow, key: str, nodes: list[FieldDetails], path: tuple[str, ...]) -> Pairs:
        """A field of an object. What the caller may not see of it is null where the field may be, and the error is told."""
        compiled, level = self.compiled, self._level
        before = len(compiled.batches), len(compiled.parts), len(compiled.failed)
        try:
            return self._pairs(bound, row, key, nodes, path)
        except ScrmError as error:
            if error.code != "FORBIDDEN" or not bound.nullable:
                raise
            for kept, count in zip((compiled.batches, compiled.parts, compiled.failed), before, strict=True):
                del kept[count:]  # type: ignore[attr-defined]
            self._level = level
            compiled.failed.append(FieldFailure((*path, key), bound.owner, error))
            return [(key, self.encoding.null())]

    def _pairs(self, bound: BoundField, row: AnyRow, key: str, nodes: list[FieldDetails], path: tuple[str, ...]) -> Pairs:
        self._enter(bound)
        if bound.nullable and bound.place in self.excluded:
            self.compiled.failed.append(FieldFailure((*path, key), bound.owner))
            return [(key, self.encoding.null())]
        if isinstance(bound.source, BatchSource):
            return self._batch(bound, row, key, nodes, path)
        if self._level == self.levels and isinstance(bound.source, OneSource | ManySource):
            return self._apart(bound, row, key, nodes, path)
        return [(key, self._field(bound, row, nodes, (*path, key)))]

    def _field(
        self, bound: BoundField, row: AnyRow | None, nodes: list[FieldDetails], path: tuple[str, ...]
    ) -> ColumnElement[Any]:
        source = bound.source
        arguments = arguments_of(self.selection, bound, nodes)
        if isinstance(source, ColumnSource):
            assert row is not None
            expression = self._masked(row.c[source.name or bound.python_name], bound)
            return self.encoding.leaf(bound.kind, expression)
        if isinstance(source, ExpressionSource):
            expression = source.build(row, **arguments) if row is not None else source.build(**arguments)
            if not isinstance(expression, ColumnElement):
                raise TypeError(f"the source of {bound.parent}.{bound.name} gave a {type(expression).__name__} and no SQL")
            shown = self._masked(expression, bound)
            if bound.owner == CORE:
                return self.encoding.leaf(bound.kind, shown)
            return self.encoding.checked("list" if bound.is_list else bound.kind, shown, _values_of(bound))
        if isinstance(source, NodeIdSource):
            assert row is not None
            return self.encoding.node_id(bound.parent, row.c.id)
        if isinstance(source, SameRowSource):
            return self._same_row(bound, source, row, arguments, nodes, path)
        self._level += 1
        value = self._rows(bound, row, arguments, nodes, path)
        self._level -= 1
        return value

    def _rows(
        self, bound: BoundField, row: AnyRow | None, arguments: dict[str, Any], nodes: list[FieldDetails], path: tuple[str, ...]
    ) -> ColumnElement[Any]:
        source = bound.source
        if isinstance(source, OneSource):
            return self._one(bound, source, row, arguments, nodes, path)
        assert isinstance(source, ManySource)
        if bound.is_connection:
            return Page(self, bound, source, row, arguments).compile(nodes, path)
        return self._list(bound, source, row, arguments, nodes, path)

    def _apart(self, bound: BoundField, row: AnyRow, key: str, nodes: list[FieldDetails], path: tuple[str, ...]) -> Pairs:
        assert not isinstance(row, Held)
        number = len(self.compiled.parts)
        part = Part(path, key, f"#p{number}", sa.select())
        self.compiled.parts.append(part)  # before those that are found within it
        parent, level = row.renamed(self._alias_name()), self._level
        self._level = 0
        value = self._field(bound, parent, nodes, (*path, key))
        self._level = level
        self.compiled.parts[number] = replace(part, statement=parents_from(parent, value))
        return [(key, self.encoding.null()), (part.reserved, stored([row.c[name] for name in parent.used]))]

    def _masked(self, expression: ColumnElement[Any], bound: BoundField) -> ColumnElement[Any]:
        if self.grants.pii:
            return expression
        if getattr(bound.source, "personal", False):
            if bound.kind == "text":
                return sa.case(
                    (expression.is_not(None), sa.func.substr(expression, 1, 1).concat(raw(f"'{MASK}'"))), else_=sa.null()
                )
            return sa.null()
        keys = self.model.personal_keys.get(getattr(bound.source, "personal_keys", None) or "")
        if keys:
            return json_masked(expression, sa.bindparam(None, sorted(keys), ListOf(sa.Text())), raw(f"'{MASK}'"))
        return expression

    def _batch(self, bound: BoundField, row: AnyRow, key: str, nodes: list[FieldDetails], path: tuple[str, ...]) -> Pairs:
        source = bound.source
        assert isinstance(source, BatchSource)
        number = len(self.compiled.batches)
        columns = [row.c[need] for need in source.needs]
        decoders = tuple(decoder(column.type) for column in columns)
        arguments = arguments_of(self.selection, bound, nodes)
        self.compiled.batches.append(BatchCall(path, key, decoders, bound, arguments, tuple(nodes)))
        needed = [self.encoding.leaf(leaf_kind(column), column) for column in columns]
        return [(key, self.encoding.marked(sa.type_coerce(MARKED, sa.Text()).concat(raw(f"'{number}:'")), needed))]

    def _same_row(
        self,
        bound: BoundField,
        source: SameRowSource,
        row: AnyRow | None,
        arguments: Any,
        nodes: list[FieldDetails],
        path: tuple[str, ...],
    ) -> ColumnElement[Any]:
        assert bound.target is not None
        assert row is not None
        inner: AnyRow = Values(source.values(row, **arguments)) if source.values else row
        value = self.encoding.object(self.object(bound.target, inner, nodes, path))
        return self.encoding.unless_null(inner.c[source.null_without], value) if source.null_without else value

    def _one(
        self,
        bound: BoundField,
        source: OneSource,
        row: AnyRow | None,
        arguments: Any,
        nodes: list[FieldDetails],
        path: tuple[str, ...],
    ) -> ColumnElement[Any]:
        assert bound.target is not None
        rows = self.model.rows[bound.target]
        alias, child = self._alias(rows.table)
        conditions = self._conditions(source.on, row, child, arguments)
        pairs = self.object(bound.target, child, nodes, path)
        order = order_by(order_keys(self.model, self._permit, child, None, source.order, None), backward=False)
        select = (
            sa.select()
            .select_from(alias)
            .where(*conditions, *self._restrictions(rows, child, visible=row is None))
            .order_by(*order)
            .limit(raw("1"))
        )
        return self.encoding.object_from(pairs, select)

    def _list(
        self,
        bound: BoundField,
        source: ManySource,
        row: AnyRow | None,
        arguments: dict[str, Any],
        nodes: list[FieldDetails],
        path: tuple[str, ...],
    ) -> ColumnElement[Any]:
        assert bound.target is not None
        first = arguments.get("first")
        limit = source.cap if first is None else checked_size(first, "first", source.cap)
        page = self.page_rows(bound, source, row, arguments)
        pairs = self.object(bound.target, page.outer, nodes, (*path, "*"))
        return self.encoding.list_from(pairs, page.derived(page.keys, limit, backward=False, conditions=[]))

    # ---- rows

    def _conditions(
        self, on: Callable[..., Any] | None, row: AnyRow | None, child: Row, arguments: Mapping[str, Any]
    ) -> list[Any]:
        if on is None:
            return []
        own = {name: value for name, value in arguments.items() if name not in PAGING}
        return [on(child, **own) if row is None else on(row, child, **own)]

    def _restrictions(self, rows: RowType, row: Row, *, visible: bool) -> list[Any]:
        conditions = []
        if self.grants.restricted and rows.owner is not None:
            conditions.append(rows.owner(row) == SELF)
        if visible and rows.visible is not None:
            conditions.append(rows.visible(row))
        return conditions

    def page_rows(
        self, bound: BoundField, source: ManySource, row: AnyRow | None, arguments: dict[str, Any], target: str | None = None
    ) -> PageRows:
        """The rows of a list: its table or query, its conditions, its order."""
        rows = self.model.rows[target or bound.target or ""]
        if source.select is not None:
            own = {name: value for name, value in arguments.items() if name in source.arguments}
            query = source.select(row, **own) if row is not None else source.select(**own)
            name = self._alias_name()
            columns: Mapping[str, Any] = {str(column.key): column for column in query.selected_columns}
            alias, inner = query.alias(name), Row(columns, name)
        else:
            assert rows.table is not None
            alias, inner = self._alias(rows.table)
            columns = dict(rows.table.c)
        conditions = [*self._conditions(source.on, row, inner, arguments), *self._restrictions(rows, inner, visible=True)]
        given = arguments.get("filter")
        if given is not None:
            conditions.append(self.filters.condition(inner, given))
        keys = order_keys(
            self.model, self._permit, inner, alias if source.select else rows.table, source.order, arguments.get("order_by")
        )
        return PageRows(alias, inner, Row(columns, self._alias_name()), conditions, keys)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
