"""Texts that were sent, parsed, guarded and validated: each is looked at once, however often it comes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    OperationDefinitionNode,
    Visitor,
    parse,
    specified_rules,
    validate,
    visit,
)

from scrm.config import Limits
from scrm.errors import ScrmError
from scrm.graphql.guard import guard
from scrm.graphql.scan import check_text_of_document
from scrm.graphql.selection import SizeVariables

KEPT = 1_000_000
"""Characters of all texts together: a parsed document takes about a hundred times its text."""

MAX_ERRORS = 20


class Document:
    """A text that can be asked, or what is wrong with it."""

    def __init__(self, node: DocumentNode, errors: list[GraphQLError]) -> None:
        self.node = node
        self.errors = errors
        self.operations = [each for each in node.definitions if isinstance(each, OperationDefinitionNode)]
        self.fragments = {each.name.value: each for each in node.definitions if isinstance(each, FragmentDefinitionNode)}
        introspection, sizes = _Introspection(), SizeVariables()
        visit(node, introspection)
        visit(node, sizes)
        self.introspects = introspection.found
        self.size_variables = tuple(sorted(sizes.names))
        self.kept: dict[int, Any] = {}
        """What the short way knows of its operations, by their nodes' identities."""

    def operation(self, name: str | None) -> OperationDefinitionNode | None:
        """The operation that is meant.

        Raises:
            ScrmError: BAD_REQUEST where there are several and none is named.
        """
        if name is None and len(self.operations) == 1:
            return self.operations[0]
        if name is None and self.operations:
            raise ScrmError("BAD_REQUEST", f"the document has {len(self.operations)} operations; say operationName")
        named = (each for each in self.operations if name is None or (each.name is not None and each.name.value == name))
        return next(named, None)


class _Introspection(Visitor):
    found = False

    def enter_field(self, node: Any, *_: Any) -> None:
        self.found = self.found or node.name.value in ("__schema", "__type")


class Documents:
    """The bounded memory of one schema's documents."""

    def __init__(self, schema: GraphQLSchema, limits: Limits, *, hints: bool, kept: int = KEPT) -> None:
        self._schema = schema
        self._limits = limits
        self._hints = hints
        self._kept, self._size = kept, 0
        self._known: OrderedDict[str, Document] = OrderedDict()

    def read(self, text: str) -> Document:
        """The document of a text.

        Raises:
            GraphQLError: it is not GraphQL.
            ScrmError: TOO_MANY_TOKENS, and what `check_text_of_document` and `guard` refuse.
        """
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = self._read(text)
            self._size += len(text)
            while self._size > self._kept and len(self._known) > 1:
                self._size -= len(self._known.popitem(last=False)[0])
        else:
            self._known.move_to_end(text)
        return found

    def _read(self, text: str) -> Document:
        check_text_of_document(text, self._limits)
        node = parse(text)
        guard(node, self._limits)
        errors = validate(self._schema, node, specified_rules, MAX_ERRORS, hide_suggestions=not self._hints)
        if not self._hints:
            for error in errors:
                error.message = error.message.partition(" Did you mean ")[0]
        return Document(node, errors)
