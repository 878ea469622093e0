"""Tries the fields and the indicators that plugins add on a database without rows, so that SQL that cannot work is found before
anybody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from graphql import GraphQLError, get_named_type, is_leaf_type, is_object_type, is_required_argument

from scrm.app import build_services, freeze_schema
from scrm.auth import EVERYTHING, Principal
from scrm.bounded import within
from scrm.config import Settings
from scrm.conformance import Finding
from scrm.db import Database, Instant
from scrm.errors import PluginFailedError, ScrmError, name_of, words_of
from scrm.graphql.context import Context
from scrm.graphql.gate import Gate
from scrm.graphql.model import Model
from scrm.graphql.plans import Plans
from scrm.graphql.schema import Frozen
from scrm.graphql.sources import ExpressionSource, Node, ResolverSource
from scrm.indicators.periods import complete_periods, read_series
from scrm.plugin import Indicator
from scrm.plugin_set import PluginSet
from scrm.sql import Row

_DEPTH = 2
_EVERYBODY = Principal("a check", "KEY", frozenset({EVERYTHING}), pii=True)


def field_findings(settings: Settings, plugins: PluginSet, names: Collection[str]) -> list[Finding]:
    """Which fields and indicators of these plugins fail on the settings' database, which has their tables. What Python
    resolves is not tried."""
    try:
        return within(settings.plugin_start_seconds, lambda: asyncio.run(_findings(settings, plugins, names)))
    except TimeoutError:
        said = f"its fields and indicators cannot be tried: that has not ended after {settings.plugin_start_seconds:g} s"
        return [Finding(name, "error", said) for name in sorted(names)]


async def _findings(settings: Settings, plugins: PluginSet, names: Collection[str]) -> list[Finding]:
    frozen = freeze_schema(settings, plugins)
    db = Database(settings.database_url)
    try:
        services = build_services(settings, plugins, db)
        # Nobody's fields are left out when a statement fails: it is the failure that is looked for.
        found = list(_mistyped(frozen.model, names))
        plans = Plans(replace(frozen.model, plugins=frozenset()), db.sql_dialect)
        for owner, name, document in _documents(frozen.model, names):
            gate = Gate(frozen.model, settings.server)  # a new one each time: what went before costs nothing
            context = Context(services, plans, gate, db.clock(), settings.language, _EVERYBODY)
            found += [
                Finding(owner, "error", f"field {name} of {owner} fails: {said}")
                for said in await _try(frozen, document, context)
            ]
        found += [
            Finding(owner, "error", f"indicator {indicator.key} of {owner} {said}")
            for owner, indicator in services.indicators.values()
            if owner in names and (said := await _try_indicator(db, settings, owner, indicator)) is not None
        ]
        return found
    finally:
        await db.close()


_FITTING: dict[str, tuple[type[Any], ...]] = {
    "enum": (sa.String, sa.Enum),
    "int": (sa.Integer, sa.Numeric),
    "bigint": (sa.Integer, sa.Numeric),
    "float": (sa.Integer, sa.Numeric, sa.Float),
    "bool": (sa.Boolean,),
    "date": (sa.Date,),
    "datetime": (sa.DateTime, Instant),
    "list": (sa.JSON, sa.ARRAY),
}
"""Of which types the SQL of a field may be; a text can be made of all, and JSON is any."""


def _mistyped(model: Model, names: Collection[str]) -> Iterator[Finding]:
    """Expressions that say of themselves that they are of another type than their fields."""
    for type_name, of_type in model.fields.items():
        rows = model.rows.get(type_name)
        for bound in of_type.values():
            if bound.owner not in names or not isinstance(bound.source, ExpressionSource) or not _asks_nothing(bound.definition):
                continue
            table = None if rows is None else rows.table
            given = () if table is None else (Row(dict(table.c), "t"),)
            try:
                made: Any = bound.source.build(*given, **dict.fromkeys(bound.source.arguments)).type
            except BaseException:  # said where the field is tried
                continue
            if isinstance(made, sa.types.TypeDecorator) and not isinstance(made, Instant):
                made = made.impl_instance
            kind = "list" if bound.is_list else bound.kind
            if not isinstance(made, (sa.types.NullType, *_FITTING.get(kind, (object,)))):
                said = f"field {bound.place} of {bound.owner} is declared as {kind}, and its SQL is of the type {made!s}"
                yield Finding(bound.owner, "error", f"{said}; make them one")


async def _try(frozen: Frozen, document: str, context: Context) -> list[str]:
    try:
        result = await frozen.schema.execute(document, context_value=context)
    finally:
        await context.reads.close()
    return [_words(error) for error in result.errors or () if not isinstance(error.original_error, ScrmError)][:1]


async def _try_indicator(db: Database, settings: Settings, owner: str, indicator: Indicator) -> str | None:
    """What is wrong with its values for two days and a month, or None."""
    at = db.clock()
    periods = [*complete_periods(at, settings.zone, "DAY", 2), *complete_periods(at, settings.zone, "MONTH", 1)]
    try:
        await db.read(read_series, owner, indicator, periods, None, at)
    except PluginFailedError as error:
        if error.__cause__ is None:
            return f"does not answer one Ratio for each of {len(periods)} periods; let its series answer so"
        return f"fails: {_said(error.__cause__)}; mend its series"
    except ScrmError as error:
        return f"refuses to answer: {_said(error)}; mend its series"
    return None


def _words(error: GraphQLError) -> str:
    cause: BaseException = error.original_error or error
    if isinstance(cause, PluginFailedError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{_said(cause)}; mend its source"


def _said(error: BaseException) -> str:
    return f"{name_of(error)}: {words_of(error)}"


def _documents(model: Model, names: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """For each field that can be asked for without a value: whose it is, what it is called, and the question."""
    nodes = {name for type_, name in model.type_names.items() if isinstance(type_, type) and issubclass(type_, Node)}
    for type_name, of_type in model.owned.items():
        for key, owner in of_type.items():
            bound = model.fields.get(type_name, {}).get(key)
            if (
                owner not in names
                or bound is None
                or isinstance(bound.source, ResolverSource)
                or not _asks_nothing(bound.definition)
            ):
                continue
            asked = f"{key} {_selection(bound.definition.type, _DEPTH)}"
            if type_name == "Query":
                yield owner, f"Query.{key}", f"{{ {asked} }}"
            elif type_name in nodes:
                yield (
                    owner,
                    f"{type_name}.{key}",
                    f'{{ node(id: "{type_name}_{"0" * 32}") {{ ... on {type_name} {{ {asked} }} }} }}',
                )


def _asks_nothing(definition: Any) -> bool:
    return not any(is_required_argument(argument) for argument in definition.args.values())


def _selection(type_: Any, depth: int) -> str:
    """Everything of a type that can be asked for without a value, so deep."""
    named = get_named_type(type_)
    if is_leaf_type(named):
        return ""
    if not is_object_type(named) or not depth:
        return "{ __typename }"
    fields = ((key, each) for key, each in named.fields.items() if _asks_nothing(each))
    return f"{{ __typename {' '.join(f'{key} {_selection(each.type, depth - 1)}' for key, each in fields)} }}"
