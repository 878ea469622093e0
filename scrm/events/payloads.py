"""Checks an event's properties against what its type registered: the part of JSON Schema that registrations use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Problem = tuple[tuple[str, ...], str]
"""Where, and what is wrong there."""

Fits = Callable[[Any], bool]
"""Whether a value fits a schema."""

_WORDS = frozenset({"title", "description", "default", "examples", "format", "$schema", "$id"})
_RULES = frozenset({"type", "enum", "required", "properties", "additionalProperties", "items"})
_BOUNDS = frozenset({"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"})

KEYWORDS = _WORDS | _RULES | _BOUNDS
"""What a registered schema may say."""

_EXACT: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}
KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list, tuple),
    "null": (type(None),),
}
"""Types that a schema may name, and what is of them in Python."""


class Payload:
    """One registered schema of properties. Absent and null are the same to it, so an optional property may always be null."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._fits = _object(schema)

    def problems(self, properties: Mapping[str, Any]) -> list[Problem]:
        """Everything that does not fit; empty when all does."""
        return [] if self._fits(properties) else list(_object_problems(properties, self._schema, ()))


def _object(schema: Mapping[str, Any]) -> Fits:
    """A test of one object. Tests say yes or no and are quick; why not is looked for only where one says no."""
    required: tuple[str, ...] = tuple(schema.get("required", ()))
    tests = {name: _test(inner) for name, inner in schema.get("properties", {}).items()}
    closed = schema.get("additionalProperties") is False

    def fits(value: Any) -> bool:
        for name in required:
            if value.get(name) is None:
                return False
        for name, inner in value.items():
            test = tests.get(name)
            if test is None:
                if closed:
                    return False
            elif inner is not None and not test(inner):
                return False
        return True

    return fits


def _test(schema: Mapping[str, Any]) -> Fits:
    said = schema.keys() - _WORDS
    if said == {"type"} and isinstance(schema["type"], str) and schema["type"] in _EXACT:
        exact = _EXACT[schema["type"]]
        return lambda value: type(value) in exact
    if said == {"type", "minLength"} and schema["type"] == "string":
        least = schema["minLength"]
        return lambda value: type(value) is str and len(value) >= least
    if schema.get("type") == "object" and said <= {"type", "properties", "required", "additionalProperties"}:
        inner = _object(schema)
        return lambda value: isinstance(value, dict) and inner(value)
    if schema.get("type") == "array" and said <= {"type", "items"} and isinstance(schema.get("items"), Mapping):
        test = _test(schema["items"])
        return lambda value: isinstance(value, list | tuple) and all(item is None or test(item) for item in value)
    return lambda value: not any(_problems(value, schema, ()))


def _problems(value: Any, schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Problem]:
    kinds = schema.get("type")
    if kinds is not None:
        names = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        if not any(_is(value, name) for name in names):
            yield path, f"is {_shown(value)}; expected {' or '.join(names)}"
            return
    if "enum" in schema and value not in schema["enum"]:
        yield path, f"is {_shown(value)}; expected one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, str | list | tuple):
        yield from _length(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            yield path, f"is {value}; the least is {schema['minimum']}"
        if value > schema.get("maximum", value):
            yield path, f"is {value}; the most is {schema['maximum']}"
    elif isinstance(value, dict):
        yield from _object_problems(value, schema, path)


def _object_problems(value: Mapping[str, Any], schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Problem]:
    for name in schema.get("required", ()):
        if value.get(name) is None:
            yield (*path, name), "is missing"
    known = schema.get("properties", {})
    for name, inner in value.items():
        if name in known:
            if inner is not None:
                yield from _problems(inner, known[name], (*path, name))
        elif schema.get("additionalProperties") is False:
            yield (*path, name), "is not a property of this type"


def _length(value: str | list[Any] | tuple[Any, ...], schema: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Problem]:
    least, most = ("minLength", "maxLength") if isinstance(value, str) else ("minItems", "maxItems")
    if len(value) < schema.get(least, 0):
        yield path, f"is too short; at least {schema[least]}"
    if len(value) > schema.get(most, len(value)):
        yield path, f"is too long; at most {schema[most]}"
    items = schema.get("items")
    if isinstance(items, Mapping) and not isinstance(value, str):
        for index, item in enumerate(value):
            if item is not None:
                yield from _problems(item, items, (*path, str(index)))


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, KINDS.get(kind, (object,)))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return f'"{value[:40]}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
