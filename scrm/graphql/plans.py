"""Plans: compiled statements kept by what shaped them, and their running."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import orjson
import sqlalchemy as sa
from graphql.execution.collect_fields import FieldDetails

from scrm.db import Snapshot
from scrm.errors import ScrmError, name_of
from scrm.graphql.compiler import Compiled, Compiler, FieldFailure, Grants, Part, arguments_of
from scrm.graphql.culprits import Culprits
from scrm.graphql.encoding import MARKED, PARENTS
from scrm.graphql.filling import fill, places_of, read_arguments
from scrm.graphql.filters import OTHER_CURSOR
from scrm.graphql.model import BoundField, Model
from scrm.graphql.places import Place
from scrm.graphql.selection import Operation, Selection, read_operation
from scrm.graphql.sources import BatchInfo
from scrm.sql import HELD, Convert, Held, ListOf, Moment, Value

if TYPE_CHECKING:
    from scrm.graphql.context import Context

T = TypeVar("T")

log = logging.getLogger("scrm.graphql")

PLANS = 2_000
LEVELS = (None, 4, 2, 1)
"""How many objects and lists one statement nests: all of them, and, while SQLite's parser refuses it, fewer."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a plan's parameters are filled from, besides the variables."""

    variables: Mapping[str, Any]
    moment: Moment
    self_id: UUID | None
    ids: Sequence[Any] = ()
    held: object = None
    parents: str = ""
    mark: str = ""


Recipe = Callable[[Facts], Any]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement's text and how to fill it in."""

    sql: str
    recipes: tuple[Recipe, ...]

    async def rows(self, snapshot: Snapshot, facts: Facts) -> list[tuple[Any, ...]]:
        """What it answers.

        Raises:
            NestedTooDeepError: this SQLite cannot parse it.
        """
        parameters = [recipe(facts) for recipe in self.recipes]
        try:
            return await snapshot.fetch(self.sql, parameters)
        except sqlite3.OperationalError as error:
            if any(said in str(error) for said in _TOO_DEEP):
                raise NestedTooDeepError from error
            raise


_TOO_DEEP = ("parser stack overflow", "Expression tree is too large")


class NestedTooDeepError(Exception):
    """SQLite's parser has a stack of a hundred places until 3.46."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What answers one place of an operation: its statement, and those for the parts that are read apart."""

    statement: Statement
    parts: tuple[tuple[Part, Statement], ...]
    compiled: Compiled
    key: Any = None

    def as_of(self, facts: Facts) -> Facts:
        """The facts for this run: a further page is answered as of its first page's instant."""
        if self.compiled.batches:
            facts = replace(facts, mark=secrets.token_hex(8))
        first = self.compiled.first_now
        return facts if first is None else replace(facts, moment=facts.moment.at(_first_instant(first, facts)))


@dataclass(frozen=True, slots=True)
class Answer:
    """JSON as the database wrote it (or as filled in by batch fields), and what failed in it."""

    json: bytes | str
    failures: tuple[FieldFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class _Kept:
    """A plan, the operation that its key is made of, and which of the levels it is compiled with."""

    operation: Operation
    plan: Plan | None
    tried: int


class Plans:
    """The bounded cache of one schema's plans. Shared by all requests; nothing in it belongs to one."""

    def __init__(self, model: Model, dialect: Any, limit: int = PLANS) -> None:
        self.model = model
        self.dialect = dialect
        self.limit = limit
        self.hits = self.misses = 0
        self.levels: Sequence[int | None] = LEVELS
        self.culprits = Culprits(model, limit)
        self._plans: OrderedDict[Any, _Kept] = OrderedDict()
        self._operations: OrderedDict[int, Operation] = OrderedDict()

    def operation(self, schema: Any, node: Any, fragments: Mapping[str, Any]) -> Operation:
        """What is known of an operation; the same parsed document gives the same one."""
        found = self._operations.get(id(node))
        if found is None or found.node is not node:
            found = self._operations[id(node)] = read_operation(schema, node, fragments)
            if len(self._operations) > self.limit:
                self._operations.popitem(last=False)
        return found

    def root(
        self,
        operation: Operation,
        bound: BoundField,
        details: list[FieldDetails],
        key: str,
        variables: Mapping[str, Any],
        grants: Grants,
    ) -> Place:
        """A root field."""
        at = (bound.parent, key)
        return Place(operation, at, bound.target, details, variables, grants, lambda compiler: compiler.root(bound, details))

    def held(
        self,
        operation: Operation,
        bound: BoundField,
        details: list[FieldDetails],
        held: object,
        variables: Mapping[str, Any],
        grants: Grants,
    ) -> Place:
        """A compiled field on an object that Python holds."""
        at = (bound.parent, tuple(id(detail.node) for detail in details))
        row = Held(held)
        return Place(operation, at, bound.target, details, variables, grants, lambda compiler: compiler.root(bound, details, row))

    def arguments(
        self, operation: Operation, bound: BoundField, details: list[FieldDetails], variables: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A field's arguments with the values of this request, by what its source calls them."""
        return read_arguments(arguments_of(Selection(self.model, operation, variables), bound, details), variables)

    def refs(
        self, operation: Operation, type_name: str, details: list[FieldDetails], variables: Mapping[str, Any], grants: Grants
    ) -> Place:
        """Rows named by Python, by key."""
        at = (type_name, tuple(id(detail.node) for detail in details))
        ids = sa.bindparam("ids", type_=ListOf(sa.Uuid()), unique=False)
        return Place(
            operation, at, type_name, details, variables, grants, lambda compiler: compiler.refs(type_name, ids, details)
        )

    def _plan(self, place: Place, excluded: frozenset[str]) -> Plan:
        key = (place.key(), excluded)
        kept = self._plans.get(key)
        if kept is not None and kept.plan is not None:
            self.hits += 1
            self._plans.move_to_end(key)
            return kept.plan
        self.misses += 1
        tried = 0 if kept is None else kept.tried
        selection = Selection(self.model, place.operation, place.variables)
        compiler = Compiler(self.model, self.dialect.name, selection, place.grants, excluded, self.levels[tried])
        plan = replace(finish(_compiled(place.compile, compiler), self.dialect), key=key)
        self._plans[key] = _Kept(place.operation, plan, tried)
        if len(self._plans) > self.limit:
            self._plans.popitem(last=False)
        return plan

    async def answer(self, place: Place, run_: Callable[[Plan], Awaitable[T]], excluded: frozenset[str] = frozenset()) -> T:
        """Run a place's plan, without the fields that are named as `Type.field`; where SQLite's parser refuses it, in smaller
        parts, and so from then on.

        Raises:
            ScrmError: QUERY_TOO_DEEP where no parts are small enough.
        """
        while True:
            plan = self._plan(place, excluded)
            try:
                return await run_(plan)
            except NestedTooDeepError as error:
                kept = self._plans.get(plan.key)
                if kept is None or kept.plan is not plan:  # somebody else was as far
                    continue
                if kept.tried == len(self.levels) - 1:
                    words = (
                        "an expression is nested deeper than this SQLite's parser goes; nest the filter less, or use PostgreSQL"
                    )
                    raise ScrmError("QUERY_TOO_DEEP", words) from error
                self._plans[plan.key] = _Kept(kept.operation, None, kept.tried + 1)

    def suspect(self, context: Context) -> None:
        """Look whether it is a plugin's fault that a request took too long."""
        db = context.services.db
        for place in context.places:
            facts = Facts(place.variables, context.moment, context.principal.user_id)
            self.culprits.suspect(place, partial(self.answer, place, partial(run, snapshot=db, facts=facts, info=None)), db.clock)

    def __len__(self) -> int:
        return len(self._plans)


def _compiled(compile_: Callable[[Compiler], Compiled], compiler: Compiler) -> Compiled:
    try:
        return compile_(compiler)
    except Exception:
        raise
    except BaseException as error:  # a plugin's source function must not end the server
        raise RuntimeError(f"a source function raised {name_of(error)}") from error


def finish(compiled: Compiled, dialect: Any) -> Plan:
    """The statements' texts, and for each of their parameters where its value comes from."""
    parts = tuple((part, _statement(part.statement, dialect)) for part in compiled.parts)
    return Plan(_statement(compiled.statement, dialect), parts, compiled)


def _statement(select: sa.Select[Any], dialect: Any) -> Statement:
    text: Any = select.compile(dialect=dialect)
    whole = text.construct_expanded_state({bind.key: None for bind in text.binds.values() if bind.required})
    names: Sequence[str] = whole.positiontup or ()
    recipes = (
        _recipe(text.binds[name], dialect) if name in text.binds else _member(text, name, whole.parameters[name], dialect)
        for name in names
    )
    return Statement(whole.statement, tuple(recipes))


def _member(text: Any, name: str, value: Any, dialect: Any) -> Recipe:
    """One of the constants of an `in_([...])`, which SQLAlchemy names after the list with a number behind."""
    process = text.binds[name.rpartition("_")[0]].type.dialect_impl(dialect).bind_processor(dialect)
    constant = process(value) if process else value
    return lambda _facts: constant


def _recipe(bind: Any, dialect: Any) -> Recipe:
    processor = bind.type.dialect_impl(dialect).bind_processor(dialect)
    process = processor or (lambda value: value)
    if isinstance(bind, Value):
        slot, convert = bind.slot, bind.convert
        if convert is None:
            return lambda facts: process(slot.read(facts.variables))
        return lambda facts: process(_converted(convert, slot.read(facts.variables), facts.moment))
    if bind.key == "now":
        return lambda facts: process(facts.moment.now)
    if bind.key == "today":
        return lambda facts: process(facts.moment.today)
    if bind.key == "currency":
        return lambda facts: process(facts.moment.currency)
    if bind.key == "self":
        return lambda facts: process(facts.self_id)
    if bind.key.startswith(HELD):
        name = bind.key.removeprefix(HELD)
        return lambda facts: process(getattr(facts.held, name))
    if bind.key == MARKED.key:
        return lambda facts: facts.mark
    if bind.key == PARENTS:
        return lambda facts: facts.parents
    if bind.key == "ids":
        return lambda facts: process(list(facts.ids))
    constant = process(bind.effective_value)
    return lambda _facts: constant


def _converted(convert: Convert, value: Any, moment: Moment) -> Any:
    return None if value is None else convert(value, moment)


_OLDEST, _AHEAD = timedelta(days=366), timedelta(minutes=5)
"""How long ago a first page may have been, and how far servers' clocks may be apart."""


def _first_instant(value: Value, facts: Facts) -> datetime:
    assert value.convert is not None
    try:
        instant = datetime.fromisoformat(value.convert(value.slot.read(facts.variables), facts.moment))
        if instant.tzinfo is None or not facts.moment.now - _OLDEST <= instant <= facts.moment.now + _AHEAD:
            raise ValueError(instant)
        return instant
    except (ValueError, TypeError, OverflowError):
        raise ScrmError("INVALID_CURSOR", OTHER_CURSOR) from None


async def run(plan: Plan, snapshot: Snapshot, facts: Facts, info: Callable[[], BatchInfo] | None) -> Answer:
    """Run a root's plan. Without `info` its batch fields are left open: whether its statements work is all that is asked."""
    facts = plan.as_of(facts)
    value = (await plan.statement.rows(snapshot, facts))[0][0]
    failures = tuple(plan.compiled.failed)
    if value is None or value == "null":
        return Answer(b"null")
    if not (plan.compiled.batches or plan.parts):
        return Answer(value, failures)
    [whole], failed = await _complete([value], plan, snapshot, facts, info)
    return Answer(whole, (*failures, *failed))


async def run_refs(
    plan: Plan, snapshot: Snapshot, facts: Facts, info: Callable[[], BatchInfo] | None
) -> tuple[dict[Any, bytes | str], tuple[FieldFailure, ...]]:
    """Run a plan for named rows: JSON by key. Without `info` their batch fields are left open."""
    facts = plan.as_of(facts)
    found = {_key(row[0]): row[1] for row in await plan.statement.rows(snapshot, facts)}
    failures = tuple(plan.compiled.failed)
    if not (plan.compiled.batches or plan.parts):
        return found, failures
    whole, failed = await _complete(list(found.values()), plan, snapshot, facts, info)
    return dict(zip(found, whole, strict=True)), (*failures, *failed)


async def _complete(
    values: Sequence[bytes | str], plan: Plan, snapshot: Snapshot, facts: Facts, info: Callable[[], BatchInfo] | None
) -> tuple[Sequence[bytes], list[FieldFailure]]:
    """The values with their parts read and their batch fields filled in."""
    texts = [value.encode() if isinstance(value, str) else value for value in values]
    if plan.parts:
        trees = [orjson.loads(text) for text in texts]
        for part, statement in plan.parts:
            await _read_part(trees, part, statement, snapshot, facts)
        texts = [orjson.dumps(tree) for tree in trees]
    return (texts, []) if info is None else await fill(texts, plan.compiled.batches, facts.mark, facts.variables, info())


async def _read_part(trees: Sequence[Any], part: Part, statement: Statement, snapshot: Snapshot, facts: Facts) -> None:
    places: list[tuple[dict[str, Any], tuple[Any, ...]]] = []
    for tree in trees:
        places_of(tree, part.path, (), places)
    parents = [orjson.dumps(target.pop(part.reserved)) for target, _ in places]
    distinct = {parent: index for index, parent in enumerate(dict.fromkeys(parents))}
    if not distinct:
        return
    facts = replace(facts, parents=f"[{b','.join(distinct).decode()}]")
    found = dict(await statement.rows(snapshot, facts))
    for (target, _), parent in zip(places, parents, strict=True):
        value = found[distinct[parent]]
        target[part.key] = None if value is None else orjson.loads(value)


def _key(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(hex=str(value))
