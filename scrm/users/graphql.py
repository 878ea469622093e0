"""Users and their identities in GraphQL."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from enum import Enum
from typing import Any

import strawberry

from scrm.channels.graphql import Channel, given
from scrm.db import Tx
from scrm.errors import ScrmError
from scrm.graphql.attributes import AttributeFilter, matches
from scrm.graphql.context import Info
from scrm.graphql.enums import enum
from scrm.graphql.ids import as_node_id, as_node_ids, global_id, node_id
from scrm.graphql.resolvers import UserErrorType, errors_field, mutation
from scrm.graphql.scalars import JSON, DateFilter, DateTimeFilter, Direction, StringFilter
from scrm.graphql.sources import (
    Connection,
    Mutation,
    Node,
    Query,
    arg,
    column,
    combine,
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
from scrm.plugin_set import Plugin, count_rows
from scrm.sql import member
from scrm.users import merging, privacy, reads, service
from scrm.users.models import identities, users


@enum(
    "As the person says.",
    FEMALE="Female.",
    MALE="Male.",
    OTHER="Neither, or not said this way.",
)
class Gender(Enum):
    FEMALE = "FEMALE"
    MALE = "MALE"
    OTHER = "OTHER"


@strawberry.input(description="A person as a channel knows them.")
class IdentityInput:
    channel: str = strawberry.field(description="Key of the channel.")
    external_id: str = strawberry.field(description="The person's id there, such as an openid.")


@filter_input
class UserFilter:
    """Which users; every field that is given must hold."""

    and_: list[UserFilter] | None = combine("All of these hold.", "and")
    or_: list[UserFilter] | None = combine("At least one of these holds.", "or")
    not_: list[UserFilter] | None = combine("None of these holds.", "not")
    ids: list[strawberry.ID] | None = where(
        "These users; a merged one's id means its survivor.", lambda user, ids: reads.among(user, as_node_ids(ids, "User"))
    )
    display_name: StringFilter | None = filter("By name.", lambda user: user.c.display_name, personal=True)
    phone: StringFilter | None = filter("By phone.", lambda user: user.c.phone, personal=True)
    email: StringFilter | None = filter("By e-mail.", lambda user: user.c.email, personal=True)
    gender: list[Gender] | None = where(
        "Of these.", lambda user, genders: user.c.gender.in_([gender.value for gender in genders])
    )
    birthday: DateFilter | None = filter("By birthday.", lambda user: user.c.birthday, personal=True)
    birthday_within_days: int | None = where("Birthday today or within so many days.", reads.birthday_within, personal=True)
    country: StringFilter | None = filter("By country.", lambda user: user.c.country)
    region: StringFilter | None = filter("By region.", lambda user: user.c.region)
    city: StringFilter | None = filter("By city.", lambda user: user.c.city)
    language: StringFilter | None = filter("By language.", lambda user: user.c.language)
    attributes: list[AttributeFilter] | None = where(
        "By attributes; all must hold.", lambda user, given: matches(user.c.attributes, given), personal_keys="attributes"
    )
    channel: list[str] | None = where("Known on one of these channels, by key.", reads.on_channel)
    acquisition_channel: list[str] | None = where("Came through one of these channels, by key.", reads.acquired_through)
    created_at: DateTimeFilter | None = filter("By when they were created.", lambda user: user.c.created_at)
    updated_at: DateTimeFilter | None = filter("By when they were changed.", lambda user: user.c.updated_at)
    first_seen_at: DateTimeFilter | None = filter("By their first event.", lambda user: user.c.first_seen_at)
    last_seen_at: DateTimeFilter | None = filter("By their last event.", lambda user: user.c.last_seen_at)


@order_input
class UserOrder:
    """What users are sorted by."""

    created_at: Direction | None = ordering("By when they were created.", lambda user: user.c.created_at, nullable=False)
    last_seen_at: Direction | None = ordering("By their last event.", lambda user: user.c.last_seen_at)
    display_name: Direction | None = ordering("By name.", lambda user: user.c.display_name, personal=True)


@rows(identities, scope="users:read", owner=lambda identity: identity.c.user_id)
class Identity:
    """A person as a channel knows them."""

    channel: Channel = one("The channel.", lambda identity, channel: channel.c.id == identity.c.channel_id)
    external_id: str = column("The person's id there.", personal=True)
    union_id: str | None = column("What ties the person's identities on several channels together.", personal=True)
    linked_at: dt.datetime = column("Since when it is known.")


@rows(
    users,
    scope="users:read",
    owner=lambda user: user.c.id,
    visible=lambda user: user.c.merged_into.is_(None),
    loads=lambda user, ids: member(user.c.id, ids),
)
class User(Node):
    """One person over all channels."""

    display_name: str | None = column("Name as shown.", personal=True)
    phone: str | None = column("Phone.", personal=True)
    email: str | None = column("E-mail.", personal=True)
    gender: Gender | None = column("As the person says.")
    birthday: dt.date | None = column("Day of birth.", personal=True)
    country: str | None = column("Country.")
    region: str | None = column("Province or state.")
    city: str | None = column("City.")
    language: str | None = column("Language tag, such as zh-CN.")
    attributes: JSON = column("What else the brand keeps.", personal_keys="attributes")
    acquisition_channel: Channel | None = one(
        "The channel of the first event; set once.", lambda user, channel: channel.c.id == user.c.acquisition_channel_id
    )
    created_at: dt.datetime = column("When the profile was made.")
    updated_at: dt.datetime = column("When the profile was last changed.")
    first_seen_at: dt.datetime | None = column("When the first event happened.")
    last_seen_at: dt.datetime | None = column("When the last event happened.")
    identities: list[Identity] = many(
        "Where the person is known.",
        lambda user, identity: identity.c.user_id == user.c.id,
        order=[identities.c.linked_at, identities.c.id],
    )


def _user(row: Any, id: Any, identity: Any) -> Any:
    if (id is None) == (identity is None):
        raise ScrmError("INVALID_INPUT", "give either id or identity", path=("id",))
    if id is not None:
        return row.c.id == reads.survivor_of(as_node_id(id, "User"))
    return row.c.id == reads.owner_of_identity(identity["channel"], identity["external_id"])


@extend(Query)
class UserQuery:
    """Users to read."""

    user: User | None = one(
        "One person, by id (also of a profile merged into another) or by identity.",
        _user,
        scope="users:read",
        id=arg(strawberry.ID | None, "Global id.", None),
        identity=arg(IdentityInput | None, "A person as a channel knows them.", None),
    )
    users: Connection[User] | None = many(
        "People, newest first.",
        lambda user: user.c.erased_at.is_(None),
        order=[users.c.created_at.desc(), users.c.id.desc()],
        filter=UserFilter,
        order_by=UserOrder,
        scope="users:read",
    )


def _maybe(words: str) -> Any:
    return strawberry.field(description=words)


@strawberry.input(description="An identity to link.")
class NewIdentityInput:
    channel: str = strawberry.field(description="Key of the channel.")
    external_id: str = strawberry.field(description="The person's id there.")
    union_id: str | None = strawberry.field(description="What ties identities on several channels to one person.", default=None)


@strawberry.input(description="A new user.")
class CreateUserInput:
    display_name: strawberry.Maybe[str | None] = _maybe("Name as shown.")
    phone: strawberry.Maybe[str | None] = _maybe("Phone.")
    email: strawberry.Maybe[str | None] = _maybe("E-mail.")
    gender: strawberry.Maybe[Gender | None] = _maybe("As the person says.")
    birthday: strawberry.Maybe[dt.date | None] = _maybe("Day of birth.")
    country: strawberry.Maybe[str | None] = _maybe("Country.")
    region: strawberry.Maybe[str | None] = _maybe("Province or state.")
    city: strawberry.Maybe[str | None] = _maybe("City.")
    language: strawberry.Maybe[str | None] = _maybe("Language tag, such as zh-CN.")
    attributes: strawberry.Maybe[JSON | None] = _maybe("What else the brand keeps: an object.")
    identities: list[NewIdentityInput] = strawberry.field(description="Where the person is known.", default_factory=list)
    channel: str | None = strawberry.field(description="Key of the channel the person came through.", default=None)


@strawberry.input(description="Changes to a user; what is absent stays, null clears.")
class UpdateUserInput:
    id: strawberry.ID = strawberry.field(description="The user.")
    display_name: strawberry.Maybe[str | None] = _maybe("Name as shown.")
    phone: strawberry.Maybe[str | None] = _maybe("Phone.")
    email: strawberry.Maybe[str | None] = _maybe("E-mail.")
    gender: strawberry.Maybe[Gender | None] = _maybe("As the person says.")
    birthday: strawberry.Maybe[dt.date | None] = _maybe("Day of birth.")
    country: strawberry.Maybe[str | None] = _maybe("Country.")
    region: strawberry.Maybe[str | None] = _maybe("Province or state.")
    city: strawberry.Maybe[str | None] = _maybe("City.")
    language: strawberry.Maybe[str | None] = _maybe("Language tag, such as zh-CN.")
    attributes: strawberry.Maybe[JSON | None] = _maybe("What else the brand keeps: an object; replaces the whole.")


@strawberry.input(description="An identity to give to a user.")
class LinkIdentityInput:
    user_id: strawberry.ID = strawberry.field(description="The user.")
    identity: NewIdentityInput = strawberry.field(description="The identity; nobody else's.")


@strawberry.input(description="An identity to take away.")
class UnlinkIdentityInput:
    identity: IdentityInput = strawberry.field(description="The identity.")


@strawberry.input(description="Two profiles of one person.")
class MergeUsersInput:
    kept_id: strawberry.ID = strawberry.field(description="The user that stays.")
    absorbed_id: strawberry.ID = strawberry.field(description="The user that becomes part of it.")
    reason: str = strawberry.field(description="Why, for the record.", default="the same person")
    dry_run: bool = strawberry.field(description="Only say what would move.", default=False)


@strawberry.input(description="A merge to undo.")
class UnmergeUsersInput:
    merge_id: strawberry.ID = strawberry.field(description="The merge, as mergeUsers answered it.")
    reason: str | None = strawberry.field(description="Why, for the record.", default=None)


@strawberry.type(description="A user, or why not.")
class UserPayload:
    user: User | None = strawberry.field(description="The user as it is now.", default=None)
    errors: list[UserErrorType] = errors_field()


@strawberry.type(description="How many rows of an owner moved.")
class MovedCount:
    owner: str = strawberry.field(description="`core` or a plugin.")
    count: int = strawberry.field(description="Rows that moved, or would.")


@strawberry.type(description="What a merge did, or would do.")
class MergePayload:
    merge_id: strawberry.ID | None = strawberry.field(description="For unmergeUsers; null for a dry run.", default=None)
    kept: User | None = strawberry.field(description="The user that stays.", default=None)
    absorbed: User | None = strawberry.field(description="The user that became part of it.", default=None)
    moved: list[MovedCount] = strawberry.field(
        description="How much moved, by owner; plugins follow in their turn.", default_factory=list
    )
    errors: list[UserErrorType] = errors_field()


@strawberry.input(description="A user to erase.")
class EraseUserInput:
    id: strawberry.ID = strawberry.field(description="The user.")


@strawberry.type(description="An erased user, or why not.")
class EraseUserPayload:
    erased_id: strawberry.ID | None = strawberry.field(
        description="The user that was erased; the survivor's id where a merged one's was given.", default=None
    )
    pseudonym: str | None = strawberry.field(description="Under which ledgers go on.", default=None)
    errors: list[UserErrorType] = errors_field()


@strawberry.input(description="A user to export.")
class ExportUserInput:
    id: strawberry.ID = strawberry.field(description="The user.")


@strawberry.type(description="What is kept of a user, or why not.")
class ExportUserPayload:
    export: JSON | None = strawberry.field(
        description="Profile, identities, tags, events, merges, and each plugin's rows.", default=None
    )
    errors: list[UserErrorType] = errors_field()


def _payload(outcome: merging.MergeOutcome) -> MergePayload:
    return MergePayload(
        merge_id=strawberry.ID(f"Merge_{outcome.merge_id.hex}") if outcome.merge_id else None,
        kept=ref(User, outcome.kept),
        absorbed=ref(User, outcome.absorbed),
        moved=[MovedCount(owner=owner, count=count) for owner, count in outcome.moved.items()],
    )


def counter(plugin: Plugin) -> Callable[[Tx, uuid.UUID], int | None]:
    """How a plugin counts its rows of a user; None where it fails at it."""
    return lambda tx, user: count_rows(plugin, tx, user)


def _identity(input: NewIdentityInput) -> service.NewIdentity:
    return service.NewIdentity(input.channel, input.external_id, input.union_id)


@extend(Mutation)
class UserMutation:
    """Users to change."""

    @mutation("Create a user.", scope="users:write")
    async def create_user(self, info: Info, input: CreateUserInput) -> UserPayload | None:
        context = info.context
        created = await context.services.db.write(
            service.create_user,
            identities=[_identity(each) for each in input.identities],
            fields=given(input),
            channel=input.channel,
            at=context.now,
            actor=context.actor,
            zone=context.services.settings.zone,
        )
        return UserPayload(user=ref(User, created))

    @mutation("Change a user's profile.", scope="users:write")
    async def update_user(self, info: Info, input: UpdateUserInput) -> UserPayload | None:
        context = info.context
        zone = context.services.settings.zone
        key = node_id("User", input.id)
        changed = await context.services.db.write(
            service.update_user, key, given(input), at=context.now, actor=context.actor, zone=zone
        )
        return UserPayload(user=ref(User, changed))

    @mutation("Give an identity to a user.", scope="users:write")
    async def link_identity(self, info: Info, input: LinkIdentityInput) -> UserPayload | None:
        context = info.context
        linked = await context.services.db.write(
            service.link_identity,
            node_id("User", input.user_id, ("userId",)),
            _identity(input.identity),
            at=context.now,
            actor=context.actor,
            zone=context.services.settings.zone,
        )
        return UserPayload(user=ref(User, linked))

    @mutation("Take an identity away.", scope="users:write")
    async def unlink_identity(self, info: Info, input: UnlinkIdentityInput) -> UserPayload | None:
        context = info.context
        owner = await context.services.db.write(
            service.unlink_identity,
            channel=input.identity.channel,
            external_id=input.identity.external_id,
            at=context.now,
            actor=context.actor,
            zone=context.services.settings.zone,
        )
        return UserPayload(user=ref(User, owner))

    @mutation("Make one user of two.", scope="users:write")
    async def merge_users(self, info: Info, input: MergeUsersInput) -> MergePayload | None:
        context, services = info.context, info.context.services
        kept, absorbed = node_id("User", input.kept_id, ("keptId",)), node_id("User", input.absorbed_id, ("absorbedId",))
        counters = {plugin.name: counter(plugin) for plugin in services.plugins if hasattr(plugin.hooks, "count")}
        if input.dry_run:
            return _payload(await services.db.read(merging.plan_merge, kept, absorbed, counters))
        outcome = await services.db.write(
            merging.merge,
            kept,
            absorbed,
            reason=input.reason,
            at=context.now,
            actor=context.actor,
            zone=services.settings.zone,
            counters=counters,
        )
        return _payload(outcome)

    @mutation("Remove what is personal of a user, for good; ledgers go on under a pseudonym.", scope="pii:write")
    async def erase_user(self, info: Info, input: EraseUserInput) -> EraseUserPayload | None:
        context, services = info.context, info.context.services
        key = node_id("User", input.id)
        done = await services.db.write(
            privacy.erase,
            key,
            at=context.now,
            actor=context.actor,
            zone=services.settings.zone,
            personal=services.settings.personal_properties,
        )
        return EraseUserPayload(erased_id=strawberry.ID(global_id("User", done.user_id)), pseudonym=done.pseudonym.hex)

    @mutation("Hand over everything that is kept of a user; noted in the audit log.", scope="pii:write")
    async def export_user(self, info: Info, input: ExportUserInput) -> ExportUserPayload | None:
        context, services = info.context, info.context.services
        key = node_id("User", input.id)
        kept = await services.db.write(privacy.export, key, services.plugins.export, at=context.now, actor=context.actor)
        return ExportUserPayload(export=JSON(kept))

    @mutation("Make two users of one again: what came before the merge goes back, what came after stays.", scope="users:write")
    async def unmerge_users(self, info: Info, input: UnmergeUsersInput) -> MergePayload | None:
        context, services = info.context, info.context.services
        key = node_id("Merge", input.merge_id, ("mergeId",))
        outcome = await services.db.write(
            merging.unmerge, key, reason=input.reason, at=context.now, actor=context.actor, zone=services.settings.zone
        )
        return _payload(outcome)
