"""Tries the fields that plugins add on a database without rows, so that SQL that cannot work is found before anybody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from graphql import GraphQLError, get_named_type, is_leaf_type, is_object_type, is_required_argument

from scrm.app import build_services, freeze_schema
from scrm.auth import EVERYTHING, Principal
from scrm.bounded import within
from scrm.config import Settings
from scrm.conformance import Finding
from scrm.db import Database
from scrm.errors import PluginFailedError, ScrmError, name_of, words_of
from scrm.graphql.context import Context
from scrm.graphql.gate import Gate
from scrm.graphql.model import Model
from scrm.graphql.plans import Plans
from scrm.graphql.schema import Frozen
from scrm.graphql.sources import Node, ResolverSource
from scrm.plugin_set import PluginSet

_DEPTH = 2
_EVERYBODY = Principal("a check", "KEY", frozenset({EVERYTHING}), pii=True)


def field_findings(settings: Settings, plugins: PluginSet, names: Collection[str]) -> list[Finding]:
    """Which fields of these plugins fail on the settings' database, which has their tables. What Python resolves is not tried."""
    try:
        return within(settings.plugin_start_seconds, lambda: asyncio.run(_findings(settings, plugins, names)))
    except TimeoutError:
        said = f"its fields cannot be tried: that has not ended after {settings.plugin_start_seconds:g} s"
        return [Finding(name, "error", said) for name in sorted(names)]


async def _findings(settings: Settings, plugins: PluginSet, names: Collection[str]) -> list[Finding]:
    frozen = freeze_schema(settings, plugins)
    db = Database(settings.database_url)
    try:
        services = build_services(settings, plugins, db)
        # Nobody's fields are left out when a statement fails: it is the failure that is looked for.
        plans = Plans(replace(frozen.model, plugins=frozenset()), db.sql_dialect)
        found = []
        for owner, name, document in _documents(frozen.model, names):
            gate = Gate(frozen.model, settings.server)  # a new one each time: what went before costs nothing
            context = Context(services, plans, gate, db.clock(), settings.language, _EVERYBODY)
            found += [
                Finding(owner, "error", f"field {name} of {owner} fails: {said}")
                for said in await _try(frozen, document, context)
            ]
        return found
    finally:
        await db.close()


async def _try(frozen: Frozen, document: str, context: Context) -> list[str]:
    try:
        result = await frozen.schema.execute(document, context_value=context)
    finally:
        await context.reads.close()
    return [_words(error) for error in result.errors or () if not isinstance(error.original_error, ScrmError)][:1]


def _words(error: GraphQLError) -> str:
    cause: BaseException = error.original_error or error
    if isinstance(cause, PluginFailedError) and cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{name_of(cause)}: {words_of(cause)}; mend its source"


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
