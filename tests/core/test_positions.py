"""Every place of the schema where a caller says something, given what it is not made for: never our fault, never half done."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest
from graphql import GraphQLEnumType, GraphQLInputObjectType, get_named_type, get_nullable_type, is_list_type, is_non_null_type

from scrm.testing.client import Client, serving
from tests.core.asking import channel, event, record, tag

NOBODY = "0" * 32
WRONG: dict[str, Any] = {
    "nul": "a\x00b",
    "empty": "",
    "long": "x" * 70_000,
    "quote": "'\"\\%_",
    "number": 1,
    "negative": -(2**31),
    "large": 2**70,
    "digits": "9" * 5_000,
    "fraction": 1.5,
    "infinite": 1e308,
    "true": True,
    "null": None,
    "list": [],
    "lists": [[[1]]],
    "object": {},
    "objects": {"a": {"b": [{"c": None}]}},
    "id": f"User_{NOBODY}",
    "time": "2026-02-30T25:00:00Z",
    "day": "0000-00-00",
}
NAMES = list(WRONG)
EVERYTHING = bool(os.environ.get("SCRM_EVERY_VALUE"))
"""Every value in every place, which takes minutes; else the places take turns."""

SIMPLE = {
    "ID": f"User_{NOBODY}",
    "Int": 1,
    "BigInt": 1,
    "Float": 1.5,
    "Boolean": True,
    "DateTime": "2026-01-01T00:00:00Z",
    "Date": "2026-01-01",
    "JSON": {},
}


def plain(type_: Any) -> Any:
    """The least that a type takes."""
    named = get_named_type(type_)
    if is_list_type(get_nullable_type(type_)):
        return [plain(get_nullable_type(type_).of_type)]
    if isinstance(named, GraphQLInputObjectType):
        return {name: plain(field.type) for name, field in named.fields.items() if is_non_null_type(field.type)}
    if isinstance(named, GraphQLEnumType):
        return next(iter(named.values))
    return SIMPLE.get(named.name, "x")


def positions(type_: Any, depth: int = 0) -> Iterator[Any]:
    """Values of a type with a hole in one place: `HOLE`."""
    yield HOLE
    inner = get_nullable_type(type_)
    if is_list_type(inner):
        for value in positions(inner.of_type, depth):
            yield [value]
        return
    if isinstance(inner, GraphQLInputObjectType) and depth < 3:
        rest = plain(inner)
        for name, field in inner.fields.items():
            for value in positions(field.type, depth + 1):
                yield {**rest, name: value}


class _Hole:
    """Where something wrong goes."""


HOLE = _Hole()


def filled(value: Any, with_: Any) -> Any:
    if value is HOLE:
        return with_
    if isinstance(value, list):
        return [filled(each, with_) for each in value]
    return {name: filled(each, with_) for name, each in value.items()} if isinstance(value, dict) else value


@pytest.fixture
async def client(migrated_url: str) -> AsyncIterator[Client]:
    async with serving(migrated_url, modules={}, sections={"loyalty": {"enabled": True}}) as client:
        await channel(client, "oa")
        await tag(client, "vip")
        await record(client, event(1))
        yield client


async def test_nothing_that_is_said_anywhere_is_our_fault(client: Client) -> None:
    schema = client.app.state.frozen.model.schema
    asked = 0
    for kind in (schema.query_type, schema.mutation_type):
        for name, field in kind.fields.items():
            for argument, definition in field.args.items():
                others = {each: plain(one.type) for each, one in field.args.items() if is_non_null_type(one.type)}
                declared = {each: field.args[each].type for each in {*others, argument}}
                shown = ", ".join(f"${each}: {type_}" for each, type_ in declared.items())
                given = ", ".join(f"{each}: ${each}" for each in declared)
                query = f"{kind.name.lower()}({shown}) {{ {name}({given}) {{ __typename }} }}"
                for number, hole in enumerate(positions(definition.type)):
                    for what in NAMES if EVERYTHING else [NAMES[asked % len(NAMES)]]:
                        variables = {**others, argument: filled(hole, WRONG[what])}
                        body = orjson.dumps({"query": query, "variables": _sendable(variables)})
                        response = await client.http.post("/graphql", content=body, headers={"content-type": "application/json"})
                        where = (name, argument, number, what)
                        assert response.status_code in (200, 400), where
                        answer = orjson.loads(response.content)
                        codes = {error["extensions"]["code"] for error in answer.get("errors", ())}
                        assert not codes & {"INTERNAL", "PLUGIN_FIELD_FAILED", "UNAVAILABLE"}, (where, answer)
                        asked += 1
    assert asked > 500
    assert (await client.data("{ users { totalCount } }"))["users"]["totalCount"] >= 1


def _sendable(value: Any) -> Any:
    """Whole numbers of more than 64 bits as JSON has them."""
    if isinstance(value, dict):
        return {name: _sendable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_sendable(each) for each in value]
    return orjson.Fragment(str(value)) if isinstance(value, int) and abs(value) >= 2**63 else value
