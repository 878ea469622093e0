"""The short way: a query whose roots are all compiled goes from its text to its plans, past parser, validation and executor.

It takes the same gate, runs the same plans and writes the same bytes. Whatever is out of the ordinary, an error above all,
is left to the long way, which says it, unless there is no database to ask.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from graphql import FieldNode, GraphQLError, OperationDefinitionNode, OperationType
from graphql.execution.collect_fields import FieldDetails, FragmentDetails
from graphql.execution.values import get_variable_values

from scrm.errors import ScrmError, UnavailableError
from scrm.graphql.context import Context
from scrm.graphql.documents import Document
from scrm.graphql.gate import Gate
from scrm.graphql.model import BoundField
from scrm.graphql.plans import Facts, Plans, run
from scrm.graphql.requests import Asked
from scrm.graphql.selection import Operation
from scrm.graphql.sources import ResolverSource

log = logging.getLogger("scrm.graphql")


Type = tuple[type, bool]
"""A leaf's Python type, and whether a variable is a list of such."""


@dataclass(frozen=True, slots=True)
class Root:
    """A compiled root field of a query."""

    key: str
    bound: BoundField
    details: list[FieldDetails]


@dataclass(frozen=True, slots=True)
class Known:
    """An operation that the short way takes."""

    node: OperationDefinitionNode
    operation: Operation
    roots: tuple[Root, ...]
    plain: Mapping[str, Type] | None
    """The variables' Python types, where each is required and what its caller sends is its value."""


class Shortcut:
    """The short way of one schema. `open` is False where only the long way is to be taken."""

    def __init__(self, plans: Plans, gate: Gate) -> None:
        self.open = True
        self.taken = 0
        self._plans = plans
        self._gate = gate

    async def answer(self, context: Context, asked: Asked) -> bytes | None:
        """The whole answer's JSON, or None: the long way gives it then."""
        if not self.open or asked.extensions:
            return None
        try:
            document = self._gate.documents.read(asked.query)
            known = self._find(document, asked.operation_name)
            variables = None if known is None else self._variables(known, asked.variables)
            if known is None or variables is None:
                return None
            context.charged = self._gate.admit(context, document, known.node, asked.variables or {})
            data = await self._data(context, known, variables)
        except UnavailableError:
            raise
        except (ScrmError, GraphQLError):
            return None
        except Exception:
            log.debug("left to the long way")
            return None
        if data is None:
            return None
        self.taken += 1
        extensions = orjson.dumps({"cost": context.charged.shown()})
        return b"".join((b'{"data":{', *data, b'},"extensions":', extensions, b"}"))

    async def _data(self, context: Context, known: Known, variables: dict[str, Any]) -> list[bytes] | None:
        """The members of `data`, piece by piece; None where one of them failed."""
        if len(known.roots) > 1:
            context.reads.shared = True
        facts = Facts(variables, context.moment, context.principal.user_id)
        data: list[bytes] = []
        for root in known.roots:
            place = self._plans.root(known.operation, root.bound, root.details, root.key, variables, context.grants)
            if self._plans.culprits.too_slow(place, context.now):
                return None
            with context.reading(place):
                found = await self._plans.answer(
                    place, lambda plan: run(plan, context.snapshot(plan, _NOBODY), facts, context.batch_info)
                )
            if found.failures:
                return None
            value = found.json
            data += (b',"' if data else b'"', root.key.encode(), b'":', value.encode() if isinstance(value, str) else value)
        return data

    def _variables(self, known: Known, given: Mapping[str, Any] | None) -> dict[str, Any] | None:
        given = given or {}
        if known.plain is not None:
            return _plain(known.plain, given)
        read = get_variable_values(self._plans.model.schema, known.node.variable_definitions or (), dict(given))
        return None if isinstance(read, list) else read.coerced

    def _find(self, document: Document, name: str | None) -> Known | None:
        node = None if document.errors or document.introspects else document.operation(name)
        if node is None:
            return None
        of_document: dict[int, Known | None] = document.kept
        if id(node) not in of_document:  # nodes are equal where their texts are, whatever their fragments say
            of_document[id(node)] = self._look(document, node)
        return of_document[id(node)]

    def _look(self, document: Document, node: OperationDefinitionNode) -> Known | None:
        if node.operation is not OperationType.QUERY or node.directives:
            return None
        roots: dict[str, Root] = {}
        for each in node.selection_set.selections:
            if not isinstance(each, FieldNode) or each.directives:
                return None
            key = each.alias.value if each.alias else each.name.value
            bound = self._plans.model.root("Query", each.name.value)
            if bound is None or isinstance(bound.source, ResolverSource) or key in roots:
                return None
            roots[key] = Root(key, bound, [FieldDetails(each, None)])
        fragments = {name: FragmentDetails(each) for name, each in document.fragments.items()}
        operation = self._plans.operation(self._plans.model.schema, node, fragments)
        return Known(node, operation, tuple(roots.values()), _types(operation))


_NOBODY: frozenset[str] = frozenset()
_PLAIN = {"String": str, "ID": str, "Int": int, "Boolean": bool}


def _types(operation: Operation) -> Mapping[str, Type] | None:
    """What the variables' values are, where each is a leaf or a list of leaves that is sent as it is meant."""
    if any(definition.default_value for definition in operation.node.variable_definitions or ()):
        return None
    found = {}
    for name, type_ in operation.types.items():
        said = str(type_).removesuffix("!")
        listed = said.startswith("[") and said.endswith("!]")
        leaf = _PLAIN.get(said[1:-2] if listed else said)
        if leaf is None:
            return None
        found[name] = leaf, listed
    return found


def _plain(types: Mapping[str, Type], given: Mapping[str, Any]) -> dict[str, Any] | None:
    for name, (type_, listed) in types.items():
        value = given.get(name)
        if type(value) is not (list if listed else type_):
            return None  # absent, null or another type: the long way says what it means
        for each in value if isinstance(value, list) else (value,):
            if type(each) is not type_ or (isinstance(each, int) and not -(2**31) <= each < 2**31):
                return None
    return {name: given[name] for name in types}
