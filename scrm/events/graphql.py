"""Events in GraphQL."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator
from enum import Enum
from typing import Annotated

import sqlalchemy as sa
import strawberry

from scrm.channels.graphql import Channel
from scrm.channels.service import find_channel
from scrm.db import Tx, new_id
from scrm.errors import ScrmError
from scrm.events import reads
from scrm.events.checks import Checker
from scrm.events.consumers import wait_for
from scrm.events.following import follow
from scrm.events.ingest import Item, Undecoded
from scrm.events.models import events
from scrm.events.parked import is_any_parked
from scrm.events.records import Event as LogEvent
from scrm.events.records import IdentityRef, NewEvent, RecordResult
from scrm.events.sequencer import head, sequence
from scrm.graphql.attributes import AttributeFilter, matches
from scrm.graphql.bulk import BulkErrorPolicy
from scrm.graphql.context import Info
from scrm.graphql.enums import enum
from scrm.graphql.ids import as_node_id, node_id
from scrm.graphql.inputs import built_quickly
from scrm.graphql.matching import condition_of
from scrm.graphql.money import Money, MoneyInput, money
from scrm.graphql.resolvers import UserErrorType, as_graphql, errors_field, mutation, subscription
from scrm.graphql.scalars import JSON, BigInt, DateTimeFilter, Direction, IntFilter
from scrm.graphql.sources import (
    Connection,
    Mutation,
    Node,
    Query,
    Subscription,
    checked_by_itself,
    column,
    extend,
    filter,
    filter_input,
    many,
    one,
    order_input,
    ordering,
    ref,
    rows,
    where,
)
from scrm.sql import member
from scrm.users.graphql import IdentityInput, User, UserFilter
from scrm.users.models import users
from scrm.users.service import user_by_identity

MAX_ITEMS = 500


@filter_input
class EventFilter:
    """Which events; every field that is given must hold."""

    type: list[str] | None = where("Of these types.", lambda event, types: member(event.c.type, types))
    user: strawberry.ID | None = where("Of this user.", lambda event, user: event.c.user_id == as_node_id(user, "User"))
    channel: list[str] | None = where("Over these channels or their children, by key.", reads.on_channels)
    occurred_at: DateTimeFilter | None = filter("By when they happened.", lambda event: event.c.occurred_at)
    source: list[str] | None = where("From these sources.", lambda event, sources: member(event.c.source, sources))
    external_id: str | None = where("With this id at its source.", lambda event, key: event.c.external_id == key)
    late: bool | None = where("Whether they came late.", lambda event, late: event.c.late.is_(late))
    properties: list[AttributeFilter] | None = where(
        "By properties; all must hold.", lambda event, given: matches(event.c.properties, given), personal_keys="properties"
    )


@order_input
class EventOrder:
    """What events are sorted by."""

    occurred_at: Direction | None = ordering("By when they happened.", lambda event: event.c.occurred_at, nullable=False)
    position: Direction | None = ordering("By their place in the log.", lambda event: event.c.position)


@rows(events, scope="events:read", owner=lambda event: event.c.user_id)
class Event(Node):
    """Something that happened, recorded once."""

    position: BigInt | None = column("Its place in the log; null until it has one.")
    type: str = column("What happened, as `noun.verb`.")
    user: User | None = one("Whose it is now.", lambda event, user: user.c.id == event.c.user_id)
    channel: Channel | None = one("Where it happened.", lambda event, channel: channel.c.id == event.c.channel_id)
    occurred_at: dt.datetime = column("When it happened.")
    received_at: dt.datetime = column("When it was recorded.")
    amount: Money | None = money("The money in it.", lambda event: event.c.amount_minor, lambda event: event.c.currency)
    properties: JSON = column("What else is known of it.", personal_keys="properties")
    source: str = column("Who reported it.")
    external_id: str = column("Its id there; with the source it makes the event once.")
    late: bool = column("Whether it was more than 90 days old when it came.")


@extend(User)
class UserEvents:
    """A user's events."""

    events: Connection[Event] = many(
        "What happened to the person, newest first.",
        lambda user, event: event.c.user_id == user.c.id,
        order=[events.c.occurred_at.desc(), events.c.id.desc()],
        filter=EventFilter,
        order_by=EventOrder,
    )


@strawberry.input(
    description="Events that a user has; every field that is given must hold. Amounts in another currency do not count."
)
class EventMatch:
    type: list[str] | None = strawberry.field(description="Of these types.", default=None)
    within_days: int | None = strawberry.field(
        description="Within the last so many business days, today included; 1 or more.", default=None
    )
    since: dt.datetime | None = strawberry.field(description="At or after.", default=None)
    until: dt.datetime | None = strawberry.field(description="Before.", default=None)
    count: IntFilter | None = strawberry.field(description="How many; at least one unless said.", default=None)
    latest: DateTimeFilter | None = strawberry.field(description="When the newest happened.", default=None)
    amount: IntFilter | None = strawberry.field(
        description="Sum of their amounts, in minor units of the business currency.", default=None
    )
    properties: list[AttributeFilter] | None = strawberry.field(description="By properties; all must hold.", default=None)


@extend(UserFilter)
class UserEventMatch:
    """Users by what happened to them."""

    event: EventMatch | None = where("By events.", reads.matched, scope="events:read", personal_keys="properties")


@extend(Query)
class EventQuery:
    """Events to read."""

    events: Connection[Event] | None = many(
        "What happened, newest first.",
        order=[events.c.occurred_at.desc(), events.c.id.desc()],
        filter=EventFilter,
        order_by=EventOrder,
        scope="events:read",
    )


@built_quickly
@checked_by_itself
@strawberry.input(description="Something that happened.")
class EventInput:
    type: str = strawberry.field(description="What happened, as `noun.verb`.")
    user_id: strawberry.ID | None = strawberry.field(description="Whose it is; or say identity.", default=None)
    identity: IdentityInput | None = strawberry.field(description="Whose it is, as a channel knows them.", default=None)
    union_id: str | None = strawberry.field(description="What ties the person's identities together.", default=None)
    channel: str | None = strawberry.field(description="Key of the channel; the identity's unless said.", default=None)
    occurred_at: dt.datetime = strawberry.field(description="When it happened.")
    amount: MoneyInput | None = strawberry.field(description="The money in it.", default=None)
    properties: JSON | None = strawberry.field(description="What else is known of it: an object.", default=None)
    source: str = strawberry.field(description="Who reports it.")
    external_id: str = strawberry.field(description="Its id there: the same again changes nothing.")


@strawberry.input(description="Events to record.")
class RecordEventsInput:
    events: list[EventInput] = strawberry.field(description="1 to 500 of them.")
    error_policy: BulkErrorPolicy | None = strawberry.field(
        description="What one bad event does to the others.", default=BulkErrorPolicy.REJECT_FAILED_ROWS
    )
    create_users: bool | None = strawberry.field(description="Unknown identities become users.", default=True)
    wait_for: list[str] | None = strawberry.field(
        description="Plugins that shall have caught up before the answer.", default=None
    )
    wait_seconds: int | None = strawberry.field(description="How long to wait for them at most, up to 30.", default=5)


@enum(
    "What became of an event.",
    ACCEPTED="It is recorded.",
    DUPLICATE="It was already; nothing changed.",
    REJECTED="It was refused; see errors.",
)
class RecordStatus(Enum):
    ACCEPTED = "ACCEPTED"
    DUPLICATE = "DUPLICATE"
    REJECTED = "REJECTED"


@strawberry.type(description="What became of one event of a batch.")
class RecordEventResult:
    index: int = strawberry.field(description="Its place in the input, from 0.")
    status: RecordStatus = strawberry.field(description="What became of it.")
    event: Event | None = strawberry.field(description="The event; for a duplicate the first one.", default=None)
    errors: list[UserErrorType] = errors_field()


@strawberry.type(description="What became of a batch of events.")
class RecordEventsPayload:
    results: list[RecordEventResult] = strawberry.field(description="One for each event, in order.", default_factory=list)
    accepted: int = strawberry.field(description="How many were recorded.", default=0)
    duplicates: int = strawberry.field(description="How many had been already.", default=0)
    rejected: int = strawberry.field(description="How many were refused.", default=0)
    caught_up: bool = strawberry.field(description="Whether the plugins waited for have applied them.", default=False)
    errors: list[UserErrorType] = errors_field()


def new_event(input: EventInput) -> NewEvent:
    """An input as the log takes it.

    Raises:
        ScrmError: INVALID_ID, INVALID_PROPERTIES.
    """
    if input.properties is not None and not isinstance(input.properties, dict):
        raise ScrmError("INVALID_PROPERTIES", "properties is not an object; give names and values", path=("properties",))
    identity = IdentityRef(input.identity.channel, input.identity.external_id) if input.identity else None
    return NewEvent(
        type=input.type,
        source=input.source,
        external_id=input.external_id,
        occurred_at=input.occurred_at,
        user_id=node_id("User", input.user_id, ("userId",)) if input.user_id is not None else None,
        identity=identity,
        union_id=input.union_id,
        channel=input.channel,
        amount_minor=input.amount.amount_minor if input.amount else None,
        currency=input.amount.currency if input.amount else None,
        properties=input.properties or {},
    )


async def as_recorded(info: Info, input: EventInput) -> LogEvent:
    """The event that an input would become if it were recorded now, as a handler would see it; nothing is recorded. Somebody whom
    nobody knows yet has an id that nobody has.

    Raises:
        ScrmError: what recording it is refused for, as far as it can be seen without the log; USER_NOT_FOUND, USER_ERASED.
    """
    context = info.context
    services = context.services
    checked = Checker(services.settings, services.event_types).check(0, new_event(input), context.now)
    if isinstance(checked, tuple):
        first = checked[0]
        raise ScrmError(first.code, first.message, path=first.path, params=first.params)
    if checked.channel is not None:
        await services.db.read(find_channel, checked.channel)
    user = await context.user(input.user_id) if input.user_id is not None else None
    if user is None and checked.identity is not None:
        found = await services.db.read(_known, *checked.identity)
        user = found if context.principal.user_id in (None, found) else None
    return LogEvent(
        id=new_id(),
        position=0,
        type=checked.type,
        user_id=user or new_id(),
        channel_id=None,
        occurred_at=checked.occurred_at,
        received_at=context.now,
        business_date=checked.business_date,
        amount_minor=checked.amount_minor,
        currency=checked.currency,
        properties=checked.properties,
        source=input.source,
        external_id=input.external_id,
    )


def _known(tx: Tx, channel: str, external_id: str) -> uuid.UUID | None:
    """Whom an identity of a channel that there is means."""
    find_channel(tx, channel, ("identity", "channel"))
    return user_by_identity(tx, channel, external_id)


def _item(input: EventInput) -> Item:
    try:
        return new_event(input)
    except ScrmError as error:
        return Undecoded((error.as_user_error(),))


def _result(result: RecordResult) -> RecordEventResult:
    event = ref(Event, result.event_id) if result.event_id is not None else None
    status = RecordStatus(result.status.value)
    return RecordEventResult(
        index=result.index, status=status, event=event, errors=[as_graphql(error) for error in result.errors]
    )


@extend(Mutation)
class EventMutation:
    """Events to record."""

    @mutation("Record what happened; each event once.", scope="events:write")
    async def record_events(self, info: Info, input: RecordEventsInput) -> RecordEventsPayload | None:
        services = info.context.services
        if not 1 <= len(input.events) <= MAX_ITEMS:
            raise ScrmError("INVALID_BATCH", f"a batch has 1 to {MAX_ITEMS} events; got {len(input.events)}", path=("events",))
        seconds = 5 if input.wait_seconds is None else input.wait_seconds
        if not 0 <= seconds <= 30:
            raise ScrmError("INVALID_INPUT", f"waitSeconds goes from 0 to 30; got {seconds}", path=("waitSeconds",))
        names = input.wait_for or []
        unknown = [name for name in names if name != "core" and services.plugins.get(name) is None]
        if unknown:
            raise ScrmError("UNKNOWN_PLUGIN", f"no enabled plugin is called {unknown[0]!r}", path=("waitFor",))
        items = [_item(each) for each in input.events]
        policy = input.error_policy or BulkErrorPolicy.REJECT_FAILED_ROWS
        results = await services.ingest.record(
            items, policy=policy.value, create_users=input.create_users is not False, actor=info.context.actor
        )
        caught_up = True
        if names:
            await sequence(services.db)
            caught_up = await wait_for(services.db, names, await services.db.read(head), seconds)
            mine = [each.event_id for each in results if each.event_id is not None]
            caught_up = caught_up and not await services.db.read(is_any_parked, names, mine)
        counts = {
            status: sum(each.status.value == status for each in results) for status in ("ACCEPTED", "DUPLICATE", "REJECTED")
        }
        return RecordEventsPayload(
            results=[_result(each) for each in results],
            accepted=counts["ACCEPTED"],
            duplicates=counts["DUPLICATE"],
            rejected=counts["REJECTED"],
            caught_up=caught_up,
        )


@extend(Subscription)
class EventSubscription:
    """What happens, as it happens."""

    @subscription(
        "Every event that is recorded and matches, in the order of the log; `after` resumes behind a position.",
        scope="events:read",
        self_service=True,
    )
    async def event_recorded(
        self,
        info: Info,
        filter: Annotated[EventFilter | None, strawberry.argument(description="Only what matches.")] = None,
        after: Annotated[
            BigInt | None, strawberry.argument(description="Resume behind this position; from now on unless said.")
        ] = None,
    ) -> AsyncIterator[Event]:
        context = info.context
        condition = condition_of(info, events, "filter")
        async for key in follow(context, condition, after):
            yield ref(Event, key)

    @subscription("A user, whenever its profile, tags or identities change.", scope="users:read", self_service=True)
    async def user_changed(
        self, info: Info, id: Annotated[strawberry.ID, strawberry.argument(description="The user.")]
    ) -> AsyncIterator[User]:
        context = info.context
        start = await context.read(head)
        key = await context.user(id, "id", erased=True)
        survivor = sa.select(users.c.merged_into).where(users.c.id == key).scalar_subquery()
        condition = (events.c.user_id == sa.func.coalesce(survivor, key)) & events.c.type.in_(USER_CHANGES)
        async for _ in follow(context, condition, start):
            yield ref(User, await context.user(id, "id", erased=True))


USER_CHANGES = (
    "user.created",
    "user.updated",
    "user.tagged",
    "user.untagged",
    "user.merged",
    "user.unmerged",
    "user.erased",
    "identity.linked",
    "identity.unlinked",
)
