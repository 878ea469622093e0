"""Composes the schema from the core's and the plugins' parts, checks it, and freezes it."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import strawberry
from graphql import GraphQLError
from strawberry.annotation import StrawberryAnnotation
from strawberry.exceptions import DuplicatedTypeName
from strawberry.printer import print_schema
from strawberry.schema.config import StrawberryConfig
from strawberry.schema_directive import Location
from strawberry.types.arguments import StrawberryArgument
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.execution import ExecutionContext, PreExecutionError
from strawberry.types.field import StrawberryField
from strawberry.types.graphql import OperationType

from scrm.errors import ScrmError, StartupError, name_of, words_of
from scrm.graphql.context import Context
from scrm.graphql.executor import CompiledExecutor
from scrm.graphql.gate import Admission
from scrm.graphql.model import CORE, Model, Problem, build_model
from scrm.graphql.scalars import SCALARS
from scrm.graphql.sources import EXTENDS, KEY, Connection, ManySource, Mutation, Query, Subscription, origin_of
from scrm.plugin import Contribution


@strawberry.schema_directive(
    name="plugin", locations=[Location.FIELD_DEFINITION, Location.INPUT_FIELD_DEFINITION], description="Whose field this is."
)
class PluginDirective:
    name: str = strawberry.directive_field(name="name")


@dataclass(frozen=True)
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
    problems: list[Problem] = field(default_factory=list)

    def collide(self, what: str, first: str, second: str) -> None:
        """Two owners say the same name: it is the second one's problem."""
        way_out = f"rename it in {second}" if first == CORE else "disable one"
        self.problems.append((second, f"{what} is defined by {first} and by {second}; {way_out}"))


class SchemaError(StartupError):
    """The parts do not make a schema: every problem, and whose it is."""

    def __init__(self, found: Sequence[Problem]) -> None:
        super().__init__([text for _, text in found])
        self.found = tuple(found)


def compose(parts: Sequence[Part]) -> Composition:
    """Put the parts together; additive only, and every collision is a problem that names both owners."""
    made = Composition()
    for part in parts:
        for type_ in part.types:
            name = type_.__strawberry_definition__.name if hasattr(type_, "__strawberry_definition__") else type_.__name__
            if name in made.type_owners:
                made.collide(f"type {name}", made.type_owners[name], part.owner)
            made.type_owners.setdefault(name, part.owner)
    for part in parts:
        for extension in part.extensions:
            _add(made, part, extension)
    return made


def _add(made: Composition, part: Part, extension: type) -> None:
    target = getattr(extension, EXTENDS, None)
    if target is None:
        said = f"{extension.__name__} of {part.owner} extends nothing; decorate it with @extend(Type)"
        made.problems.append((part.owner, said))
        return
    known = {each.python_name: CORE for each in target.__strawberry_definition__.fields}
    added = made.added.setdefault(target, [])
    known |= {each.python_name: owner for owner, each in added}
    for each in extension.__strawberry_definition__.fields:  # type: ignore[attr-defined]
        if each.python_name in known:
            name = f"{target.__strawberry_definition__.name}.{_camel(each.python_name)}"
            made.collide(name, known[each.python_name], part.owner)
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
        """Operations of one connection share nothing but the caller. What is refused before it is executed is an error too."""
        own = context_value.again()
        try:
            own.gate.enter(own, query, more.get("operation_name"), more.get("variable_values"))
        except ScrmError as error:
            return _refused(GraphQLError(error.message, original_error=error))
        except GraphQLError as error:
            return _refused(error)
        return _closing(await super().stream(query, context_value=own, **more), own)

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Errors are logged where they are masked."""


async def _refused(error: GraphQLError) -> AsyncIterator[Any]:
    yield PreExecutionError(data=None, errors=[error])


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
    """Give a field that is called as a word of Python (`from_`) its name, and a list its paging, filter and order arguments, now
    that its type is known."""
    if each.graphql_name is None and each.python_name.endswith("_"):
        each.graphql_name = _camel(each.python_name.removesuffix("_"))
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
    """A schema that is served: nothing in it changes any more, once it is known what is masked."""

    schema: ScrmSchema
    model: Model

    def sdl(self) -> str:
        """The schema as text, sorted, with every field's owner."""
        return str(print_schema(self.schema)).rstrip() + "\n"


def freeze(parts: Sequence[Part], personal_keys: Mapping[str, frozenset[str]], *, debug: bool = False) -> Frozen:
    """Compose, check and build.

    Raises:
        SchemaError: with every problem found, each naming its owner.
    """
    composition = compose(parts)
    if composition.problems:
        raise SchemaError(composition.problems)
    try:
        built, problems = (_built if _can_be_kept(parts) else _build)(tuple(parts), debug)
    except Exception as error:
        raise SchemaError(_blamed(parts, error)) from error
    if problems:
        raise SchemaError(problems)
    return Frozen(built.schema, replace(built.model, personal_keys=dict(personal_keys)))


def _build(parts: Sequence[Part], debug: bool = False) -> tuple[Frozen, list[Problem]]:
    composition = compose(parts)
    types = [type_ for part in parts for type_ in part.types]
    schema = ScrmSchema(composition, types, subscription=bool(composition.added.get(Subscription)), debug=debug)
    model, problems = build_model(schema._schema, _owners(schema, composition, parts))
    return Frozen(schema, model), problems


_built = lru_cache(maxsize=8)(_build)
"""The same parts make the same schema, and it takes long to make."""


def _can_be_kept(parts: Sequence[Part]) -> bool:
    try:
        hash(tuple(parts))
        return True
    except Exception:  # a plugin's own class may refuse
        return False


def _blamed(parts: Sequence[Part], error: Exception) -> list[Problem]:
    """With whose parts no schema can be built: those that make it fail when they are added one after the other."""
    kept = [part for part in parts if part.owner == CORE]
    found: list[Problem] = []
    for part in (part for part in parts if part.owner != CORE):
        tried = [*kept, part]
        try:
            _build(tried)
        except Exception as each:
            found.append((part.owner, _words(each, part, tried)))
        else:
            kept.append(part)
    return found or [(CORE, f"the schema cannot be built: {words_of(error)}")]


def _words(error: Exception, part: Part, parts: Sequence[Part]) -> str:
    if isinstance(error, DuplicatedTypeName):
        packages = _packages(parts)
        owners = {_owner_of(each, packages) for each in (error.first_cls, error.second_cls) if each is not None}
        first = next(iter(sorted(owners - {part.owner})), CORE)
        way_out = f"rename it in {part.owner}" if first == CORE else "disable one"
        return f"type {str(error).split()[1]} is defined by {first} and by {part.owner}; {way_out}"
    words = words_of(error).rstrip(".")
    return f"the types of {part.owner} cannot be built: {name_of(error)}: {words}; check their annotations"


def _owners(schema: ScrmSchema, composition: Composition, parts: Sequence[Part]) -> dict[str, dict[str, str]]:
    packages = _packages(parts)
    owners: dict[str, dict[str, str]] = {}
    for name, named in schema._schema.type_map.items():
        definition: Any = named.extensions.get("strawberry-definition")
        origin = getattr(definition, "origin", None) or getattr(definition, "wrapped_cls", None)
        owners[name] = {"*": composition.type_owners.get(name) or _owner_of(origin, packages)}
        for owner, each in composition.added.get(origin, []) if isinstance(origin, type) else []:
            owners[name][schema.config.name_converter.get_graphql_name(each)] = owner
    return owners


def _packages(parts: Sequence[Part]) -> dict[str, str]:
    """Owners by their packages, and by those around them where one owner alone lies in there."""
    around: dict[str, set[str]] = {}
    for part in parts:
        names = part.package.split(".")
        for length in range(1, len(names)):
            around.setdefault(".".join(names[:length]), set()).add(part.owner)
    alone = {package: owners.pop() for package, owners in around.items() if len(owners) == 1}
    return {**alone, **{part.package: part.owner for part in parts}}


def _owner_of(thing: object, packages: Mapping[str, str]) -> str:
    """Whose a class is, by the package that it lies in, or the one around that."""
    module = getattr(thing, "__module__", None) or ""
    while module:
        if module in packages:
            return packages[module]
        module = module.rpartition(".")[0]
    return CORE


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)
