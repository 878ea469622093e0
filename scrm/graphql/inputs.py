"""Inputs of which a request brings many: built by a plan that is made once, not by asking of each value what its type is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from strawberry.scalars import is_scalar
from strawberry.types.arguments import InputContext
from strawberry.types.base import StrawberryOptional, get_object_definition

T = TypeVar("T")


class _Field(NamedTuple):
    said: str
    name: str
    type: Any
    plan: _Plan | None
    """How to build an input in it."""


class _Plan(NamedTuple):
    made: type
    nothing: dict[str, None]
    """Fields without a default, which are null where nothing is said."""
    plain: tuple[tuple[str, str], ...]
    """Fields whose values are taken as they are: their names in GraphQL and in Python."""
    others: tuple[_Field, ...]

    def build(self, value: Mapping[str, Any], context: InputContext) -> Any:
        """An input of what was said."""
        known = dict(self.nothing)
        for said, name in self.plain:
            if said in value:
                known[name] = value[said]
        for field in self.others:
            if field.said in value:
                inner: Any = value[field.said]
                if field.plan is None or inner is None:
                    inner = context.convert(inner, field.type, field.said)
                else:
                    inner = field.plan.build(inner, context)
                known[field.name] = inner
        return self.made(**known)


class _Quick:
    def __init__(self) -> None:
        self._plan: _Plan | None = None

    def __call__(self, made: type, value: Mapping[str, Any], context: InputContext) -> Any:
        if self._plan is None:
            self._plan = _plan(made, context)
        return self._plan.build(value, context)


def built_quickly(cls: type[T]) -> type[T]:
    """For an input type, with those of its fields, that comes in lists of hundreds."""
    definition = get_object_definition(cls, strict=True)
    definition.from_input = _Quick()
    return cls


def _plan(made: type, context: InputContext) -> _Plan:
    definition = get_object_definition(made, strict=True)
    nothing: dict[str, None] = {}
    plain, others = [], []
    for field in definition.fields:
        name, said = field.python_name, context.config.name_converter.from_field(field)
        if field.default_value is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            nothing[name] = None
        kind: Any = field.resolve_type(type_definition=definition)
        while type(kind) is StrawberryOptional:
            kind = kind.of_type
        inner = get_object_definition(kind)
        if is_scalar(kind, context.scalar_registry):
            plain.append((said, name))
        elif inner is not None and inner.is_input and inner.from_input is None:
            others.append(_Field(said, name, kind, _plan(kind, context)))
        else:
            others.append(_Field(said, name, kind, None))
    return _Plan(made, nothing, tuple(plain), tuple(others))
