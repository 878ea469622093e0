"""What a document may ask at most, measured once in one pass, before anything that could be slow looks at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

from scrm.config import Limits
from scrm.errors import ScrmError

COMPARISONS = 10_000
"""Pairs of fields under one response key that validation may have to compare."""

FRAGMENTS = 60
"""Each is compared with each by validation."""

_VISITS = 5_000

INTROSPECTION_DEPTH = 20
_INTROSPECTION = ("__schema", "__type")


@dataclass(frozen=True, slots=True)
class Size:
    """What a selection comes to with its fragments spread."""

    depth: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0
    schema_depth: int = 0
    """Depth below `__schema` and `__type`."""

    def below(self, other: Size, node: FieldNode) -> Size:
        """With one more field, whose selection is `other`."""
        asks_schema = node.name.value in _INTROSPECTION
        return Size(
            max(self.depth, 1 if asks_schema else other.depth + 1),
            self.fields + other.fields + 1,
            self.aliases + other.aliases + (node.alias is not None),
            self.directives + other.directives + len(node.directives or ()),
            max(self.schema_depth, other.depth + 1 if asks_schema else other.schema_depth),
        )

    def beside(self, other: Size, node: Any) -> Size:
        """With what a fragment brings."""
        return Size(
            max(self.depth, other.depth),
            self.fields + other.fields,
            self.aliases + other.aliases,
            self.directives + other.directives + len(node.directives or ()),
            max(self.schema_depth, other.schema_depth),
        )


def guard(document: DocumentNode, limits: Limits) -> None:
    """Refuse a document of which an operation asks too much; linear in the document, whatever its fragments spread to.

    Raises:
        ScrmError: TOO_DEEP, TOO_MANY_FIELDS, TOO_MANY_ALIASES, TOO_MANY_DIRECTIVES.
    """
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    if len(fragments) > FRAGMENTS:
        raise ScrmError("TOO_MANY_FIELDS", f"the document defines {len(fragments)} fragments; at most {FRAGMENTS} are read")
    measure = _Measure(fragments)
    for each in document.definitions:
        if isinstance(each, OperationDefinitionNode):
            size = measure.of(each.selection_set)
            _check("levels", size.depth, limits.depth, code="TOO_DEEP")
            _check("levels below __schema", size.schema_depth, INTROSPECTION_DEPTH, code="TOO_DEEP")
            _check("fields with its fragments spread", size.fields, limits.fields, code="TOO_MANY_FIELDS")
            _check("aliases", size.aliases, limits.aliases, code="TOO_MANY_ALIASES")
            _check("directives", size.directives + len(each.directives or ()), limits.directives, code="TOO_MANY_DIRECTIVES")
            if _comparisons([each.selection_set], fragments) > COMPARISONS:
                raise ScrmError("TOO_MANY_FIELDS", "the operation selects the same fields too many times over; select each once")


def _check(what: str, found: int, limit: int, *, code: str) -> None:
    if found > limit:
        shown = found if found < 10**6 else f"over {10**6}"
        raise ScrmError(code, f"the operation has {shown} {what}; at most {limit} are answered", params={"limit": limit})


class _Measure:
    """Each fragment is measured once. One that spreads itself counts as nothing where it does: validation refuses it."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._known: dict[str, Size] = {}

    def of(self, selection_set: SelectionSetNode | None) -> Size:
        size = Size()
        for node in selection_set.selections if selection_set is not None else ():
            if isinstance(node, FieldNode):
                size = size.below(self.of(node.selection_set), node)
            elif isinstance(node, FragmentSpreadNode):
                name = node.name.value
                if name not in self._known and name in self._fragments:
                    self._known[name] = Size()
                    self._known[name] = self.of(self._fragments[name].selection_set)
                size = size.beside(self._known.get(name, Size()), node)
            else:
                size = size.beside(self.of(getattr(node, "selection_set", None)), node)
        return size


def _comparisons(sets: Iterable[SelectionSetNode], fragments: Mapping[str, FragmentDefinitionNode]) -> int:
    """How many pairs of fields answer to one key, here and below: each is compared with each by validation."""
    total = visits = 0
    waiting = [list(sets)]
    while waiting and total <= COMPARISONS and visits <= _VISITS:  # a fragment that spreads itself has no end
        keys: dict[str, list[SelectionSetNode | None]] = {}
        flat, seen = waiting.pop(), set()
        while flat:
            for node in flat.pop().selections:
                if isinstance(node, FieldNode):
                    key = node.alias.value if node.alias else node.name.value
                    keys.setdefault(key, []).append(node.selection_set)
                elif isinstance(node, FragmentSpreadNode):
                    if node.name.value not in seen and node.name.value in fragments:
                        seen.add(node.name.value)
                        flat.append(fragments[node.name.value].selection_set)
                elif (inner := getattr(node, "selection_set", None)) is not None:
                    flat.append(inner)
        for found in keys.values():
            visits += len(found)
            total += len(found) * (len(found) - 1) // 2
            if below := [each for each in found if each is not None]:
                waiting.append(below)
    return total
