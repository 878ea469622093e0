"""Enums whose every value says what it means."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

import strawberry

E = TypeVar("E", bound=type[Enum])


def enum(description: str, name: str | None = None, **words: str) -> Callable[[E], E]:
    """Make a Python enum a GraphQL enum; `words` describe each value.

    Raises:
        KeyError: a value without words.
    """

    def decorate(cls: E) -> E:
        made: Any = strawberry.enum(cls, name=name, description=description)
        for value in made.__strawberry_definition__.values:
            value.description = words[value.name]
        return cls

    return decorate
