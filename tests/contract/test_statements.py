"""However much is asked, it is one statement, and one more for each batch field that reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from graphql import get_named_type, is_leaf_type, is_non_null_type

from scrm.db import Database, Tx, new_id
from scrm.graphql.context import Reads
from scrm.testing.client import serving
from scrm.users.models import users
from tests.contract.world import START, World

FIXED = """id displayName attributes
  acquisitionChannel { key stats(from: "2026-01-01", to: "2026-04-01") { orders revenue { amountMinor } } }
  tags { tag { key userCount group { key tags { key } } } expiresAt }
  identities { channel { key } externalId }
  events(first: 5) { totalCount pageInfo { hasNextPage endCursor } edges { cursor }
    nodes { type occurredAt amount { amountMinor formatted } user { id } } }"""


class Statements:
    """Counts what is sent to the database, over both ways to it."""

    def __init__(self, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[str] = []
        backend: Any = db._backend
        fetch, snapshot = backend.fetch, backend.snapshot

        async def counted(sql: str, parameters: Any) -> Any:
            self.sent.append(sql)
            return await fetch(sql, parameters)

        @asynccontextmanager
        async def opened() -> AsyncIterator[Any]:
            async with snapshot() as inner:
                yield _Counted(inner, self.sent)

        monkeypatch.setattr(backend, "fetch", counted)
        monkeypatch.setattr(backend, "snapshot", opened)
        self._engine = getattr(backend.engine, "sync_engine", backend.engine)
        sa.event.listen(self._engine, "before_cursor_execute", self._executed)

    def _executed(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        follows = "log_head" in statement or "max(position)" in statement  # for revoked keys, whoever asks
        if statement.lower().startswith(("select", "with")) and not follows:
            self.sent.append(statement)

    def stop(self) -> None:
        sa.event.remove(self._engine, "before_cursor_execute", self._executed)


class _Counted:
    def __init__(self, inner: Any, sent: list[str]) -> None:
        self._inner = inner
        self._sent = sent

    async def fetch(self, sql: str, parameters: Any) -> Any:
        self._sent.append(sql)
        return await self._inner.fetch(sql, parameters)


def everything(type_: Any, owner: str | None, owners: Any, depth: int = 0) -> str:
    """Every field of a type that needs no argument (of one owner), and what is below it."""
    parts = []
    for name, field in type_.fields.items():
        if (owner is not None and owners.get(name) != owner) or any(is_non_null_type(each.type) for each in field.args.values()):
            continue
        target: Any = get_named_type(field.type)
        if is_leaf_type(target):
            parts.append(name)
        elif depth < 2:
            parts.append(f"{name} {everything(target, None, {}, depth + 1)}")
    return "{ __typename " + " ".join(parts) + " }"


@pytest.mark.parametrize("count", [1, 7, 50])
async def test_any_selection_of_users_is_one_statement(world: World, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = world.client.app.state.frozen
    user: Any = frozen.schema._schema.type_map["User"]
    of_plugin = everything(user, "reads", frozen.model.owned["User"])[1:-1]
    query = f"query($n: Int!) {{ users(first: $n) {{ totalCount nodes {{ {FIXED} {of_plugin} }} pageInfo {{ endCursor }} }} }}"
    assert all(
        name in of_plugin for name in ("noteScore", "noteRanks", "firstNote", "noteBook", "nickname", "siblings", "sameRank")
    )
    first = await world.client.graphql(query, n=count)
    assert "errors" not in first
    assert len(first["data"]["users"]["nodes"]) == min(count, first["data"]["users"]["totalCount"])
    statements = Statements(world.db, monkeypatch)
    try:
        assert await world.client.graphql(query, n=count) == first
    finally:
        statements.stop()
    plan = next(iter(reversed(world.client.app.state.endpoint.plans._plans.values()))).plan
    reading = [call for call in plan.compiled.batches if call.field.name == "sameRank"]
    assert len(plan.compiled.batches) > len(reading) > 2
    assert len(statements.sent) - 1 <= len(reading)
    assert sum(sql == plan.statement.sql for sql in statements.sent) == 1


async def test_core_fields_of_users_are_one_statement(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    query = f"{{ users(first: 50) {{ nodes {{ {FIXED} }} }} }}"
    await world.client.data(query)
    statements = Statements(world.db, monkeypatch)
    try:
        await world.client.data(query)
    finally:
        statements.stop()
    assert len(statements.sent) == 1


async def test_many_objects_by_id_are_one_statement_for_each_type(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    data = await world.client.data("{ events(first: 30) { nodes { id } } channels { nodes { id } } }")
    ids = [each["id"] for of in data.values() for each in of["nodes"]]
    query = "query($ids: [ID!]!) { nodes(ids: $ids) { id ... on Event { type user { displayName } } ... on Channel { key } } }"
    await world.client.data(query, ids=ids)
    statements = Statements(world.db, monkeypatch)
    try:
        answer = await world.client.data(query, ids=ids)
    finally:
        statements.stop()
    assert [each["id"] for each in answer["nodes"]] == ids
    assert len(statements.sent) == 2


async def test_the_plan_cache_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = world.client.app.state.endpoint.plans
    monkeypatch.setattr(plans, "limit", 5)
    plans._plans.clear()
    plans._operations.clear()
    for number in range(12):
        await world.client.data(f"{{ users(first: 1) {{ a{number}: totalCount }} }}")
    assert len(plans) <= 5
    assert len(plans._operations) <= 5
    before = plans.misses
    await world.client.data("{ users(first: 1) { a11: totalCount } }")
    await world.client.data("{ users(first: 1) { a0: totalCount } }")
    assert plans.misses == before + 1


async def test_one_plan_serves_every_value_of_a_shape(world: World) -> None:
    plans = world.client.app.state.endpoint.plans
    query = "query($c: [String!], $n: Int, $o: [UserOrder!], $f: UserFilter) { users(filter: $f, first: $n, orderBy: $o) { nodes { id } } channels { nodes { key } } tags(filter: {group: $c}) { totalCount } }"  # noqa: E501
    await world.client.data(query, c=["a"], n=3, o=[{"createdAt": "ASC"}], f={"city": {"eq": "a"}})
    before = plans.misses
    await world.client.data(query, c=["x", "y", "z"], n=3, o=[{"createdAt": "ASC"}], f={"city": {"eq": "上海"}})
    assert plans.misses == before
    await world.client.data(query, c=["x"], n=3, o=[{"createdAt": "DESC"}], f={"city": {"eq": "上海"}})
    assert plans.misses > before


@pytest.mark.parametrize(
    "query",
    [
        "{ a: users { totalCount } b: users { totalCount } }",
        "{ ...F } fragment F on Query { a: users { totalCount } b: users { totalCount } }",
        "{ ... { a: users { totalCount } } ... on Query { b: users { totalCount } } }",
    ],
)
async def test_several_roots_see_one_state(migrated_url: str, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(migrated_url) as client:
        db = client.services.db
        kept = Reads.fetch

        async def fetch(self: Reads, sql: str, parameters: Any) -> Any:
            found = await kept(self, sql, parameters)
            await db.write(_add_user)
            return found

        monkeypatch.setattr(Reads, "fetch", fetch)
        assert await client.data(query) == {"a": {"totalCount": 0}, "b": {"totalCount": 0}}
        monkeypatch.undo()
        assert await client.data("{ users { totalCount } }") == {"users": {"totalCount": 2}}


def _add_user(tx: Tx) -> None:
    tx.execute(sa.insert(users).values(id=new_id(), attributes={}, created_at=START, updated_at=START))
