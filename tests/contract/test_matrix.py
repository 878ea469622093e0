"""Every field of the schema, asked over every way to it, by a key that lacks just its scope and by one that has just what it
needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from graphql import GraphQLInputObjectType, get_named_type, get_nullable_type, is_list_type, is_non_null_type

from scrm.auth import revoke_key
from scrm.graphql.context import ANY_KEY
from scrm.graphql.model import BoundField, Model
from scrm.testing.client import serving
from tests.contract.world import World

VALUES = {
    "ID": '"User_02000000000000000000000000000001"',
    "Int": "1",
    "BigInt": "1",
    "Boolean": "true",
    "DateTime": '"2026-01-01T00:00:00Z"',
    "Date": '"2026-01-01"',
}


def literal(type_: Any) -> str:
    """Some value of a type."""
    named = get_named_type(type_)
    if is_list_type(get_nullable_type(type_)):
        return f"[{literal(named)}]"
    if isinstance(named, GraphQLInputObjectType):
        given = (f"{key}: {literal(each.type)}" for key, each in named.fields.items() if is_non_null_type(each.type))
        return f"{{{', '.join(given)}}}"
    return VALUES.get(named.name, next(iter(named.values), "") if hasattr(named, "values") else '"x"')


def step(definition: Any, name: str) -> str:
    """A field with the arguments it must have."""
    given = [
        f"{key}: {literal(each.type)}" for key, each in definition.args.items() if is_non_null_type(each.type) or key == "id"
    ]
    return f"{name}({', '.join(given)})" if given else name


@dataclass(frozen=True)
class Way:
    """How a type is reached: the fields above it and the scopes that these need."""

    steps: tuple[str, ...] = ()
    scopes: frozenset[str] = frozenset()
    ends: str = ""

    def down(self, bound: BoundField) -> Way:
        return Way((*self.steps, step(bound.definition, bound.name)), self.scopes | needed(bound))

    def query(self, leaf: str) -> str:
        text = leaf
        for each in reversed(self.steps):
            text = f"{each} {{ {text} }}"
        return f"{{ {text} }}"


def needed(bound: BoundField) -> frozenset[str]:
    """The scopes of a field, and of the rows behind it."""
    return frozenset(scope for scope in (bound.scope, bound.opens) if scope not in (None, ANY_KEY))


@dataclass
class Matrix:
    """Every field of every compiled type by the shortest way to it, and by `node` and edges where there are such ways."""

    model: Model
    ways: dict[str, list[Way]] = field(default_factory=dict)

    def explore(self) -> None:
        waiting: deque[tuple[str, Way]] = deque()
        for bound in self.model.fields["Query"].values():
            if bound.target and bound.name not in ("node", "nodes"):
                waiting.append((bound.target, Way().down(bound)))
        while waiting:
            type_name, way = waiting.popleft()
            known = self.ways.setdefault(type_name, [])
            if len(known) >= 2 or len(way.steps) > 5 or type_name not in self.model.fields:
                continue
            known.append(way)
            for bound in self.model.fields[type_name].values():
                if bound.target:
                    waiting.append((bound.target, way.down(bound)))

    def cells(self) -> Iterator[tuple[str, BoundField, Way]]:
        """A query for each field and way, and the scopes it needs."""
        for type_name, ways in self.ways.items():
            for bound in self.model.fields[type_name].values():
                leaf = step(bound.definition, bound.name)
                leaf = leaf if bound.target is None else f"{leaf} {{ __typename }}"
                for way in ways:
                    yield way.query(leaf), bound, way


def at_least_one_forbidden(answer: dict[str, Any]) -> bool:
    return any(error["extensions"]["code"] == "FORBIDDEN" for error in answer.get("errors", ()))


@pytest.fixture(scope="session")
async def matrix(anyio_backend: str, few: World) -> Matrix:
    """What there is to ask."""
    made = Matrix(few.client.app.state.frozen.model)
    made.explore()
    return made


async def test_every_field_opens_with_its_scopes_alone(few: World, matrix: Matrix) -> None:
    keys: dict[frozenset[str], Any] = {}

    async def caller(scopes: frozenset[str]) -> Any:
        if scopes not in keys:
            keys[scopes] = few.client.with_key(await few.client.key(*sorted(scopes), name=f"matrix {len(keys)} {id(matrix)}"))
        return keys[scopes]

    everything = frozenset(scope for _, bound, way in matrix.cells() for scope in (*needed(bound), *way.scopes))
    assert len(everything) == 8
    asked = 0
    for query, bound, way in matrix.cells():
        scopes = needed(bound)
        right = await (await caller(way.scopes | scopes or frozenset({"users:read"}))).graphql(query)
        codes = {error["extensions"]["code"] for error in right.get("errors", ())}
        assert not codes & {"FORBIDDEN", "UNAUTHENTICATED", "INTERNAL", "GRAPHQL_VALIDATION_FAILED"}, (query, right)
        for missing in scopes:
            wrong = await (await caller(everything - {missing})).graphql(query)
            assert at_least_one_forbidden(wrong), (query, missing, wrong)
            assert missing in str(wrong["errors"])
        asked += 1
    assert asked > 250


async def test_node_and_nodes_pass_the_same_gate(few: World, matrix: Matrix) -> None:
    ids = await few.client.data(
        """{ users(first: 1) { nodes { id } } events(first: 1) { nodes { id } } channels(first: 1) { nodes { id } }
             tags(first: 1) { nodes { id } } notes(first: 1) { nodes { id } } imports(first: 1) { nodes { id } } }"""
    )
    found = [node["id"] for of in ids.values() for node in of["nodes"]]
    everything = {scope for of_type in matrix.model.fields.values() for bound in of_type.values() for scope in needed(bound)}
    checked = 0
    for global_id in found:
        type_name = global_id.rpartition("_")[0]
        scope = matrix.model.rows[type_name].scope
        assert scope is not None
        without = few.client.with_key(await few.client.key(*(everything - {scope}), name=f"without {global_id} {id(matrix)}"))
        alone = few.client.with_key(await few.client.key(scope, name=f"alone {global_id} {id(matrix)}"))
        query = "query($id: ID!) { node(id: $id) { id __typename } nodes(ids: [$id]) { id } }"
        refused = await without.graphql(query, id=global_id)
        assert refused["data"] == {"node": None, "nodes": [None]}
        assert {error["extensions"]["code"] for error in refused["errors"]} == {"FORBIDDEN"}
        shown = {"node": {"id": global_id, "__typename": type_name}, "nodes": [{"id": global_id}]}
        assert await alone.data(query, id=global_id) == shown
        for bound in matrix.model.fields[type_name].values():
            leaf = step(bound.definition, bound.name) + ("" if bound.target is None else " { __typename }")
            for missing in needed(bound) - {scope}:
                answer = await alone.graphql(
                    f"query($id: ID!) {{ node(id: $id) {{ ... on {type_name} {{ {leaf} }} }} }}", id=global_id
                )
                assert at_least_one_forbidden(answer), (leaf, answer)
                assert missing in str(answer["errors"])
                checked += 1
    assert checked > 10


async def test_who_is_nobody_is_told_nothing(migrated_url: str) -> None:
    async with serving(migrated_url) as client:
        revoked = client.with_key(await client.key("*", name="revoked"))
        assert "errors" not in await revoked.graphql("{ users { totalCount } }")
        services = client.services
        await services.db.write(revoke_key, "revoked", at=services.db.clock(), zone=services.settings.zone, actor="test")
        client.app.state.keys.forget()
        for stranger in (client.with_key(None), client.with_key("scrm_" + "x" * 40), revoked):
            for query in ("{ __typename }", "{ viewer { name } }", "{ __schema { queryType { name } } }", "{ nothing }", "{"):
                answer = await stranger.graphql(query)
                assert "data" not in answer
                assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAUTHENTICATED"], query
