"""Where a field's value comes from. Declared beside the GraphQL type; the compiler turns a selection of such fields into one
  statement.

A source never returns a value: it returns SQL, built on the parent's row. Only `batch` runs Python, once per field and request.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, tzinfo
from typing import Any, Generic, TypeVar, dataclass_transform

import sqlalchemy as sa
import strawberry
from strawberry.annotation import StrawberryAnnotation
from strawberry.types.arguments import StrawberryArgument
from strawberry.types.field import StrawberryField

T = TypeVar("T")
KEY = "scrm"
ROWS = "__scrm_rows__"
EXTENDS = "__scrm_extends__"
SCOPE = "__scrm_scope__"

MASK = "***"


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a compiled field."""

    type: Any
    description: str
    default: Any = strawberry.UNSET


@dataclass(frozen=True, kw_only=True)
class Source:
    """Base of every source. `scope` is the permission it needs; `None` takes the class's, or the target type's."""

    scope: str | None = None
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    weight: int = 0


@dataclass(frozen=True, kw_only=True)
class ColumnSource(Source):
    name: str | None = None
    personal: bool = False
    personal_keys: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExpressionSource(Source):
    build: Callable[..., sa.ColumnElement[Any]]
    personal: bool = False


@dataclass(frozen=True, kw_only=True)
class NodeIdSource(Source):
    """The global id of a row: its type's name and its key."""


@dataclass(frozen=True, kw_only=True)
class SameRowSource(Source):
    values: Callable[..., Mapping[str, sa.ColumnElement[Any]]] | None = None
    null_without: str | None = None


@dataclass(frozen=True, kw_only=True)
class OneSource(Source):
    on: Callable[..., sa.ColumnElement[bool]] | None = None
    order: Sequence[Any] = ()


@dataclass(frozen=True, kw_only=True)
class ManySource(Source):
    on: Callable[..., sa.ColumnElement[bool]] | None = None
    select: Callable[..., sa.Select[Any]] | None = None
    order: Sequence[Any] = ()
    filter: Any = None
    filter_default: Mapping[str, Any] | None = None
    order_by: Any = None
    cap: int = 100


Complete = Callable[[Any, Any], Awaitable[bytes]]
"""From a call of a batch function and one of its values to that value's JSON."""


@dataclass(frozen=True, slots=True)
class BatchInfo:
    """What a batch function may use: a way to read, the request's instant, its business day and its language; and how long it may
    take."""

    read: Callable[..., Awaitable[Any]]
    now: datetime
    language: str
    seconds: float = 10.0
    zone: tzinfo = UTC
    complete: Complete | None = None
    """Answers what is selected of an object that Python made: the host's own."""

    @property
    def today(self) -> date:
        """The business day of the instant."""
        return self.now.astimezone(self.zone).date()


BatchFunction = Callable[..., Awaitable[Mapping[Any, Any]]]


@dataclass(frozen=True, kw_only=True)
class BatchSource(Source):
    load: BatchFunction
    needs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OperatorSource(Source):
    """A filter by the operators of its input type on one expression."""

    build: Callable[..., sa.ColumnElement[Any]]
    personal: bool = False


@dataclass(frozen=True, kw_only=True)
class WhereSource(Source):
    """A filter that says its own condition; `personal_keys` names the set whose keys need `pii:read` in it."""

    build: Callable[..., sa.ColumnElement[bool]]
    personal: bool = False
    personal_keys: str | None = None


@dataclass(frozen=True, kw_only=True)
class CombineSource(Source):
    """`and`, `or`, `not` over a list of the same filter."""

    how: str


@dataclass(frozen=True, kw_only=True)
class OrderingSource(Source):
    build: Callable[..., sa.ColumnElement[Any]]
    nullable: bool = True
    personal: bool = False


@dataclass(frozen=True, kw_only=True)
class ResolverSource(Source):
    """A field that Python resolves, with the scope it needs, and whether a person's token may ask it."""

    self_service: bool = False


@dataclass(frozen=True, slots=True)
class RowType:
    """What the rows of a type are: the table, who may see which, and which are shown at all."""

    table: sa.FromClause | None
    scope: str | None
    owner: Callable[[Any], sa.ColumnElement[Any]] | None
    public: bool
    visible: Callable[[Any], sa.ColumnElement[bool]] | None
    loads: Callable[[Any, Any], sa.ColumnElement[bool]] | None


class Field(StrawberryField):
    """A strawberry field without a resolver; its source is in its metadata, which copies of generics keep."""


def _field(
    description: str, source: Source, *, name: str | None = None, deprecated: str | None = None, default: Any = None
) -> Any:
    made = Field(description=description, metadata={KEY: source}, graphql_name=name, deprecation_reason=deprecated)
    if default is not None:
        made.default = made.default_value = default
    else:
        made.init = made.repr = made.compare = False  # nobody makes such a value in Python
    made.arguments = [
        StrawberryArgument(
            python_name=python_name.removesuffix("_"),
            graphql_name=None,
            type_annotation=StrawberryAnnotation(argument.type),
            description=argument.description,
            default=argument.default,
        )
        for python_name, argument in source.arguments.items()
    ]
    return made


def arg(type_: Any, description: str, default: Any = strawberry.UNSET) -> Argument:
    """An argument of a compiled field; without a default it is passed as None when absent. The source function gets it by its
    name."""
    return Argument(type_, description, default)


def column(
    description: str,
    *,
    name: str | None = None,
    personal: bool = False,
    personal_keys: str | None = None,
    scope: str | None = None,
    deprecated: str | None = None,
) -> Any:
    """A column of the row; `personal` values, or the `personal_keys` of a JSON object, are masked without `pii:read`."""
    source = ColumnSource(name=name, personal=personal, personal_keys=personal_keys, scope=scope)
    return _field(description, source, deprecated=deprecated)


def expression(
    description: str,
    build: Callable[..., sa.ColumnElement[Any]],
    *,
    personal: bool = False,
    scope: str | None = None,
    weight: int = 0,
    **arguments: Argument,
) -> Any:
    """An SQL expression on the row: `build(row, **arguments)`."""
    return _field(description, ExpressionSource(build=build, personal=personal, scope=scope, arguments=arguments, weight=weight))


def same_row(
    description: str,
    values: Callable[..., Mapping[str, sa.ColumnElement[Any]]] | None = None,
    *,
    null_without: str | None = None,
    scope: str | None = None,
    **arguments: Argument,
) -> Any:
    """An object on the parent's row, or on expressions of it: `values(row, **arguments)`; null where `null_without` is."""
    return _field(description, SameRowSource(values=values, null_without=null_without, scope=scope, arguments=arguments))


def one(
    description: str,
    on: Callable[..., sa.ColumnElement[bool]] | None = None,
    *,
    order: Sequence[Any] = (),
    scope: str | None = None,
    **arguments: Argument,
) -> Any:
    """One row of another type: `on(parent, child, **arguments)`; at the root `on(child, **arguments)`. Of several the first by
    `order`."""
    return _field(description, OneSource(on=on, order=order, scope=scope, arguments=arguments))


def many(
    description: str,
    on: Callable[..., sa.ColumnElement[bool]] | None = None,
    *,
    order: Sequence[Any] = (),
    filter: Any = None,
    filter_default: Mapping[str, Any] | None = None,
    order_by: Any = None,
    select: Callable[..., sa.Select[Any]] | None = None,
    cap: int = 100,
    scope: str | None = None,
    **arguments: Argument,
) -> Any:
    """Rows of another type, as a connection or (annotated `list`) as a list of at most `cap`.

    `select(parent, **arguments)` gives rows that no table holds. `filter` and `order_by` are input types; `filter_default` is
    the filter
    of a caller who gives none, by the names of its fields.
    """
    source = ManySource(
        on=on,
        order=order,
        filter=filter,
        filter_default=filter_default,
        order_by=order_by,
        select=select,
        cap=cap,
        scope=scope,
        arguments=arguments,
    )
    return _field(description, source)


def batch(description: str, load: BatchFunction, *, needs: Sequence[str], scope: str | None = None, **arguments: Argument) -> Any:
    """Computed in Python from columns of the row: `await load(keys, info, **arguments)` maps each key (a value, or a tuple) to
    a value; also to an object of a type that Python answers, of which each is asked once for what is selected of it."""
    return _field(description, BatchSource(load=load, needs=tuple(needs), scope=scope, arguments=arguments))


def filter(
    description: str,
    build: Callable[..., sa.ColumnElement[Any]],
    *,
    scope: str | None = None,
    personal: bool = False,
    name: str | None = None,
) -> Any:
    """A filter field: its input type's operators on the expression `build(row)`."""
    return _field(description, OperatorSource(build=build, scope=scope, personal=personal), name=name, default=strawberry.UNSET)


def where(
    description: str,
    build: Callable[..., sa.ColumnElement[bool]],
    *,
    scope: str | None = None,
    personal: bool = False,
    personal_keys: str | None = None,
    name: str | None = None,
    default: Any = strawberry.UNSET,
) -> Any:
    """A filter field with a condition of its own: `build(row, value)`. A `default` holds wherever a filter does not say
    otherwise."""
    source = WhereSource(build=build, scope=scope, personal=personal, personal_keys=personal_keys)
    return _field(description, source, name=name, default=default)


def combine(description: str, how: str) -> Any:
    """`and`, `or` or `not` of a filter."""
    return _field(description, CombineSource(how=how), name=how, default=strawberry.UNSET)


def ordering(
    description: str,
    build: Callable[..., sa.ColumnElement[Any]],
    *,
    nullable: bool = True,
    scope: str | None = None,
    personal: bool = False,
) -> Any:
    """A field of an orderBy input: sorts by the expression `build(row)`; say `nullable=False` where it never is, for a faster
    page."""
    return _field(
        description, OrderingSource(build=build, nullable=nullable, scope=scope, personal=personal), default=strawberry.UNSET
    )


@dataclass_transform(kw_only_default=True)
def rows(
    table: sa.FromClause | None,
    *,
    scope: str | None = None,
    owner: Callable[[Any], sa.ColumnElement[Any]] | None = None,
    public: bool = False,
    visible: Callable[[Any], sa.ColumnElement[bool]] | None = None,
    loads: Callable[[Any, Any], sa.ColumnElement[bool]] | None = None,
    name: str | None = None,
) -> Callable[[type[T]], type[T]]:
    """A compiled type: its objects are rows of `table` (None: of expressions the parent gives).

    `owner(row)` is the user it is about, for callers who may see one person only; `public=True` says that it is about nobody.
    `visible(row)` limits every list and look-up; `loads(row, ids)` is how ids find rows where that is not the primary key.
    """

    def decorate(cls: type[T]) -> type[T]:
        made = strawberry.type(cls, name=name, description=inspect.getdoc(cls))
        setattr(made, ROWS, RowType(table, scope, owner, public, visible, loads))
        setattr(made, SCOPE, scope)
        return made

    return decorate


CHECKED = "__scrm_checked__"


def checked_by_itself(cls: type[T]) -> type[T]:
    """An input of which a bulk mutation takes many: what is wrong with the text of one is that one's error, not the request's."""
    setattr(cls, CHECKED, True)
    return cls


def filter_input(cls: type[T]) -> type[T]:
    """An input type whose fields are filters."""
    return strawberry.input(cls, description=inspect.getdoc(cls))


order_input = filter_input


def extend(target: type, *, scope: str | None = None) -> Callable[[type[T]], type[T]]:
    """More fields for a type that somebody else defined; `scope` is theirs unless they say their own."""

    def decorate(cls: type[T]) -> type[T]:
        definition = getattr(target, "__strawberry_definition__")  # noqa: B009 - mypy knows no such attribute
        made = strawberry.input(cls) if definition.is_input else strawberry.type(cls)
        setattr(made, EXTENDS, target)
        setattr(made, SCOPE, scope)
        return made

    return decorate


@strawberry.type(description="Where a page lies in its list.")
class PageInfo:
    has_next_page: bool = _field("Whether more follow.", ColumnSource(name="has_next_page"))
    has_previous_page: bool = _field("Whether some come before.", ColumnSource(name="has_previous_page"))
    start_cursor: str | None = _field("Cursor of the first one.", ColumnSource(name="start_cursor"))
    end_cursor: str | None = _field("Cursor of the last one.", ColumnSource(name="end_cursor"))


@strawberry.type(description="One of a page, with its cursor.")
class Edge(Generic[T]):
    cursor: str = _field("Where it lies in the list.", ColumnSource())
    node: T = _field("The object.", SameRowSource())


@strawberry.type(description="A page of a list, with what is needed to get the next.")
class Connection(Generic[T]):
    edges: list[Edge[T]] = _field("The page's objects with their cursors.", ManySource())
    nodes: list[T] = _field("The page's objects.", ManySource())
    page_info: PageInfo = _field("Where the page lies.", SameRowSource())
    total_count: int = _field(
        "How many there are in all; counted only when asked.", ExpressionSource(build=lambda row: row, weight=5)
    )


def origin_of(definition: Any) -> Any:
    """The class that a strawberry definition was written as; a concrete `Connection[User]` was written as `Connection`."""
    concrete_of = getattr(definition, "concrete_of", None)
    return getattr(concrete_of or definition, "origin", None)


@strawberry.interface(description="Anything with a global id.")
class Node:
    id: strawberry.ID = _field("Global id, the same on every request.", NodeIdSource())


@strawberry.type(description="Everything that can be asked.")
class Query:
    """Everything that can be asked."""


@strawberry.type(description="Everything that can be changed.")
class Mutation:
    """Everything that can be changed."""


@strawberry.type(description="Everything that can be followed.")
class Subscription:
    """Everything that can be followed."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A row that Python names and the compiler reads."""

    type: type
    id: Any


def ref(type_: type[T], key: Any) -> T:
    """An object of a compiled type by its key, for a resolver to return; what is selected of it becomes one statement."""
    return Ref(type_, key)  # type: ignore[return-value]


def scoped(source: Source, scope: str) -> Source:
    """The same source with a scope."""
    return replace(source, scope=scope)
