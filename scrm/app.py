"""Puts everything together, and is the only place that does."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from scrm.auth import CORE_SCOPES, Keys
from scrm.channels.graphql import Channel, ChannelMutation, ChannelQuery
from scrm.config import Settings
from scrm.db import Database
from scrm.events.graphql import Event, EventMutation, EventQuery, EventSubscription, UserEventMatch, UserEvents
from scrm.events.http import events_endpoint
from scrm.events.ingest import Ingest
from scrm.events.log import core_event_types
from scrm.events.tide import Tide
from scrm.graphql.context import Services
from scrm.graphql.http import GraphQLEndpoint
from scrm.graphql.ide import STATIC, page
from scrm.graphql.schema import Frozen, Part, SchemaError, freeze, part_of
from scrm.indicators.graphql import IndicatorQuery
from scrm.indicators.service import offered_by_core
from scrm.loader import load_plugins, refuse
from scrm.plugin import Contribution
from scrm.plugin_set import Context, LoadState, Plugin, PluginSet
from scrm.presence import Kind, present
from scrm.provision import all_event_types, keep_event_types, personal_properties
from scrm.revocation import forgetting
from scrm.routes import Ahead, alive, authorizer, plugin_routes, readiness
from scrm.system.graphql import Import, SystemMutation, SystemQuery
from scrm.tags.graphql import Tag, TagGroup, TagMutation, TagQuery, UserTagMatch, UserTags
from scrm.tokens import tokens_of
from scrm.users.graphql import User, UserMutation, UserQuery
from scrm.watch import HANGS_AFTER, Hang, Watch

log = logging.getLogger("scrm.app")

CORE = Contribution(
    name="core",
    version="",
    types=[User, Channel, Tag, TagGroup, Event, Import],
    extends=[UserTags, UserEvents],
    query=[UserQuery, ChannelQuery, TagQuery, EventQuery, IndicatorQuery, SystemQuery],
    mutation=[UserMutation, ChannelMutation, TagMutation, EventMutation, SystemMutation],
    subscription=[EventSubscription],
    filters=[UserTagMatch, UserEventMatch],
    event_types=core_event_types,
    scopes=CORE_SCOPES,
)
"""What the core itself brings, in the form every plugin has."""


def freeze_schema(settings: Settings, plugins: PluginSet) -> Frozen:
    """The schema of the core and the active plugins.

    Raises:
        SchemaError: with every collision and every field that says too little.
    """
    parts: list[Part] = [part_of(CORE, "scrm")]
    for plugin in plugins:
        parts.append(part_of(plugin.contribution, package_of(plugin)))
    kinds = [kind for brought in (CORE, *(plugin.contribution for plugin in plugins)) for kind in brought.event_types]
    personal = {
        "attributes": frozenset(settings.personal_attributes),
        "properties": frozenset(name for kind in kinds for name in kind.personal) | frozenset(settings.personal_properties),
    }
    return freeze(parts, personal)


def fit_schema(settings: Settings, plugins: PluginSet) -> tuple[PluginSet, Frozen]:
    """The plugins whose parts fit together, with the schema of these; the others are left out, each with its reasons."""
    while True:
        try:
            return plugins, freeze_schema(settings, plugins)
        except SchemaError as error:
            out: dict[str, tuple[LoadState, list[str]]] = {}
            for owner, problem in error.found:
                out.setdefault(owner, (LoadState.LOAD_ERROR, []))[1].append(problem)
            if not out.keys() & {plugin.name for plugin in plugins}:
                raise
            plugins = plugins.without(out, datetime.now(UTC))


def package_of(plugin: Plugin) -> str:
    """The module or package that a plugin's own classes come from."""
    contribute = getattr(plugin.hooks, "contribute", None)
    return getattr(contribute, "__module__", None) or plugin.name


def build_services(settings: Settings, plugins: PluginSet, db: Database) -> Services:
    """What resolvers and the bulk door use."""
    contributions = (CORE, *(plugin.contribution for plugin in plugins))
    types = all_event_types(plugins)
    indicators = dict(offered_by_core(settings.currency, settings.zone))
    indicators |= {each.key: (brought.name, each) for brought in contributions for each in brought.indicators}
    # In a server on PostgreSQL a decision runs in the loop's own thread, where nothing may be interrupted.
    watch = Watch(_hangs, settings.handler_seconds or HANGS_AFTER["sqlite"]) if db.dialect == "sqlite" else None
    return Services(settings, db, plugins, Ingest(db, settings, types), types, indicators, Tide(db), watch)


def _hangs(hang: Hang) -> None:
    log.critical("%s does not return, and nothing can be written until this server is started again", hang)


def known_scopes(plugins: PluginSet) -> list[str]:
    """The names of what may be allowed here."""
    return [scope.name for brought in (CORE, *(plugin.contribution for plugin in plugins)) for scope in brought.scopes]


def create_app(
    settings: Settings,
    *,
    plugins: PluginSet | None = None,
    clock: Callable[[], datetime] | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> Starlette:
    """The server for these settings. The database is expected to be migrated. `transport` is another way to the issuer of tokens
    than the network's.

    Raises:
        StartupError: with every problem of settings, plugins and schema.
    """
    loaded = load_plugins(settings) if plugins is None else plugins
    plugins, frozen = fit_schema(settings, loaded)
    if settings.on_plugin_error == "fail":
        refuse([status for status in plugins.statuses if loaded.get(status.name) and not plugins.get(status.name)])
    db = Database(settings.database_url, pool_size=settings.database_pool, clock=clock)
    services = build_services(settings, plugins, db)
    keys = Keys(db, settings, tokens_of(settings, db, known_scopes(plugins), transport))
    endpoint = GraphQLEndpoint(frozen, services, keys, page() if settings.server.ide else None)
    authorize = authorizer(keys)
    events = events_endpoint(services.ingest, authorize, max_body=settings.server.max_events_body_bytes)
    routes: list[BaseRoute] = [
        Route("/", lambda _: RedirectResponse("/graphql")),
        Route("/graphql", endpoint),
        WebSocketRoute("/graphql", endpoint),
        Route("/events", events, methods=["POST"]),
        Route("/livez", alive),
        Route("/readyz", readiness(db, plugins)),
    ]
    if STATIC.is_dir():
        routes.append(Mount("/static", StaticFiles(directory=STATIC)))
    contexts = {plugin.name: Context(plugin, db, services.ingest, settings, services.watch) for plugin in plugins}
    routes += plugin_routes(plugins, contexts.__getitem__, authorize, settings.server)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await db.write(keep_event_types, plugins)
        frozen.model.mask("properties", await db.read(personal_properties))  # of the plugins that are disabled too
        if services.watch is not None:
            services.watch.start()
        try:
            seconds, skip = settings.plugin_start_seconds, settings.on_plugin_error == "skip"
            async with (
                present(db, Kind.SERVER, (plugin.name for plugin in plugins)),
                plugins.lifespan(db, services.ingest, settings, seconds=seconds, skip=skip),
                forgetting(db, keys),
            ):
                yield
        finally:
            await keys.close()
            if services.watch is not None:
                services.watch.finish()
            await db.close()

    app = Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(Ahead, path="/graphql", endpoint=endpoint)])
    for name, part in (("services", services), ("frozen", frozen), ("endpoint", endpoint), ("keys", keys)):
        setattr(app.state, name, part)
    return app
