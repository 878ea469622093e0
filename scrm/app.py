"""Puts everything together, and is the only place that does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from starlette.applications import Starlette
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
from scrm.graphql.schema import Frozen, Part, freeze, part_of
from scrm.indicators.graphql import IndicatorQuery
from scrm.indicators.service import core_indicators
from scrm.loader import PluginSet, load_plugins
from scrm.plugin import Contribution
from scrm.plugin_set import Context
from scrm.presence import Kind, present
from scrm.provision import all_event_types, keep_event_types
from scrm.revocation import forgetting
from scrm.routes import alive, authorizer, plugin_routes, readiness
from scrm.system.graphql import Import, SystemMutation, SystemQuery
from scrm.tags.graphql import Tag, TagGroup, TagMutation, TagQuery, UserTagMatch, UserTags
from scrm.users.graphql import User, UserMutation, UserQuery

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
        StartupError: with every collision and every field that says too little.
    """
    parts: list[Part] = [part_of(CORE, "scrm")]
    for plugin in plugins:
        parts.append(part_of(plugin.contribution, package_of(plugin.contribution)))
    kinds = [kind for brought in (CORE, *(plugin.contribution for plugin in plugins)) for kind in brought.event_types]
    personal = {
        "attributes": frozenset(settings.personal_attributes),
        "properties": frozenset(name for kind in kinds for name in kind.personal),
    }
    return freeze(parts, personal)


def package_of(contribution: Contribution) -> str:
    """The package that a contribution's own classes come from."""
    own = (*contribution.extends, *contribution.query, *contribution.mutation, *contribution.types, contribution.rules)
    return next((each.__module__.split(".")[0] for each in own if not each.__module__.startswith("scrm.")), contribution.name)


def build_services(settings: Settings, plugins: PluginSet, db: Database) -> Services:
    """What resolvers and the bulk door use."""
    contributions = (CORE, *(plugin.contribution for plugin in plugins))
    types = all_event_types(plugins)
    indicators = {each.key: (CORE.name, each) for each in core_indicators(settings.currency, settings.zone)}
    indicators |= {each.key: (brought.name, each) for brought in contributions for each in brought.indicators}
    return Services(settings, db, plugins, Ingest(db, settings, types), types, indicators, Tide(db))


def create_app(settings: Settings, *, plugins: PluginSet | None = None, clock: Callable[[], datetime] | None = None) -> Starlette:
    """The server for these settings. The database is expected to be migrated.

    Raises:
        StartupError: with every problem of settings, plugins and schema.
    """
    plugins = load_plugins(settings) if plugins is None else plugins
    frozen = freeze_schema(settings, plugins)
    db = Database(settings.database_url, clock=clock)
    services = build_services(settings, plugins, db)
    keys = Keys(db, settings)
    endpoint = GraphQLEndpoint(frozen, services, keys, page() if settings.server.ide else None)
    authorize = authorizer(keys)
    events = events_endpoint(services.ingest, authorize, max_body=settings.server.max_events_body_bytes)
    routes: list[BaseRoute] = [
        Route("/", lambda _: RedirectResponse("/graphql")),
        Route("/graphql", endpoint),
        WebSocketRoute("/graphql", endpoint),
        Route("/events", events, methods=["POST"]),
        Route("/livez", alive),
        Route("/readyz", readiness(db, lambda: plugins.health(db))),
    ]
    if STATIC.is_dir():
        routes.append(Mount("/static", StaticFiles(directory=STATIC)))
    contexts = {plugin.name: Context(plugin, db, services.ingest, settings) for plugin in plugins}
    routes += plugin_routes(plugins, contexts.__getitem__, authorize, settings.server.max_body_bytes)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await db.write(keep_event_types, plugins)
        try:
            async with (
                present(db, Kind.SERVER, (plugin.name for plugin in plugins)),
                plugins.lifespan(db, services.ingest, settings),
                forgetting(db, keys),
            ):
                yield
        finally:
            await db.close()

    app = Starlette(routes=routes, lifespan=lifespan)
    app.state.services = services
    app.state.frozen = frozen
    app.state.endpoint = endpoint
    app.state.keys = keys
    return app
