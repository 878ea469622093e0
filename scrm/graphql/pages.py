"""A list's rows, and a connection's page of them: which rows, in which order, from where, and how many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from graphql.execution.collect_fields import FieldDetails
from sqlalchemy.sql.elements import ColumnElement

from scrm.db import Instant
from scrm.errors import ScrmError
from scrm.graphql.encoding import Pairs, raw
from scrm.graphql.filters import OrderKey, beyond, mark_of, order_by, read_cursor
from scrm.graphql.model import BoundField
from scrm.graphql.sources import ManySource
from scrm.sql import NOW, AnyRow, Row, smaller

if TYPE_CHECKING:
    from scrm.graphql.compiler import Compiler

PAGE_SIZE = 20
PAGE_LIMIT = 100


@dataclass
class PageRows:
    """Rows of a list before they are cut to a page: `inner` is read by conditions and order, `outer` by what is selected."""

    alias: Any
    inner: Row
    outer: Row
    conditions: list[Any]
    keys: list[OrderKey]

    def derived(self, keys: Sequence[OrderKey], limit: int, *, backward: bool, conditions: Sequence[Any]) -> Any:
        """The page as a derived table with the columns that the selection uses, and the order keys as k0, k1…"""
        used = [self.inner.c[name].label(name) for name in self.outer.used] or [raw("1").label("one")]
        ordered = [key.expression.label(f"#k{index}") for index, key in enumerate(keys)] if self.with_keys else []
        select = sa.select(*used, *ordered).select_from(self.alias).where(*self.conditions, *conditions)
        return select.order_by(*order_by(keys, backward=backward)).limit(raw(str(limit))).alias(self.outer.alias)

    with_keys: bool = False


class Page:
    """A connection: edges, nodes, pageInfo and totalCount, each only if it is selected."""

    def __init__(
        self, compiler: Compiler, bound: BoundField, source: ManySource, row: AnyRow | None, arguments: dict[str, Any]
    ) -> None:
        self.compiler = compiler
        self.encoding = compiler.encoding
        self.bound = bound
        self.source = source
        self.row = row
        self.arguments = arguments
        connection = compiler.model.fields[bound.target or ""]
        self.node_type = connection["nodes"].target or ""
        self.edge_type = connection["edges"].target or ""
        self.backward, self.size = page_size(arguments)
        self.rows = compiler.page_rows(bound, source, row, arguments, self.node_type)
        self.mark = mark_of(f"{bound.parent}.{bound.name}", self.rows.keys)
        self.items: list[tuple[str, ColumnElement[Any]]] = []
        self.more = False

    def compile(self, nodes: list[FieldDetails], path: tuple[str, ...]) -> ColumnElement[Any]:
        parts: list[tuple[str, Callable[[], ColumnElement[Any]]]] = []
        for key, name, details in self.compiler.selection.fields(self.bound.target or "", nodes):
            parts.append((key, self._part(name, details, (*path, key))))
        pairs = [(key, part()) for key, part in parts]
        if not self.items and not self.more:
            return self.encoding.object(pairs)
        return self.encoding.page_from(pairs, self._rows())

    def _part(self, name: str, details: list[FieldDetails], path: tuple[str, ...]) -> Callable[[], ColumnElement[Any]]:
        if name == "__typename":
            return lambda: self.encoding.text(self.bound.target or "")
        if name == "totalCount":
            total = self.encoding.leaf("int", self._total())
            return lambda: total
        if name == "pageInfo":
            info = self.encoding.object(self._page_info(details))
            return lambda: info
        pairs = self._edge(details, (*path, "*")) if name == "edges" else self._node(details, (*path, "*"))
        label = f"#i{len(self.items)}"
        self.items.append((label, self.encoding.object(pairs)))
        kept = raw(f'q."#r" <= {self.size}', sa.Boolean())
        return lambda: self.encoding.gather(raw(f'q."{label}"'), kept if self.more else None)

    def _node(self, details: list[FieldDetails], path: tuple[str, ...]) -> Pairs:
        return self.compiler.object(self.node_type, self.rows.outer, details, path)

    def _edge(self, details: list[FieldDetails], path: tuple[str, ...]) -> Pairs:
        pairs: Pairs = []
        for key, name, nodes in self.compiler.selection.fields(self.edge_type, details):
            if name == "cursor":
                pairs.append((key, self.encoding.quoted(self._cursor())))
            elif name == "node":
                pairs.append((key, self.encoding.object(self._node(nodes, (*path, key)))))
            else:
                pairs.append((key, self.encoding.text(self.edge_type)))
        return pairs

    def _cursor(self) -> ColumnElement[Any]:
        self.rows.with_keys = True
        keys = [
            sa.literal_column(f'{self.rows.outer.alias}."#k{index}"', key.expression.type)
            for index, key in enumerate(self.rows.keys)
        ]
        return self.encoding.cursor(self.mark, [*keys, sa.type_coerce(NOW, Instant())])

    def _page_info(self, details: list[FieldDetails]) -> Pairs:
        pairs: Pairs = []
        last = smaller(raw('q."#t"'), raw(str(self.size)))
        at_end = sa.func.max(sa.case((raw('q."#r"') == last, raw('q."#c"'))))
        at_start = sa.func.max(sa.case((raw('q."#r"') == raw("1"), raw('q."#c"'))))
        further = sa.func.count(raw('q."#r"')) > raw(str(self.size))  # of q's rows, also from within a nested select
        yes, no = raw("true", sa.Boolean()), raw("false", sa.Boolean())
        before, after = (self.arguments.get(name) is not None for name in ("before", "after"))
        values = {
            "hasNextPage": self.encoding.leaf("bool", yes if before else no if self.backward else further),
            "hasPreviousPage": self.encoding.leaf("bool", yes if after else further if self.backward else no),
            "startCursor": self.encoding.leaf("text", at_end if self.backward else at_start),
            "endCursor": self.encoding.leaf("text", at_start if self.backward else at_end),
        }
        known = {
            "hasNextPage": before or self.backward,
            "hasPreviousPage": after or not self.backward,
        }  # without looking at a row
        for key, name, _ in self.compiler.selection.fields("PageInfo", details):
            pairs.append((key, self.encoding.text("PageInfo") if name == "__typename" else values[name]))
            self.more = self.more or (name != "__typename" and not known.get(name, False))
        return pairs

    def _beyond(self) -> list[ColumnElement[bool]]:
        mark, count, found = self.mark, len(self.rows.keys), []
        for name in ("after", "before"):
            cursor = self.arguments.get(name)
            if cursor is None:
                continue
            if self.row is None:
                self.compiler.compiled.first_now = cursor.converted(
                    "now", Instant(), lambda text, _: read_cursor(text, mark, count)[-1]
                )
            found.append(beyond(self.rows.keys, cursor, mark, backward=name == "before"))
        return found

    def _rows(self) -> Any:
        """The page's objects as q: numbered where more than the page is read or its order is turned round."""
        columns: list[Any] = [item.label(label) for label, item in self.items]
        if self.more:
            columns += [raw("count(*) over ()").label("#t"), self._cursor().label("#c")]
        if self.more or self.backward:
            columns.append(raw("row_number() over ()").label("#r"))
        limit = self.size + 1 if self.more else self.size
        page = self.rows.derived(self.rows.keys, limit, backward=self.backward, conditions=self._beyond())
        listed = sa.select(*columns).select_from(page)
        if not self.backward:
            return listed.alias("q")
        return sa.select(raw("p.*")).select_from(listed.alias("p")).order_by(raw('p."#r"').desc()).alias("q")

    def _total(self) -> ColumnElement[Any]:
        again = self.compiler.page_rows(self.bound, self.source, self.row, {**self.arguments, "order_by": None}, self.node_type)
        return sa.select(sa.func.count()).select_from(again.alias).where(*again.conditions).scalar_subquery()


def page_size(arguments: Mapping[str, Any]) -> tuple[bool, int]:
    first, last = arguments.get("first"), arguments.get("last")
    if last is not None and first is not None:
        raise ScrmError("INVALID_PAGE", "first and last were both given; give one of them", path=("first",))
    if last is not None:
        return True, checked_size(last, "last", PAGE_LIMIT)
    if arguments.get("before") is not None and first is None:
        return True, PAGE_SIZE
    return False, PAGE_SIZE if first is None else checked_size(first, "first", PAGE_LIMIT)


def checked_size(value: int, name: str, limit: int) -> int:
    """A page's size.

    Raises:
        ScrmError: INVALID_PAGE outside 1 to the limit.
    """
    if not 1 <= value <= limit:
        raise ScrmError("INVALID_PAGE", f"{name} is {value}; it goes from 1 to {limit}", path=(name,), params={"limit": limit})
    return value
