"""Fields that Python fills in: what the database left open of an answer's JSON, value by value."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from scrm.errors import PluginFailedError, UnavailableError
from scrm.graphql.compiler import BatchCall, FieldFailure
from scrm.graphql.model import BoundField
from scrm.graphql.sources import BatchInfo, BatchSource
from scrm.sql import Value

log = logging.getLogger("scrm.graphql")

_HELD = re.compile(rb'([0-9]+):([^"\\]*(?:\\.[^"\\]*)*)"')
"""Behind a mark: the number of the call, and what the field needs, as JSON within JSON."""


async def fill(
    texts: Sequence[bytes], calls: Sequence[BatchCall], mark: str, variables: Mapping[str, Any], info: BatchInfo
) -> tuple[Sequence[bytes], list[FieldFailure]]:
    """Call each batch function once, all at a time, and put its values in the places that are marked for them."""
    if not calls:
        return texts, []
    cut = [_cut(text, mark) for text in texts]
    needed: list[dict[bytes, Any]] = [{} for _ in calls]
    for _, places in cut:
        for number, said in places:
            if said not in needed[number]:
                needed[number][said] = _needed(said, calls[number])
    failures = []
    filled = await asyncio.gather(*(_fill_one(call, keys, variables, info) for call, keys in zip(calls, needed, strict=True)))
    for number, (call, values) in enumerate(zip(calls, filled, strict=True)):
        if values is None:
            failures.append(FieldFailure(_first_place(texts, cut, number, call), call.field.owner))
    return [_joined(pieces, places, filled) for pieces, places in cut], failures


_Places = list[tuple[int, bytes]]


def _cut(text: bytes, mark: str) -> tuple[list[bytes], _Places]:
    first, *rest = text.split(b'"' + mark.encode())
    pieces, places = [first], []
    for piece in rest:
        held = _HELD.match(piece)
        assert held is not None
        places.append((int(held[1]), held[2]))
        pieces.append(piece[held.end() :])
    return pieces, places


def _joined(pieces: Sequence[bytes], places: _Places, filled: Sequence[Mapping[bytes, bytes] | None]) -> bytes:
    whole = [pieces[0]]
    for (number, said), piece in zip(places, pieces[1:], strict=True):
        values = filled[number]
        whole += (b"null" if values is None else values[said], piece)
    return b"".join(whole)


def _needed(said: bytes, call: BatchCall) -> Any:
    given = orjson.loads(orjson.loads(b'"' + said + b'"'))
    values = tuple(decode(value) for decode, value in zip(call.decoders, given, strict=True))
    return values[0] if len(values) == 1 else values


def _first_place(
    texts: Sequence[bytes], cut: Sequence[tuple[list[bytes], _Places]], number: int, call: BatchCall
) -> tuple[Any, ...]:
    places: list[tuple[dict[str, Any], tuple[Any, ...]]] = []
    text = next(text for text, (_, held) in zip(texts, cut, strict=True) if any(of == number for of, _ in held))
    places_of(orjson.loads(text), call.path, (), places)
    return (*places[0][1], call.key)


async def _fill_one(
    call: BatchCall, keys: Mapping[bytes, Any], variables: Mapping[str, Any], info: BatchInfo
) -> dict[bytes, bytes] | None:
    """The field's values as JSON by what they need; None where they could not be had."""
    if not keys:
        return {}
    wanted = list(dict.fromkeys(keys.values()))
    found = await fill_one(call, wanted, info, read_arguments(call.arguments, variables))
    return None if found is None else {said: found[key] for said, key in keys.items()}


def read_arguments(arguments: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    """A field's arguments with the values of this request."""
    return {name: value.slot.read(variables) if isinstance(value, Value) else value for name, value in arguments.items()}


async def fill_one(call: BatchCall, keys: list[Any], info: BatchInfo, arguments: Mapping[str, Any]) -> Mapping[Any, bytes] | None:
    """The field's values as JSON by key; None where they could not be had."""
    try:
        if call.field.target is not None and info.complete is None:
            return None  # the short way does not answer what is selected of an object
        found = await loaded(call.field, keys, info, arguments)
        if call.field.target is not None and info.complete is not None:
            return {key: await info.complete(call, value) for key, value in found.items()}
        return found
    except UnavailableError:
        raise
    except Exception:  # a plugin's own code: whatever it raised, the core's data must come out
        log.exception("field %s.%s of plugin %s failed", call.field.parent, call.field.name, call.field.owner)
        return None


async def loaded(field: BoundField, keys: list[Any], info: BatchInfo, arguments: Mapping[str, Any]) -> Mapping[Any, Any]:
    """What a batch function maps each of its keys to, as JSON, or as it is where it is an object. One that does not answer in
    time is cancelled, and left alone if it goes on.

    Raises: TimeoutError, PluginFailedError with what it raised as the cause.
    """
    task = asyncio.ensure_future(_load(field, keys, info, arguments))
    try:
        done, _ = await asyncio.wait({task}, timeout=info.seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise TimeoutError(f"the batch function of {field.parent}.{field.name} has not answered for {info.seconds:g} s")
    failure, found = task.result()
    if failure is not None:
        raise PluginFailedError(field.owner, f"{field.parent}.{field.name}") from failure
    answer: Mapping[Any, Any] = found
    return answer


async def _load(field: BoundField, keys: list[Any], info: BatchInfo, arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    source = field.source
    assert isinstance(source, BatchSource)
    try:
        found = await source.load(list(keys), info, **arguments)
        # Read here: what it answered is a plugin's too, and may do anything where it is looked at.
        if field.target is not None:
            return None, {key: found.get(key) for key in keys}
        return None, {key: orjson.dumps(_checked(found.get(key), field)) for key in keys}
    except BaseException as error:  # even what would end the server
        return error, None


_PYTHON: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "enum": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31,
    "bigint": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
}


def _checked(value: Any, field: BoundField) -> Any:
    if value is None:
        if not field.nullable:
            raise TypeError(f"{field.parent}.{field.name} is never null, and its batch function gave none")
        return None
    value = getattr(value, "value", value)
    if field.kind in _PYTHON and not _PYTHON[field.kind](value):
        raise TypeError(f"{field.parent}.{field.name} got {type(value).__name__}; expected {field.kind}")
    return str(value) if field.kind == "bigint" and abs(value) > 2**53 - 1 else value


def places_of(tree: Any, path: Sequence[str], at: tuple[Any, ...], places: list[tuple[dict[str, Any], tuple[Any, ...]]]) -> None:
    """Add the objects at a path, where a star is every item of a list, and where each of them is."""
    if tree is None:
        return
    if not path:
        places.append((tree, at))
        return
    step, rest = path[0], path[1:]
    if step == "*":
        for index, item in enumerate(tree):
            places_of(item, rest, (*at, index), places)
    else:
        places_of(tree[step], rest, (*at, step), places)
