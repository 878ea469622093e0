"""Whether the data that a plugin brings has the types it is declared with; nothing of it is called here."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scrm.events.payloads import KEYWORDS, KINDS
from scrm.plugin import Contribution

_ELSEWHERE = {"Request": Any, "Response": Any}
"""Names in annotations of `scrm.plugin` that only type checkers import."""

_WORDS = {str: "text", int: "a whole number", bool: "true or false", type: "a class", type(None): "None"}


def shape_problems(contribution: Contribution) -> list[str]:
    """Everything in a contribution that is not of its declared type, one line each; empty when all is."""
    return [
        f"{where} of {contribution.name!s} is {_shown(value)}; give {words}" for where, value, words in _misfits(contribution)
    ]


def _misfits(thing: Any, place: str = "") -> Iterator[tuple[str, Any, str]]:
    hints = typing.get_type_hints(type(thing), localns=_ELSEWHERE)
    for field in dataclasses.fields(thing):
        value, hint = getattr(thing, field.name), hints[field.name]
        where = f"{place}{field.name}"
        if not _fits(value, hint):
            yield where, value, _words(hint)
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value):
                if dataclasses.is_dataclass(item) and type(item).__module__ == "scrm.plugin":
                    yield from _misfits(item, f"{where}[{number}].")


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is collections.abc.Callable:
        return callable(value)
    if origin is type:
        return isinstance(value, type)
    if origin in (tuple, collections.abc.Sequence):
        return isinstance(value, list | tuple) and all(_fits(each, inner[0]) for each in value)
    if origin is collections.abc.Mapping:
        return isinstance(value, Mapping)
    return isinstance(value, origin or hint)


def _words(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(each) for each in inner)
    if origin is collections.abc.Callable:
        return "a function"
    if origin is type:
        return "a class"
    if origin in (tuple, collections.abc.Sequence):
        return f"a list or tuple, each {_words(inner[0])}"
    if origin is collections.abc.Mapping:
        return "a mapping"
    return _WORDS.get(hint, f"a {getattr(hint, '__name__', hint)}")


def _shown(value: Any) -> str:
    try:
        text = str.__str__(repr(value))
    except BaseException:  # it is a plugin's
        text = "something"
    text = " ".join(text.split())
    return f"{text if len(text) <= 60 else f'{text[:57]}…'} ({type(value).__name__})"


def payload_problems(schema: Any, path: str = "payload") -> Iterator[str]:
    """What in a registered schema cannot be checked against."""
    if not isinstance(schema, Mapping):
        yield f"{path} is {_shown(schema)}; give a mapping"
        return
    kinds = schema.get("type", ())
    named = (kinds,) if isinstance(kinds, str) else kinds
    if not isinstance(named, list | tuple) or not all(kind in KINDS for kind in named):
        yield f"{path}.type is {_shown(kinds)}; give one or several of {', '.join(KINDS)}"
    for word, fits, words in _SCHEMA:
        if word in schema and not fits(schema[word]):
            yield f"{path}.{word} is {_shown(schema[word])}; give {words}"
    inner = schema.get("properties")
    for name, each in inner.items() if isinstance(inner, Mapping) else ():
        yield from payload_problems(each, f"{path}.{name}")
    if isinstance(schema.get("items"), Mapping):
        yield from payload_problems(schema["items"], f"{path}.items")


def passed_over(schema: Mapping[str, Any]) -> set[str]:
    """Words in a schema without problems that nothing is checked by."""
    inner = [*schema.get("properties", {}).values(), *(schema[word] for word in ("items",) if word in schema)]
    return {str(word) for word in schema.keys() - KEYWORDS}.union(*(passed_over(each) for each in inner))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_words(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


_SCHEMA: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("enum", lambda value: isinstance(value, list | tuple), "a list"),
    ("required", _is_words, "a list of names"),
    ("properties", lambda value: isinstance(value, Mapping), "a mapping"),
    ("additionalProperties", lambda value: isinstance(value, bool | Mapping), "true or false"),
    ("items", lambda value: isinstance(value, Mapping), "a mapping"),
    *((word, _is_number, "a number") for word in ("minimum", "maximum")),
    *((word, _is_count, "a whole number") for word in ("minLength", "maxLength", "minItems", "maxItems")),
)
