"""A request's bytes as a GraphQL request, read strictly: what cannot be kept or compared on both engines does not come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from graphql import (
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    get_named_type,
    parse,
    type_from_ast,
)
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from scrm.config import Limits
from scrm.errors import ScrmError
from scrm.graphql.scan import check_text_of_document
from scrm.graphql.sources import CHECKED, origin_of
from scrm.text import text_problem

MAX_DEPTH = 60
"""Deepest nesting of lists and objects in variables."""

_PLAIN = frozenset({str, int, bool, float, type(None)})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller sends: a document, its variables, and which of its operations is meant."""

    query: str
    variables: dict[str, Any] | None
    operation_name: str | None
    extensions: dict[str, Any] | None


def headers(scope: Scope) -> dict[str, str]:
    """A request's headers by their names; of several with one name the first."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


async def read_body(receive: Receive, limit: int) -> bytes:
    """The body, unless it is larger than `limit` bytes.

    Raises:
        ScrmError: TOO_LARGE.
        ClientDisconnect: the caller has gone.
    """
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(part)
        if size > limit:
            raise ScrmError("TOO_LARGE", f"the request is larger than {limit} bytes; send less, or raise server.max_body_bytes")
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_request(body: bytes, schema: GraphQLSchema, limits: Limits) -> Asked:
    """A JSON body as a request to a schema.

    Raises:
        ScrmError: BAD_REQUEST, INVALID_TEXT, TOO_DEEP, LIST_TOO_LONG.
    """
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ScrmError("BAD_REQUEST", f"the body is not JSON in UTF-8: {error}") from None
    return check_request(said, schema, limits, nul=b"\\u0000" in body)


def read_parameters(given: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of a GET as a body would say them.

    Raises:
        ScrmError: BAD_REQUEST.
    """
    said: dict[str, Any] = {name: given[name] for name in ("query", "operationName") if name in given}
    for name in ("variables", "extensions"):
        if given.get(name):
            try:
                said[name] = orjson.loads(given[name])
            except orjson.JSONDecodeError as error:
                raise ScrmError("BAD_REQUEST", f"the parameter {name} is not JSON: {error}", path=(name,)) from None
    return said


def check_request(said: object, schema: GraphQLSchema, limits: Limits, *, nul: bool = True) -> Asked:
    """A decoded body as a request to a schema; `nul` is False where the text is known to hold no NUL.

    Raises:
        ScrmError: BAD_REQUEST, INVALID_TEXT, TOO_DEEP, LIST_TOO_LONG.
    """
    if not isinstance(said, dict):
        raise ScrmError("BAD_REQUEST", "the body is not a JSON object with a query; requests are sent one at a time")
    query = said.get("query")
    if not isinstance(query, str) or not query.strip():
        raise ScrmError("BAD_REQUEST", "the body has no query; send the document as text", path=("query",))
    name = said.get("operationName")
    if not isinstance(name, str | None):
        raise ScrmError("BAD_REQUEST", "operationName is not text", path=("operationName",))
    variables, extensions = _object(said, "variables"), _object(said, "extensions")
    if variables:
        if not _PLAIN.issuperset(map(type, variables.values())):
            _check_shape(variables, limits.list_items)
        if nul:
            _check_texts(query, variables, schema, limits)
    return Asked(query, variables, name or None, extensions)


def _object(said: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    value = said.get(name)
    if not isinstance(value, dict | None):
        raise ScrmError("BAD_REQUEST", f"{name} is not an object", path=(name,))
    return value


def _check_shape(variables: Mapping[str, Any], longest: int) -> None:
    """Iterative, because what is nested too deep is what it looks for."""
    waiting: list[tuple[Any, int, str]] = [(value, 1, name) for name, value in variables.items()]
    while waiting:
        value, depth, name = waiting.pop()
        if isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                raise ScrmError("TOO_DEEP", f"the variable {name} is nested deeper than {MAX_DEPTH}; flatten it")
            if isinstance(value, list) and len(value) > longest:
                said = f"the variable {name} has a list of {len(value)} items; at most {longest} are taken"
                raise ScrmError("LIST_TOO_LONG", said, path=(name,), params={"limit": longest})
            waiting.extend((item, depth + 1, name) for item in (value.values() if isinstance(value, dict) else value))


def _check_texts(query: str, variables: Mapping[str, Any], schema: GraphQLSchema, limits: Limits) -> None:
    """Refuse text that cannot be kept, except in what a bulk mutation checks one by one."""
    types = _types(query, schema, limits)
    for name, value in variables.items():
        _check_text(name, "variables")
        _check_value(value, types.get(name), name)


def _types(query: str, schema: GraphQLSchema, limits: Limits) -> dict[str, Any]:
    try:
        check_text_of_document(query, limits)
        document = parse(query, no_location=True)
    except (GraphQLError, ScrmError):
        return {}
    operations = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    named = [each for operation in operations for each in operation.variable_definitions or ()]
    return {each.variable.name.value: type_from_ast(schema, each.type) for each in named}


def _check_value(value: Any, type_: Any, name: str) -> None:
    named = None if type_ is None else get_named_type(type_)
    if isinstance(value, str):
        _check_text(value, name)
    elif isinstance(value, list):
        for item in value:
            _check_value(item, named, name)
    elif isinstance(value, dict):
        fields: Mapping[str, Any] = {}
        if isinstance(named, GraphQLInputObjectType):
            fields = named.fields
            if getattr(origin_of(named.extensions.get("strawberry-definition")), CHECKED, False):
                return
        for key, item in value.items():
            _check_text(key, name)
            _check_value(item, fields[key].type if key in fields else None, name)


def _check_text(value: str, name: str) -> None:
    problem = text_problem(value)
    if problem is not None:
        raise ScrmError("INVALID_TEXT", f"{name} {problem}", path=(name,))
