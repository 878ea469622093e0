"""`/livez` and `/readyz`, and what requests are answered while the database cannot be used."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from scrm import db as database_module
from scrm.config import ANONYMOUS, ServerSettings
from scrm.errors import UnavailableError
from scrm.testing import PostgresServer
from scrm.testing.client import Client, serving

UNAVAILABLE = UnavailableError().message
EVENT = {"type": "page.viewed", "source": "shop", "occurredAt": "2026-05-01T12:00:00Z"}
ANN = {"channel": "shop", "externalId": "ann"}


@pytest.fixture
async def client(migrated_url: str) -> AsyncIterator[Client]:
    async with serving(migrated_url, modules={}, sections={"loyalty": {"enabled": True}}) as opened:
        yield opened


@pytest.fixture
def away(migrated_url: str, request: pytest.FixtureRequest) -> Callable[[], Any]:
    """The database cannot be reached within the block, by new connections or old ones, and can be again after it."""

    @asynccontextmanager
    async def on_sqlite() -> AsyncIterator[None]:
        file = make_url(migrated_url).database or ""
        os.rename(file, f"{file}.away")
        try:
            yield
        finally:
            os.rename(f"{file}.away", file)

    @asynccontextmanager
    async def on_postgresql() -> AsyncIterator[None]:
        server: PostgresServer = request.getfixturevalue("postgres")
        name = make_url(migrated_url).database
        admin = await asyncpg.connect(server.url.set(drivername="postgresql").render_as_string(hide_password=False))
        try:
            await admin.execute(f'alter database "{name}" with allow_connections false')
            await admin.fetch("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1", name)
            await admin.execute(f'alter database "{name}" rename to "{name}_away"')
            try:
                yield
            finally:
                await admin.execute(f'alter database "{name}_away" with allow_connections true')
                await admin.execute(f'alter database "{name}_away" rename to "{name}"')
        finally:
            await admin.close()

    return on_sqlite if migrated_url.startswith("sqlite") else on_postgresql


async def ready(client: Client) -> tuple[int, Any]:
    answer = await client.with_key(None).http.get("/readyz")
    return answer.status_code, answer.json()


async def alive(client: Client) -> tuple[int, Any]:
    answer = await client.with_key(None).http.get("/livez")
    return answer.status_code, answer.json()


async def test_a_server_with_its_database_is_ready(client: Client) -> None:
    assert await alive(client) == (200, {"ok": True})
    assert await ready(client) == (200, {"ok": True})


async def test_without_the_database_it_lives_and_is_not_ready(
    client: Client, migrated_url: str, away: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert await ready(client) == (200, {"ok": True})
    with caplog.at_level(logging.DEBUG):
        async with away():
            status, said = await ready(client)
            assert (status, said["ok"], said["notReady"], list(said["why"])) == (503, False, ["database"], ["database"])
            assert await alive(client) == (200, {"ok": True})
    url = make_url(migrated_url)
    for secret in (url.password, url.database, url.host):
        assert secret is None or (str(secret) not in str(said) and str(secret) not in caplog.text)
    assert await ready(client) == (200, {"ok": True})


@pytest.mark.parametrize(("table", "owner"), [("alembic_version", "core"), ("alembic_version_loyalty", "loyalty")])
async def test_with_migrations_pending_it_is_not_ready(client: Client, table: str, owner: str) -> None:
    db = client.services.db
    await db.write(lambda tx: tx.execute(sa.text(f"delete from {table}")))
    why = {owner: "its migrations are pending, or are of another version; run scrm db upgrade"}
    assert await ready(client) == (503, {"ok": False, "notReady": [owner], "why": why})
    assert await alive(client) == (200, {"ok": True})


def shown(answer: Any) -> tuple[int, str | None, Any]:
    return answer.status_code, answer.headers.get("retry-after"), answer.json()


@pytest.mark.parametrize("migrated_url", ["postgresql"], indirect=True)
async def test_requests_are_told_to_come_again(migrated_url: str, client: Client, away: Callable[[], Any]) -> None:
    graphql = {"errors": [{"message": UNAVAILABLE, "extensions": {"code": "UNAVAILABLE"}}]}
    said = {"code": "UNAVAILABLE", "message": UNAVAILABLE, "path": [], "params": {}}
    events = {"errors": [said], "accepted": 0, "duplicates": 0, "rejected": 0}
    query = "{ users(first: 1) { nodes { id } } }"
    async with serving(migrated_url, server=ServerSettings(allow_anonymous=ANONYMOUS)) as other:
        anonymous = other.with_key(None)
        assert await anonymous.data(query) == {"users": {"nodes": []}}
        async with away():
            assert shown(await client.http.post("/graphql", json={"query": query})) == (503, "1", graphql)
            assert shown(await client.http.post("/events", json=[{**EVENT, "externalId": "1"}])) == (503, "1", events)
            assert shown(await anonymous.http.post("/graphql", json={"query": query})) == (503, "1", graphql)
        assert await client.data(query) == await anonymous.data(query) == {"users": {"nodes": []}}


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
async def test_a_full_disk_refuses_events_and_loses_none(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configure = database_module._configure_sqlite

    def with_little_room(connection: Any, record: object) -> None:
        configure(connection, record)
        [pages] = connection.execute("pragma page_count").fetchone()
        connection.execute(f"pragma max_page_count = {pages + 20}")

    batch = [{**EVENT, "externalId": str(n), "identity": ANN, "properties": {"text": "x" * 5000}} for n in range(40)]
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "_configure_sqlite", with_little_room)
        async with serving(migrated_url) as client:
            await client.data('mutation { createChannel(input: {key: "shop", name: "S", kind: STORE}) { errors { code } } }')
            status, _, said = shown(await client.http.post("/events", json=batch))
            assert (status, said["errors"][0]["code"]) == (503, "UNAVAILABLE")
            assert await client.data("{ events { totalCount } }") == {"events": {"totalCount": 0}}
            assert await ready(client) == (200, {"ok": True})
    async with serving(migrated_url) as client:
        assert (await client.events(batch))["accepted"] == 40
