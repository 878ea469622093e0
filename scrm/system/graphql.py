"""The system itself in GraphQL: who asks, what is enabled, how far the log is read, what is being imported."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from enum import Enum
from typing import Annotated

import sqlalchemy as sa
import strawberry

from scrm import __version__
from scrm.errors import ScrmError
from scrm.events import consumers
from scrm.events.models import parked_events
from scrm.events.sequencer import head
from scrm.graphql.context import ANY_KEY, Context, Info
from scrm.graphql.enums import enum
from scrm.graphql.ids import global_id_of, node_id
from scrm.graphql.resolvers import UserErrorType, errors_field, field, mutation, query
from scrm.graphql.scalars import JSON, BigInt
from scrm.graphql.sources import (
    Connection,
    Mutation,
    Node,
    Query,
    column,
    expression,
    extend,
    filter_input,
    many,
    ref,
    rows,
    where,
)
from scrm.importing.ledger import state_of
from scrm.models import imports, outbox
from scrm.outbox import DEAD, is_undelivered
from scrm.plugin import EventType as RegisteredType
from scrm.presence import living_workers
from scrm.sql import NOW
from scrm.system import service
from scrm.users.graphql import User


@enum(
    "What a caller is.",
    KEY="An API key.",
    TOKEN="A token that an issuer signed.",
)
class PrincipalKind(Enum):
    KEY = "KEY"
    TOKEN = "TOKEN"


@strawberry.type(description="Who is asking.")
class Viewer:
    name: str = strawberry.field(description="Name of the key, or whose token it is.")
    kind: PrincipalKind = strawberry.field(description="What the caller is.")
    roles: list[str] = strawberry.field(description="Roles of the person; none for a key.")
    scopes: list[str] = strawberry.field(description="What the caller may do; `*` is everything.")
    pii: bool = strawberry.field(description="Whether personal values are shown.")
    user: User | None = strawberry.field(description="The user a person's token names.", default=None)


@enum("How far a plugin came.", **service.STATES)
class PluginState(Enum):
    DISCOVERED = "DISCOVERED"
    DISABLED = "DISABLED"
    INCOMPATIBLE = "INCOMPATIBLE"
    LOAD_ERROR = "LOAD_ERROR"
    MIGRATION_REQUIRED = "MIGRATION_REQUIRED"
    MIGRATION_ERROR = "MIGRATION_ERROR"
    ACTIVE = "ACTIVE"
    DEGRADED = "DEGRADED"
    PAUSED = "PAUSED"


@enum(
    "What became of an event that a plugin failed on.",
    RETRYING="It is tried again by itself.",
    DEAD="It waits for retryPluginFailures.",
    BEHIND="It waits for an earlier event of the same person.",
    SKIPPED="It was given up.",
)
class PluginFailureState(Enum):
    RETRYING = "RETRYING"
    DEAD = "DEAD"
    BEHIND = "BEHIND"
    SKIPPED = "SKIPPED"


@rows(parked_events, scope="plugins:read", public=True)
class PluginFailure:
    """An event that a plugin could not apply."""

    event_id: strawberry.ID = expression("The event's global id.", lambda failure: global_id_of("Event", failure.c.event_id))
    position: BigInt = column("Its place in the log.")
    state: PluginFailureState = column("What became of it.")
    attempts: int = column("How often it was tried.")
    error: str | None = column("What went wrong the last time, without personal values.")
    parked_at: dt.datetime = column("When it was first set aside.")
    next_attempt_at: dt.datetime | None = column("When it is tried again.")


@rows(outbox, scope="plugins:read", public=True)
class UndeliveredMessage:
    """A message of a plugin to the outside that could not be delivered the last time it was tried."""

    kind: str = column("What kind of message, in the plugin's words.")
    given_up: bool = expression("Whether it is not tried again.", lambda message: message.c.state == DEAD)
    attempts: int = column("How often it was tried.")
    error: str | None = column("What went wrong the last time, without personal values.")
    created_at: dt.datetime = column("When it was to be sent.")
    next_attempt_at: dt.datetime | None = column("When it is tried again.")


@strawberry.type(description="A plugin that is known here.")
class Plugin:
    name: str = strawberry.field(description="Name.")
    version: str = strawberry.field(description="Version; empty while nothing of it was loaded.")
    state: PluginState = strawberry.field(description="How far it came.")
    reason: str | None = strawberry.field(description="Why it is in that state.")
    since: dt.datetime = strawberry.field(description="Since when.")
    requires: list[str] = strawberry.field(description="Plugins it cannot do without.")
    types: list[str] = strawberry.field(description="Types it adds.")
    fields: list[str] = strawberry.field(description="Fields it adds, as Type.field.")
    event_types: list[str] = strawberry.field(description="Event types it registers.")
    tables: list[str] = strawberry.field(description="Tables it owns.")

    @field("Its rules in force.", scope="plugins:read")
    async def settings(self, info: Info) -> JSON:
        return JSON(await info.context.services.db.read(service.settings_of, info.context.services.plugins.get(self.name)))

    @field("JSON Schema of its rules.", scope="plugins:read")
    def settings_schema(self, info: Info) -> JSON:
        plugin = info.context.services.plugins.get(self.name)
        return JSON(plugin.contribution.rules.model_json_schema() if plugin else {})

    @field("The position up to which it has read the log.", scope="plugins:read")
    async def cursor(self, info: Info) -> BigInt | None:
        progress = await _progress(info.context, self.name)
        return BigInt(progress.cursor) if progress else None

    @field("How many events it has not read yet.", scope="plugins:read")
    async def lag(self, info: Info) -> BigInt | None:
        progress = await _progress(info.context, self.name)
        return BigInt(progress.lag) if progress else None

    failures: Connection[PluginFailure] = many(
        "Events it could not apply, oldest first.",
        lambda plugin, failure: failure.c.plugin == plugin.c.name,
        order=[parked_events.c.position],
        scope="plugins:read",
    )

    undelivered: Connection[UndeliveredMessage] = many(
        "Messages to the outside that it could not deliver, oldest first.",
        lambda plugin, message: sa.and_(message.c.plugin == plugin.c.name, is_undelivered(message)),
        order=[outbox.c.created_at, outbox.c.id],
        scope="plugins:read",
    )


@strawberry.type(description="A registered event type.")
class EventType:
    name: str = strawberry.field(description="Name, as `noun.verb`.")
    owner: str = strawberry.field(description="`core` or the plugin that registered it.")
    description: str = strawberry.field(description="What it means.")
    payload: JSON = strawberry.field(description="JSON Schema of its properties.")


@strawberry.type(description="How far a reader of the log has come.")
class Consumer:
    plugin: str = strawberry.field(description="`core` or the plugin.")
    state: PluginState = strawberry.field(description="Whether it reads.")
    cursor: BigInt = strawberry.field(description="The position up to which it has read.")
    lag: BigInt = strawberry.field(description="How many events it has not read yet.")
    lag_seconds: int | None = strawberry.field(description="How long the first unread event has waited; null if there is none.")
    backfill: float | None = strawberry.field(description="Share of the history read, 0 to 1; null if there was none.")


@strawberry.type(description="What a plugin says of itself.")
class PluginHealth:
    plugin: str = strawberry.field(description="The plugin.")
    ok: bool = strawberry.field(description="Whether it can do its work.")
    detail: str = strawberry.field(description="In its own words; may be empty.")


@strawberry.type(description="How the system does.")
class SystemStatus:
    version: str = strawberry.field(description="Version of scrm.")
    database: str = strawberry.field(description="`sqlite` or `postgresql`.")
    head_position: BigInt = strawberry.field(description="The last position in the log.")
    consumers: list[Consumer] = strawberry.field(description="Who reads the log.")
    workers: int = strawberry.field(description="Workers that were seen within half a minute.")
    health: list[PluginHealth] = strawberry.field(
        description="What plugins say of themselves; those that say nothing are left out."
    )
    currency: str = strawberry.field(description="The business currency.")
    timezone: str = strawberry.field(description="The business zone.")


@enum(
    "What is imported.",
    USERS="Users.",
    EVENTS="Events.",
)
class ImportKind(Enum):
    USERS = "USERS"
    EVENTS = "EVENTS"


@enum(
    "How far an import came.",
    RUNNING="It is under way.",
    INTERRUPTED="It stopped half-way; run it again.",
    DONE="The whole file was read.",
    FAILED="It could not go on; see error.",
)
class ImportState(Enum):
    RUNNING = "RUNNING"
    INTERRUPTED = "INTERRUPTED"
    DONE = "DONE"
    FAILED = "FAILED"


@filter_input
class ImportFilter:
    """Which imports; every field that is given must hold."""

    kind: ImportKind | None = where("Of this kind.", lambda each, kind: each.c.kind == kind.value)
    state: list[ImportState] | None = where(
        "In these states.", lambda each, states: state_of(each, NOW).in_([state.value for state in states])
    )


@rows(imports, scope="imports:read", public=True)
class Import(Node):
    """A file that was read in."""

    name: str = column("Name of the file.")
    kind: ImportKind = column("What is imported.")
    state: ImportState = expression("How far it came.", lambda each: state_of(each, NOW))
    rows_read: BigInt = column("Rows read so far.")
    rows_total: BigInt | None = column("Rows in all, if that is known.")
    accepted: BigInt = column("Rows recorded.")
    duplicates: BigInt = column("Rows that had been recorded already.")
    rejected: BigInt = column("Rows that were refused.")
    started_at: dt.datetime = column("When it began.")
    finished_at: dt.datetime | None = column("When it ended.")
    error: str | None = column("Why it failed.")


async def _progress(context: Context, name: str) -> consumers.Progress | None:
    return next((each for each in await context.services.db.read(consumers.progress) if each.plugin == name), None)


def _plugin(context: Context, known: service.Known) -> Plugin:
    added = context.plans.model.added_by(known.name)
    return Plugin(
        name=known.name,
        version=known.version or "",
        state=PluginState(known.state),
        reason=known.reason,
        since=known.since,
        requires=list(known.requires),
        types=added.types,
        fields=added.fields,
        event_types=list(known.event_types),
        tables=list(known.tables),
    )


@extend(Query)
class SystemQuery:
    """The system itself, to read."""

    imports: Connection[Import] | None = many(
        "Files that were read in, newest first.", order=[imports.c.id.desc()], filter=ImportFilter, scope="imports:read"
    )

    @query("An object by its global id; null if there is none.", scope=ANY_KEY, self_service=True)
    async def node(self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="Global id.")]) -> Node | None:
        return await _node(info.context, id)

    @query("Objects by their global ids, in order; null where there is none.", scope=ANY_KEY, self_service=True)
    async def nodes(
        self, info: Info, ids: Annotated[list[strawberry.ID], strawberry.argument(description="Global ids, at most 100.")]
    ) -> list[Node | None] | None:
        if len(ids) > 100:
            raise ScrmError("INVALID_INPUT", f"nodes takes at most 100 ids; got {len(ids)}", path=("ids",))
        return [_node(info.context, each) for each in ids]  # type: ignore[misc]  # each is awaited at its own path

    @query("Who is asking.", scope=ANY_KEY, self_service=True)
    async def viewer(self, info: Info) -> Viewer | None:
        caller = info.context.principal
        kind = PrincipalKind.TOKEN if caller.kind == "TOKEN" else PrincipalKind.KEY
        user = ref(User, caller.user_id) if caller.user_id else None
        return Viewer(name=caller.name, kind=kind, roles=[], scopes=sorted(caller.scopes), pii=caller.has("pii:read"), user=user)

    @query("Event types that core and plugins registered.", scope="events:read", self_service=True)
    async def event_types(self, info: Info) -> list[EventType] | None:
        services = info.context.services
        owners = {kind.name: plugin.name for plugin in services.plugins for kind in plugin.contribution.event_types}
        return [_event_type(kind, owners) for _, kind in sorted(services.event_types.items())]

    @query("Plugins that are known here.", scope=ANY_KEY)
    async def plugins(self, info: Info) -> list[Plugin] | None:
        context = info.context
        known = await context.services.db.read(service.known_plugins, context.services.plugins)
        return [_plugin(context, each) for each in known]

    @query("How the system does.", scope="plugins:read")
    async def system_status(self, info: Info) -> SystemStatus | None:
        services, now = info.context.services, info.context.now
        progress = await services.db.read(consumers.progress)
        return SystemStatus(
            version=__version__,
            database=services.db.dialect,
            head_position=BigInt(await services.db.read(head)),
            consumers=[_consumer(each, now) for each in progress],
            workers=await services.db.read(living_workers, now),
            health=[
                PluginHealth(plugin=name, ok=said.ok, detail=said.detail)
                for name, said in (await services.plugins.health(services.db)).items()
            ],
            currency=services.settings.currency,
            timezone=services.settings.timezone,
        )


def _event_type(kind: RegisteredType, owners: Mapping[str, str]) -> EventType:
    return EventType(
        name=kind.name, owner=owners.get(kind.name, "core"), description=kind.description, payload=JSON(dict(kind.payload))
    )


def _consumer(progress: consumers.Progress, now: dt.datetime) -> Consumer:
    behind = int((now - progress.waiting_since).total_seconds()) if progress.waiting_since else None
    return Consumer(
        plugin=progress.plugin,
        state=PluginState(progress.state),
        cursor=BigInt(progress.cursor),
        lag=BigInt(progress.lag),
        lag_seconds=max(behind, 0) if behind is not None else None,
        backfill=progress.backfill,
    )


async def _node(context: Context, id: str) -> Node | None:
    model = context.plans.model
    name = id.rpartition("_")[0]
    type_ = next(
        (type_ for type_, known in model.type_names.items() if known == name and known in model.rows and issubclass(type_, Node)),
        None,
    )
    if type_ is None:
        raise ScrmError("INVALID_ID", f"the id {id!r} is of no type here; ids look like User_ and 32 hex digits", path=("id",))
    key: uuid.UUID = node_id(name, id)
    if name == "User":
        key = await context.services.db.read(service.survivor, key)
    return ref(type_, key)


@strawberry.input(description="Failures of a plugin to try again.")
class RetryPluginFailuresInput:
    plugin: str = strawberry.field(description="The plugin, or `core`.")
    event_ids: list[strawberry.ID] | None = strawberry.field(
        description="These events; all that failed unless said.", default=None
    )
    skip: bool = strawberry.field(description="Give them up instead: they are never applied. Needs eventIds.", default=False)


@strawberry.type(description="A plugin, or why not.")
class PluginPayload:
    plugin: Plugin | None = strawberry.field(description="The plugin as it is now.", default=None)
    count: int = strawberry.field(description="How many events are tried again or given up.", default=0)
    errors: list[UserErrorType] = errors_field()


@extend(Mutation)
class SystemMutation:
    """The system itself, to change."""

    @mutation("Try events again that a plugin failed on, or give them up.", scope="plugins:write")
    async def retry_plugin_failures(self, info: Info, input: RetryPluginFailuresInput) -> PluginPayload | None:
        context, services = info.context, info.context.services
        known = {each.name: each for each in await services.db.read(service.known_plugins, services.plugins)}
        if input.plugin != "core" and input.plugin not in known:
            raise ScrmError("UNKNOWN_PLUGIN", f"no plugin is called {input.plugin!r}", path=("plugin",))
        if input.plugin != "core" and not input.skip and services.plugins.get(input.plugin) is None:
            said = f"the plugin {input.plugin} does not run here, so nothing of it can be tried again; enable it first"
            raise ScrmError("UNKNOWN_PLUGIN", said, path=("plugin",))
        ids = (
            [node_id("Event", each, ("eventIds", str(n))) for n, each in enumerate(input.event_ids)]
            if input.event_ids is not None
            else None
        )
        if input.skip and not ids:
            raise ScrmError("INVALID_INPUT", "giving up needs eventIds", path=("eventIds",))
        if input.skip:
            count = await services.db.write(service.give_up, input.plugin, ids or [], at=context.now, actor=context.actor)
        else:
            count = await services.db.write(service.try_again, input.plugin, ids, at=context.now, actor=context.actor)
        shown = _plugin(context, known[input.plugin]) if input.plugin in known else None
        return PluginPayload(plugin=shown, count=count)
