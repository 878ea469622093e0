"""What an operation costs, known before it runs, and what each caller has left.

A leaf costs its field's weight, an object one more; a page costs its size times what is asked of each. An operation is priced by
what it may return at most, with the page sizes it asks for.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    IntValueNode,
    OperationDefinitionNode,
    SchemaMetaFieldDef,
    SelectionSetNode,
    TypeMetaFieldDef,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_list_type,
)

from scrm.config import CostSettings
from scrm.errors import ScrmError
from scrm.graphql.documents import Document
from scrm.graphql.model import Model
from scrm.graphql.pages import PAGE_LIMIT, PAGE_SIZE
from scrm.graphql.selection import PAGE
from scrm.graphql.sources import ManySource

META: Mapping[str, GraphQLField] = {"__schema": SchemaMetaFieldDef, "__type": TypeMetaFieldDef}
LISTED = 10
"""How long a list without a size is taken to be."""


@dataclass(frozen=True, slots=True)
class Price:
    """The points that an operation costs, and how many objects it may return."""

    cost: int = 0
    nodes: int = 0
    about: int = 0
    """Of these the ones that describe the schema: more than others may be, for they cost no database."""

    def __add__(self, other: Price) -> Price:
        return Price(self.cost + other.cost, self.nodes + other.nodes, self.about + other.about)

    def times(self, count: int) -> Price:
        """Of so many."""
        return Price(self.cost * count, self.nodes * count, self.about * count)


@dataclass
class Pricing:
    """Prices of one schema's operations, each worked out once for its page sizes."""

    model: Model
    limit: int = 2_000
    _known: OrderedDict[Hashable, tuple[OperationDefinitionNode, Price]] = field(default_factory=OrderedDict)

    def of(self, operation: OperationDefinitionNode, document: Document, variables: Mapping[str, Any]) -> Price:
        """What this valid operation costs with these variables, as the caller sent them."""
        sizes = tuple((name, _size(variables[name])) for name in document.size_variables if name in variables)
        key = (id(operation), sizes)
        found = self._known.get(key)
        if found is None:
            walk = _Walk(self.model, operation, document.fragments, dict(sizes))
            root = operation.operation.value.title()
            found = self._known[key] = (operation, walk.of(root, operation.selection_set, 1))
            if len(self._known) > self.limit:
                self._known.popitem(last=False)
        return found[1]


def _size(value: Any) -> int:
    if value is None:
        return PAGE_SIZE
    ok = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= PAGE_LIMIT
    return value if ok else PAGE_LIMIT


class _Walk:
    def __init__(
        self,
        model: Model,
        operation: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
        sizes: Mapping[str, int],
    ) -> None:
        self._model = model
        self._connections = {each.target for of_type in model.fields.values() for each in of_type.values() if each.is_connection}
        self._fragments = fragments
        self._spread: dict[tuple[str, int], Price] = {}
        self._sizes = dict(sizes)
        for definition in operation.variable_definitions or ():
            default = definition.default_value
            if isinstance(default, IntValueNode):
                self._sizes.setdefault(definition.variable.name.value, _size(int(default.value)))

    def of(self, type_name: str, selections: SelectionSetNode | None, page: int) -> Price:
        price = Price()
        for node in selections.selections if selections is not None else ():
            if isinstance(node, FieldNode):
                price += self._field(type_name, node, page)
            elif isinstance(node, FragmentSpreadNode):
                price += self._fragment(node.name.value, page)
            else:
                on = getattr(node, "type_condition", None)
                price += self.of(on.name.value if on else type_name, getattr(node, "selection_set", None), page)
        return price

    def _fragment(self, name: str, page: int) -> Price:
        """Worked out once for each page size, however often it is spread."""
        if (name, page) not in self._spread:
            fragment = self._fragments[name]
            self._spread[name, page] = self.of(fragment.type_condition.name.value, fragment.selection_set, page)
        return self._spread[name, page]

    def _field(self, type_name: str, node: FieldNode, page: int) -> Price:
        name = node.name.value
        if name in META or type_name.startswith("__"):
            return self._about(type_name, node)
        definition = getattr(self._model.schema.type_map[type_name], "fields", {}).get(name)
        bound = self._model.fields.get(type_name, {}).get(name)
        weight = bound.source.weight if bound is not None else 0
        if definition is None or node.selection_set is None:
            return Price(weight)
        target, listed = get_named_type(definition.type).name, is_list_type(get_nullable_type(definition.type))
        if bound is not None and bound.is_connection:
            return Price(weight + 1) + self.of(target, node.selection_set, self._page(node))
        each = Price(1, 1) + self.of(target, node.selection_set, page)
        if not listed:
            return Price(weight) + each
        of_page = type_name in self._connections and name in ("nodes", "edges")
        cap = bound.source.cap if bound is not None and isinstance(bound.source, ManySource) else LISTED
        return Price(weight) + each.times(page if of_page else min(cap, self._asked(node) or LISTED))

    def _about(self, type_name: str, node: FieldNode) -> Price:
        """What describes the schema: so many of each as there are at most, or about."""
        definition = META.get(node.name.value) or self._model.schema.type_map[type_name].fields.get(node.name.value)  # type: ignore[attr-defined]
        if definition is None or node.selection_set is None:
            return Price()
        each = Price(1, 0, 1) + self.of(get_named_type(definition.type).name, node.selection_set, 1)
        if not is_list_type(get_nullable_type(definition.type)):
            return each
        return each.times(len(self._model.schema.type_map) if node.name.value == "types" else LISTED)

    def _page(self, node: FieldNode) -> int:
        asked = self._asked(node)
        return PAGE_SIZE if asked is None else asked

    def _asked(self, node: FieldNode) -> int | None:
        for argument in node.arguments or ():
            if argument.name.value in PAGE:
                value = argument.value
                if isinstance(value, IntValueNode):
                    return _size(int(value.value))
                if isinstance(value, VariableNode) and value.name.value in self._sizes:
                    return self._sizes[value.name.value]
        return None


@dataclass(frozen=True, slots=True)
class Charged:
    """What a request cost and what its caller has left."""

    cost: int
    left: int
    settings: CostSettings

    def shown(self) -> dict[str, Any]:
        """`extensions.cost`."""
        return {
            "requestedQueryCost": self.cost,
            "actualQueryCost": self.cost,
            "throttleStatus": {
                "maximumAvailable": self.settings.maximum,
                "currentlyAvailable": self.left,
                "restoreRate": self.settings.restore_per_second,
            },
        }


class Buckets:
    """How much each caller has left in this process; it fills again all the time."""

    def __init__(self, settings: CostSettings, clock: Callable[[], float] = time.monotonic, limit: int = 10_000) -> None:
        self.settings = settings
        self._clock = clock
        self._limit = limit
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def charge(self, caller: Hashable, cost: int) -> Charged:
        """Take what a request costs.

        Raises:
            ScrmError: QUERY_TOO_EXPENSIVE for more than a full bucket; THROTTLED, with `retryAfterSeconds`, for more than is
                left.
        """
        most, rate, now = self.settings.maximum, self.settings.restore_per_second, self._clock()
        if cost > most:
            said = f"the operation costs {cost}; at most {most} can be asked at once: ask for smaller pages or fewer fields"
            raise ScrmError("QUERY_TOO_EXPENSIVE", said, params={"cost": cost, "limit": most})
        left, since = self._left.get(caller, (float(most), now))
        left = min(most, left + (now - since) * rate)
        if cost > left:
            seconds = round((cost - left) / rate, 3)
            said = f"the operation costs {cost} and {int(left)} is left; ask again in {seconds:g} s"
            raise ScrmError("THROTTLED", said, params={"cost": cost, "available": int(left), "retryAfterSeconds": seconds})
        self._left[caller] = (left - cost, now)
        self._left.move_to_end(caller)
        if len(self._left) > self._limit:
            self._left.popitem(last=False)
        return Charged(cost, int(left - cost), self.settings)
