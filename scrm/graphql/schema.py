"""Composes the schema from the core's and the plugins' parts, checks it, and freezes it."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.annotation import StrawberryAnnotation
from strawberry.exceptions import StrawberryException
from strawberry.printer import print_schema
from strawberry.schema.config import StrawberryConfig
from strawberry.schema_directive import Location
from strawberry.types.arguments import StrawberryArgument
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.execution import ExecutionContext
from strawberry.types.field import StrawberryField
from strawberry.types.graphql import OperationType

from scrm.errors import StartupError
from scrm.graphql.context import Context
from scrm.graphql.executor import CompiledExecutor
from scrm.graphql.gate import Admission
from scrm.graphql.model import CORE, Model, build_model
from scrm.graphql.scalars import SCALARS
from scrm.graphql.sources import EXTENDS, KEY, Connection, ManySource, Mutation, Query, Subscription, origin_of
from scrm.plugin import Contribution


@strawberry.schema_directive(
    name="plugin", locations=[Location.FIELD_DEFINITION, Location.INPUT_FIELD_DEFINITION], description="Whose field this is."
)
class PluginDirective:
    name: str = strawberry.directive_field(name="name")


@dataclass
class Part:
    """One owner's share of the schema."""

    owner: str
    package: str
    types: tuple[type, ...]
    extensions: tuple[type, ...]


def part_of(contribution: Contribution, package: str) -> Part:
    """What a contribution adds to the schema."""
    extensions = (
        *contribution.extends,
        *contribution.query,
        *contribution.mutation,
        *contribution.subscription,
        *contribution.filters,
        *contribution.orderings,
    )
    return Part(contribution.name, package, tuple(contribution.types), tuple(extensions))


@dataclass
class Composition:
    """Every field that is added to somebody else's type, by that type; and what is wrong."""

    added: dict[type, list[tuple[str, StrawberryField]]] = field(default_factory=dict)
    type_owners: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def compose(parts: Sequence[Part]) -> Composition:
    """Put the parts together; additive only, and every collision is a problem that names both owners."""
    made = Composition()
    for part in parts:
        for type_ in part.types:
            name = type_.__strawberry_definition__.name if hasattr(type_, "__strawberry_definition__") else type_.__name__
            if name in made.type_owners:
                made.problems.append(f"type {name} is defined by {made.type_owners[name]} and by {part.owner}; disable one")
            made.type_owners[name] = part.owner
    for part in parts:
        for extension in part.extensions:
            _add(made, part, extension)
    return made


def _add(made: Composition, part: Part, extension: type) -> None:
    target = getattr(extension, EXTENDS, None)
    if target is None:
        made.problems.append(f"{extension.__name__} of {part.owner} extends nothing; decorate it with @extend(Type)")
        return
    known = {each.python_name: CORE for each in target.__strawberry_definition__.fields}
    added = made.added.setdefault(target, [])
    known |= {each.python_name: owner for owner, each in added}
    for each in extension.__strawberry_definition__.fields:  # type: ignore[attr-defined]
        if each.python_name in known:
            name = f"{target.__strawberry_definition__.name}.{_camel(each.python_name)}"
            made.problems.append(f"{name} is defined by {known[each.python_name]} and by {part.owner}; disable one")
            continue
        mine = copy.copy(each)
        if part.owner != CORE:
            mine.directives = [*mine.directives, PluginDirective(name=part.owner)]
        added.append((part.owner, mine))


class ScrmSchema(strawberry.Schema):
    """A strawberry schema to whose types plugins have added fields."""

    def __init__(self, composition: Composition, types: Iterable[type], *, subscription: bool, debug: bool) -> None:
        self._added = composition.added
        self.debug = debug
        super().__init__(
            query=Query,
            mutation=Mutation if composition.added.get(Mutation) else None,
            subscription=Subscription if subscription else None,
            types=[type_ for type_ in types if hasattr(type_, "__strawberry_definition__")],
            extensions=[Admission],
            execution_context_class=CompiledExecutor,
            config=StrawberryConfig(auto_camel_case=True, scalar_map=SCALARS),
        )

    def get_fields(self, type_definition: StrawberryObjectDefinition) -> list[StrawberryField]:
        fields = [*type_definition.fields, *(each for _, each in self._added.get(type_definition.origin, []))]
        for each in fields:
            _complete(each)
        return fields

    async def execute(self, query: str | None, *args: Any, **more: Any) -> Any:
        """One answer: to a subscription there is none."""
        asked = more.get("allowed_operation_types") or {OperationType.QUERY, OperationType.MUTATION}
        allowed = {OperationType.QUERY, OperationType.MUTATION} & set(asked)
        return await super().execute(query, *args, **{**more, "allowed_operation_types": allowed})

    async def stream(self, query: str | None, *, context_value: Any = None, **more: Any) -> Any:  # type: ignore[override]
        """Operations of one connection share nothing but the caller."""
        own = context_value.again()
        return _closing(await super().stream(query, context_value=own, **more), own)

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Errors are logged where they are masked."""


async def _closing(results: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
    try:
        async for result in results:
            yield result
    finally:
        await context.reads.close()


PAGING = (
    ("first", int | None, "How many from the start, 1 to 100; 20 unless said."),
    ("after", str | None, "Only what comes after this cursor."),
    ("last", int | None, "How many from the end, 1 to 100."),
    ("before", str | None, "Only what comes before this cursor."),
)


def _complete(each: StrawberryField) -> None:
    """Give a list its paging, filter and order arguments, now that its type is known."""
    source = dict(each.metadata or {}).get(KEY)
    if not isinstance(source, ManySource) or any(
        argument.python_name in ("filter", "order_by", "first") for argument in each.arguments
    ):
        return
    made: list[StrawberryArgument] = []
    if source.filter is not None:
        default = dict(source.filter_default) if source.filter_default is not None else strawberry.UNSET
        made.append(_argument("filter", source.filter | None, "Only what matches.", default))
    if source.order_by is not None:
        orders: Any = list[source.order_by]  # type: ignore[name-defined]
        made.append(_argument("order_by", orders | None, "Sorted by these, first one first; each names one field."))
    if _is_connection(each.type):
        made += [_argument(name, type_, words) for name, type_, words in PAGING]
    each.arguments = [*each.arguments, *made]


def _argument(name: str, type_: Any, description: str, default: Any = strawberry.UNSET) -> StrawberryArgument:
    return StrawberryArgument(
        python_name=name, graphql_name=None, type_annotation=StrawberryAnnotation(type_), description=description, default=default
    )


def _is_connection(type_: Any) -> bool:
    inner = getattr(type_, "of_type", type_)
    return origin_of(getattr(inner, "__strawberry_definition__", None)) is Connection


@dataclass(frozen=True)
class Frozen:
    """A schema that is served: nothing in it changes any more."""

    schema: ScrmSchema
    model: Model

    def sdl(self) -> str:
        """The schema as text, sorted, with every field's owner."""
        return str(print_schema(self.schema)).rstrip() + "\n"


def freeze(parts: Sequence[Part], personal_keys: Mapping[str, frozenset[str]], *, debug: bool = False) -> Frozen:
    """Compose, check and build.

    Raises:
        StartupError: with every problem found, each naming its owner.
    """
    composition = compose(parts)
    if composition.problems:
        raise StartupError(composition.problems)
    types = [type_ for part in parts for type_ in part.types]
    try:
        schema = ScrmSchema(composition, types, subscription=bool(composition.added.get(Subscription)), debug=debug)
        owners = _owners(schema, composition, parts)
    except (StrawberryException, TypeError, ValueError) as error:
        raise StartupError(f"the schema cannot be built: {error}") from error
    model, problems = build_model(schema._schema, owners, personal_keys)
    if problems:
        raise StartupError(problems)
    return Frozen(schema, model)


def _owners(schema: ScrmSchema, composition: Composition, parts: Sequence[Part]) -> dict[str, dict[str, str]]:
    packages = {part.package: part.owner for part in parts if part.owner != CORE}
    owners: dict[str, dict[str, str]] = {}
    for name, named in schema._schema.type_map.items():
        definition: Any = named.extensions.get("strawberry-definition")
        origin = getattr(definition, "origin", None) or getattr(definition, "wrapped_cls", None)
        package = (getattr(origin, "__module__", "") or "").split(".")[0]
        owners[name] = {"*": composition.type_owners.get(name) or packages.get(package, CORE)}
        for owner, each in composition.added.get(origin, []) if isinstance(origin, type) else []:
            owners[name][schema.config.name_converter.get_graphql_name(each)] = owner
    return owners


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)
