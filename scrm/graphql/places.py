"""A place of an operation that is answered by a plan: which one, for whom, and which fields are asked for there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graphql.execution.collect_fields import FieldDetails

from scrm.graphql.compiler import Compiled, Compiler, Grants
from scrm.graphql.model import Model
from scrm.graphql.selection import Operation, Selection, shape


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where in an operation, for which caller, and how it is compiled."""

    operation: Operation
    at: Any
    type_name: str | None
    details: list[FieldDetails]
    variables: Mapping[str, Any]
    grants: Grants
    compile: Callable[[Compiler], Compiled]

    def key(self) -> Any:
        """What makes its plan another one. It holds the operation's address, so whoever keeps it keeps the operation."""
        return (id(self.operation), self.at, self.grants, shape(self.operation, self.variables))

    def fields_of_plugins(self, model: Model) -> list[str]:
        """The fields, as `Type.field`, that plugins have in it and that may be null; one that holds others before these."""
        depths: dict[str, int] = {}
        selection = Selection(model, self.operation, self.variables)

        def walk(type_name: str, details: list[FieldDetails], depth: int) -> None:
            for _, name, nodes in selection.fields(type_name, details):
                bound = model.fields[type_name].get(name)
                if bound is None:
                    continue
                if bound.owner in model.plugins and bound.nullable:
                    depths[bound.place] = max(depth, depths.get(bound.place, 0))
                if bound.target is not None:
                    walk(bound.target, nodes, depth + 1)

        if self.type_name is not None:
            walk(self.type_name, self.details, 0)
        return sorted(depths, key=lambda place: (depths[place], place))
