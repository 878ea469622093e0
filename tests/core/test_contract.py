"""The schema as a contract: committed, described, scoped; and what every scope opens, field by field."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    is_introspection_type,
    is_leaf_type,
    is_non_null_type,
    is_specified_scalar_type,
)

from scrm.app import freeze_schema
from scrm.auth import CORE_SCOPES
from scrm.config import PluginSection, Settings
from scrm.db import metadata
from scrm.graphql.context import ANY_KEY
from scrm.graphql.model import Model
from scrm.graphql.schema import Frozen
from scrm.loader import load_plugins
from scrm.plugin_set import PluginSet
from scrm.testing.client import Client, serving
from tests.core.asking import Clock, channel, event

TESTS = Path(__file__).parents[1]
BUILT_IN = tuple(
    sorted(
        path.name.removeprefix("scrm_") for path in (TESTS.parent / "plugins").glob("scrm_*") if (path / "__init__.py").exists()
    )
)
UPDATE = "SCRM_UPDATE_SCHEMA"
NEVER_CHANGED_BY_A_REFUSAL = [
    table for table in metadata.sorted_tables if table.name not in ("api_keys", "audit_log", "audit_pending", "workers")
]


def frozen(*plugins: str) -> Frozen:
    """The schema with these plugins."""
    settings = Settings(database_url="sqlite:////nowhere.db", plugins={name: PluginSection(enabled=True) for name in plugins})
    modules = {name: import_module(f"scrm_{name}") for name in plugins}
    return freeze_schema(settings, load_plugins(settings, modules) if plugins else PluginSet())


@pytest.fixture(scope="module")
def core() -> Frozen:
    return frozen()


@pytest.mark.parametrize(("file", "plugins"), [("schema.core.graphql", ()), ("schema.graphql", BUILT_IN)])
def test_the_schema_is_the_committed_one(file: str, plugins: tuple[str, ...]) -> None:
    path, sdl = TESTS / file, frozen(*plugins).sdl()
    if os.environ.get(UPDATE):
        path.write_text(sdl, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == sdl, (
        f"the schema changed; if it should, run {UPDATE}=1 pytest {Path(__file__).name}"
    )


def test_everything_is_described(core: Frozen) -> None:
    silent = []
    for name, named in core.model.schema.type_map.items():
        if is_introspection_type(named) or is_specified_scalar_type(named):
            continue
        silent += [] if named.description else [name]
        if isinstance(named, GraphQLEnumType):
            silent += [f"{name}.{key}" for key, value in named.values.items() if not value.description]
        if isinstance(named, GraphQLInputObjectType | GraphQLObjectType | GraphQLInterfaceType):
            silent += [f"{name}.{key}" for key, field in named.fields.items() if not field.description]
        if isinstance(named, GraphQLObjectType):
            arguments = [(f"{name}.{key}({arg})", a) for key, field in named.fields.items() for arg, a in field.args.items()]
            silent += [where for where, argument in arguments if not argument.description]
    assert silent == []


def test_roots_are_nullable_and_mutations_have_one_shape(core: Frozen) -> None:
    schema = core.model.schema
    assert schema.query_type
    assert schema.mutation_type
    assert [
        name
        for root in (schema.query_type, schema.mutation_type)
        for name, field in root.fields.items()
        if is_non_null_type(field.type)
    ] == []
    for name, field in schema.mutation_type.fields.items():
        assert list(field.args) == ["input"], name
        payload: Any = field.type
        assert str(payload).endswith("Payload"), name
        assert str(payload.fields["errors"].type) == "[UserError!]!", name


def test_every_connection_pages(core: Frozen) -> None:
    for named in core.model.schema.type_map.values():
        for name, field in getattr(named, "fields", {}).items():
            if str(field.type).rstrip("!").endswith("Connection"):
                assert {"first", "after", "last", "before"} <= set(field.args), f"{named.name}.{name}"
        if named.name.endswith("Connection"):
            assert list(named.fields) == ["edges", "nodes", "pageInfo", "totalCount"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "line",
    [
        "tags( filter: TagFilter = {archived: false} orderBy: [TagOrder!]",
        "errorPolicy: BulkErrorPolicy = REJECT_FAILED_ROWS",
        "createUsers: Boolean = true",
        "waitSeconds: Int = 5",
        "mode: MatchMode = ANY",
        "period: Period! = DAY",
        "period: Period! = WEEK",
        "archived: Boolean = false",
        "type User implements Node {",
        "events(filter: EventFilter orderBy: [EventOrder!]",
        "position: BigInt ",
        "attributes: JSON! ",
    ],
)
def test_what_the_front_end_was_promised(core: Frozen, line: str) -> None:
    bare = re.sub(r'"""(?:.|\n)*?"""', "", core.sdl())
    assert re.sub(r"\W+", " ", line) in re.sub(r"\W+", " ", bare)


def roots(model: Model) -> list[tuple[str, str, str]]:
    """Kind, name and scope of every field of Query and Mutation."""
    return [
        (kind, name, bound.scope or "") for kind in ("Query", "Mutation") for name, bound in sorted(model.fields[kind].items())
    ]


def document(frozen: Frozen, kind: str, name: str) -> str:
    """A request for one root field: its required arguments filled in, and one leaf of its type."""
    schema: Any = frozen.model.schema
    field = (schema.query_type if kind == "Query" else schema.mutation_type).fields[name]
    arguments = ", ".join(f"{key}: {literal(arg.type)}" for key, arg in field.args.items() if is_non_null_type(arg.type))
    return f"{kind.lower()} {{ {name}{f'({arguments})' if arguments else ''} {{ __typename }} }}"


def literal(type_: Any) -> str:
    """Some value of an input type."""
    if is_non_null_type(type_):
        return literal(type_.of_type)
    if hasattr(type_, "of_type"):
        return f"[{literal(type_.of_type)}]"
    if isinstance(type_, GraphQLInputObjectType):
        given = (f"{key}: {literal(field.type)}" for key, field in type_.fields.items() if is_non_null_type(field.type))
        return f"{{{', '.join(given)}}}"
    if isinstance(type_, GraphQLEnumType):
        return str(next(iter(type_.values)))
    assert is_leaf_type(type_)
    values = {
        "ID": f'"User_{"0" * 32}"',
        "Int": "1",
        "BigInt": "1",
        "Boolean": "true",
        "DateTime": '"2026-01-01T00:00:00Z"',
        "Date": '"2026-01-01"',
    }
    return values.get(type_.name, '"new"')


def test_every_root_field_has_a_scope_that_is_known(core: Frozen) -> None:
    known = {scope.name for scope in CORE_SCOPES} | {ANY_KEY}
    assert [(kind, name) for kind, name, scope in roots(core.model) if scope not in known] == []
    assert {name for kind, name, scope in roots(core.model) if scope == ANY_KEY} == {"node", "nodes", "viewer", "plugins"}
    assert all(not scope.endswith(":read") for kind, name, scope in roots(core.model) if kind == "Mutation")


@pytest.fixture
async def client(migrated_url: str) -> AsyncIterator[Client]:
    async with serving(migrated_url, clock=Clock()) as client:
        await channel(client, "new-channel")
        yield client


async def rows(client: Client) -> dict[str, list[Any]]:
    """Everything that is in the core's tables."""

    def read(tx: Any) -> dict[str, list[Any]]:
        return {table.name: [tuple(row) for row in tx.rows(sa.select(table))] for table in NEVER_CHANGED_BY_A_REFUSAL}

    return await client.services.db.read(read)


async def test_every_root_field_opens_with_its_scope_alone(client: Client, core: Frozen) -> None:
    scopes = sorted({scope for _, _, scope in roots(core.model) if scope != ANY_KEY})
    keys = {scope: client.with_key(await client.key(scope, name=scope)) for scope in scopes}
    everything_else = {
        scope: client.with_key(await client.key(*(s.name for s in CORE_SCOPES if s.name != scope), name=f"all but {scope}"))
        for scope in scopes
    }
    stranger = client.with_key(None)
    before = await rows(client)
    for kind, name, scope in roots(core.model):
        query = document(core, kind, name)
        refused = await stranger.graphql(query)
        assert (refused.get("data"), refused["errors"][0]["extensions"]["code"]) == (None, "UNAUTHENTICATED"), name
        if scope == ANY_KEY:
            continue
        wrong = await everything_else[scope].graphql(query)
        assert wrong["data"] == {name: None}, name
        [error] = wrong["errors"]
        assert (error["path"], error["extensions"]) == ([name], {"code": "FORBIDDEN", "params": {"scope": scope}}), name
    assert await rows(client) == before
    for kind, name, scope in roots(core.model):
        asked = client if scope == ANY_KEY else keys[scope]
        answer = await asked.graphql(document(core, kind, name))
        codes = [error["extensions"]["code"] for error in answer.get("errors", [])]
        assert not {"FORBIDDEN", "UNAUTHENTICATED", "INTERNAL"} & set(codes), (name, answer)
        if kind == "Mutation":
            assert answer["data"][name] == {"__typename": str(core.model.fields[kind][name].definition.type)}, (name, answer)


async def test_types_behind_other_fields_keep_their_scope(client: Client) -> None:
    await client.events([event(1, identity={"channel": "new-channel", "externalId": "a"})])
    user = (await client.data("{ users { nodes { id } } }"))["users"]["nodes"][0]["id"]
    only_users = client.with_key(await client.key("users:read"))
    for query, field in (
        ("{ users { nodes { events { totalCount } } } }", "users"),
        ("{ users { nodes { tags { source } } } }", "users"),
        ('{ users(filter: {tag: {keys: ["a"]}}) { totalCount } }', "users"),
        ('{ users(filter: {event: {type: ["order.paid"]}}) { totalCount } }', "users"),
    ):
        answer = await only_users.graphql(query)
        assert answer["data"] == {field: None}, query
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    answer = await only_users.graphql("{ users { nodes { displayName acquisitionChannel { key } } } }")
    assert answer["data"] == {"users": {"nodes": [{"displayName": None, "acquisitionChannel": None}]}}
    assert [error["path"] for error in answer["errors"]] == [["users", "nodes", "acquisitionChannel"]]
    only_plugins = client.with_key(await client.key("plugins:read", name="p"))
    answer = await only_plugins.graphql("query($id: ID!) { node(id: $id) { id } nodes(ids: [$id]) { id } }", id=user)
    assert answer["data"] == {"node": None, "nodes": [None]}
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"FORBIDDEN"}
    settings = await only_users.graphql("{ plugins { name settings } viewer { name } }")
    assert settings["data"]["viewer"] is not None
    tagger = client.with_key(await client.key("tags:write", name="t"))
    await client.data('mutation { createTag(input: {key: "a", name: "a"}) { tag { id } } }')
    tagging = """mutation { tagUsers(input: {tags: ["a"], filter: {phone: {eq: "1"}}}) { changed } }"""
    answer = await tagger.graphql(tagging)
    assert answer["data"] == {"tagUsers": None}
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_payloads_of_a_writer_who_may_not_read(client: Client) -> None:
    writer = client.with_key(await client.key("users:write", name="w"))
    answer = await writer.graphql('mutation { createUser(input: {displayName: "A"}) { errors { code } user { displayName } } }')
    assert answer["data"] == {"createUser": {"errors": [], "user": None}}
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
