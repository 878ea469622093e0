"""An app in the test's own process, asked as a front end asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx2
import orjson
from pydantic import SecretStr
from starlette.applications import Starlette

from scrm.app import create_app, fit_schema
from scrm.auth import create_key
from scrm.config import PluginSection, Settings, check_rules
from scrm.db import Tx, new_id
from scrm.events.consumers import Consumer, consumer_of, core_consumer, enable
from scrm.events.parked import retry_due
from scrm.events.replay import ReplayReport, replay
from scrm.events.rules import configure
from scrm.events.sequencer import number
from scrm.events.steps import advance
from scrm.graphql.context import Services
from scrm.jobs import run_due_jobs
from scrm.loader import PluginSet, load_plugins
from scrm.outbox import deliver_due
from scrm.plugin_set import PluginStatus
from scrm.provision import provision, ready_plugins
from scrm.testing.rebuilding import rebuild
from scrm.users.handlers import core_handlers
from scrm.worker import Ready, all_deliveries, scheduled_jobs, work_of


class Client:
    """Asks an app with one key. `graphql` returns the whole answer, `data` only what was asked for, if nothing failed."""

    def __init__(self, app: Starlette, http: httpx2.AsyncClient) -> None:
        self.app = app
        self.http = http

    @property
    def services(self) -> Services:
        """What the app's resolvers use, for arranging a test."""
        services: Services = self.app.state.services
        return services

    async def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The answer to a GraphQL request."""
        response = await self.http.post("/graphql", json={"query": query, "variables": variables})
        answer: dict[str, Any] = orjson.loads(response.content)
        return answer

    async def data(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of a GraphQL request that must not fail."""
        answer = await self.graphql(query, **variables)
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    async def events(self, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The answer of the bulk door."""
        response = await self.http.post("/events", json=list(events))
        answer: dict[str, Any] = orjson.loads(response.content)
        return answer

    async def key(self, *scopes: str, name: str = "other") -> str:
        """A new key with these scopes."""
        services = self.services
        secret = self.app.state.keys.secret
        return await services.db.write(create_key, secret, name, scopes, at=services.db.clock(), actor="test")

    def with_key(self, key: str | None) -> Client:
        """The same app asked with another key, or with none."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        transport = httpx2.ASGITransport(self.app)
        return Client(self.app, httpx2.AsyncClient(transport=transport, base_url="http://test", headers=headers))


@asynccontextmanager
async def serving(
    url: str,
    plugins: PluginSet | None = None,
    *,
    modules: Mapping[str, Any] | None = None,
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    clock: Callable[[], datetime] | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
    **settings: Any,
) -> AsyncIterator[Client]:
    """An app on a migrated database with a key that may do everything; no worker runs beside it. `transport` is where an issuer
    of tokens answers.

    `modules` are plugins by name, installed or not: loaded as their `sections` say (else enabled) and provisioned. With the
    setting `on_plugin_error="skip"` those that cannot run are left out, as `scrm serve` does.
    """
    said = {name: PluginSection(**section) for name, section in (sections or {}).items()}
    chosen = Settings(database_url=url, secret_key=SecretStr("for tests only " * 4), plugins=said, **settings)
    if modules is not None:
        plugins = load_plugins(chosen, modules)
        problems = (await provision(chosen, plugins)).problems
        if chosen.on_plugin_error == "skip":
            plugins = await ready_plugins(chosen, fit_schema(chosen, plugins)[0])
        else:
            assert not problems, problems
    app = create_app(chosen, plugins=PluginSet() if plugins is None else plugins, clock=clock, transport=transport)
    async with app.router.lifespan_context(app):
        nobody = Client(app, httpx2.AsyncClient(transport=httpx2.ASGITransport(app)))
        client = nobody.with_key(await nobody.key("*", name=f"test {new_id().hex}"))
        yield client


async def drain(client: Client) -> None:
    """Do what a worker does until nothing is left: number events, step every consumer, retry what is due, deliver messages."""
    services = client.services
    db, settings = services.db, services.settings
    readers = [
        core_consumer(core_handlers(settings.zone), settings),
        *(consumer_of(plugin, settings) for plugin in services.plugins),
    ]
    await db.write(_enable_all, readers, db.clock())
    busy = True
    while busy:
        busy = False
        found = await db.write(_number_and_look, readers, db.clock())
        for reader, ready in zip(readers, found, strict=True):
            if ready.events:
                made = await advance(db, reader, at=db.clock())
                busy = busy or not made.idle or made.applied > 0
            if ready.parked:
                busy = (await db.write(retry_due, reader, at=db.clock())).applied > 0 or busy
    await deliver_due(db, all_deliveries(services.plugins))


def _enable_all(tx: Tx, readers: Sequence[Consumer], at: datetime) -> None:
    for reader in readers:
        enable(tx, reader, at)


def _number_and_look(tx: Tx, readers: Sequence[Consumer], at: datetime) -> list[Ready]:
    number(tx)
    found = work_of(tx, [reader.name for reader in readers], at)
    return [found[reader.name] for reader in readers]


async def run_jobs(client: Client, at: datetime) -> int:
    """Run the plugins' jobs that are due at this time, as a worker does; a job it sees for the first time is only scheduled."""
    services = client.services
    return await run_due_jobs(services.db, scheduled_jobs(services.plugins, services.settings), at=at)


async def replayed(client: Client, plugin: str, rules: Mapping[str, Any] | None = None) -> ReplayReport:
    """The plugin's tables built again from the log, as if these rules had always been in force if there are any, compared with
    the live ones."""
    services = client.services
    found = services.plugins.get(plugin)
    assert found is not None, f"{plugin} is not enabled"
    supposed = check_rules(plugin, found.contribution.rules, rules, services.settings.house) if rules is not None else None
    return await replay(services.db, services.settings, found, rules=supposed, build=rebuild)


async def apply_rules(client: Client, plugin: str, rules: Mapping[str, Any]) -> None:
    """Put other rules of a plugin in force, as `scrm config apply` does with what its section says."""
    services = client.services
    settings, found = services.settings, services.plugins.get(plugin)
    assert found is not None, f"{plugin} is not enabled"
    said = check_rules(plugin, found.contribution.rules, rules, settings.house)
    await services.db.write(configure, plugin, said, at=services.db.clock(), zone=settings.zone)


def plugin_status(name: str, module: Any, section: Mapping[str, Any]) -> PluginStatus:
    """How a plugin comes up with these settings: its state, and every problem and warning."""
    settings = Settings(secret_key=SecretStr("for tests only " * 4), plugins={name: PluginSection(enabled=True, **section)})
    found = load_plugins(settings, {name: module}, on_error="skip")
    return next(status for status in found.statuses if status.name == name)
