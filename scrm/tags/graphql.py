"""Tags, their groups, and who has them, in GraphQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from enum import Enum
from typing import Any

import strawberry

from scrm.channels.graphql import given
from scrm.db import Tx, instant_text
from scrm.errors import ScrmError
from scrm.graphql.bulk import BulkErrorPolicy, DeletePayload
from scrm.graphql.context import Info
from scrm.graphql.enums import enum
from scrm.graphql.ids import global_id, node_id
from scrm.graphql.matching import as_said, matching, says_nothing
from scrm.graphql.resolvers import UserErrorType, errors_field, mutation
from scrm.graphql.scalars import JSON, Direction, MatchMode
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
    one,
    order_input,
    ordering,
    ref,
    rows,
    where,
)
from scrm.tags import reads, service, tagging
from scrm.tags.bulk import change_many
from scrm.tags.models import tag_groups, tags, user_tags
from scrm.users.graphql import User, UserFilter
from scrm.users.models import users


@enum(
    "What a tag says.",
    BASIC="Who the person is 基础.",
    BEHAVIOR="What the person does 行为.",
    INTENT="What the person wants 意向.",
)
class TagKind(Enum):
    BASIC = "BASIC"
    BEHAVIOR = "BEHAVIOR"
    INTENT = "INTENT"


@enum(
    "Who set a tag.",
    MANUAL="A person.",
    RULE="The tag's rule.",
    IMPORT="An import.",
    PLUGIN="A plugin.",
)
class TagSource(Enum):
    MANUAL = "MANUAL"
    RULE = "RULE"
    IMPORT = "IMPORT"
    PLUGIN = "PLUGIN"


@filter_input
class TagFilter:
    """Which tags; every field that is given must hold."""

    search: str | None = where("Name or key contains this.", reads.tag_search)
    group: list[str] | None = where("In these groups, by key.", reads.in_group)
    kind: list[TagKind] | None = where("Of these kinds.", lambda tag, kinds: tag.c.kind.in_([kind.value for kind in kinds]))
    archived: bool | None = where(
        "Archived ones, or those in use; null: both.", lambda tag, archived: tag.c.archived.is_(archived), default=False
    )


@order_input
class TagOrder:
    """What tags are sorted by."""

    name: Direction | None = ordering("By name.", lambda tag: tag.c.name, nullable=False)
    key: Direction | None = ordering("By key.", lambda tag: tag.c.key, nullable=False)
    user_count: Direction | None = ordering("By how many users have them.", reads.user_count, nullable=False)


@rows(tag_groups, scope="tags:read", public=True)
class TagGroup(Node):
    """Tags that belong together."""

    key: str = column("Stable key.")
    name: str = column("Name.")
    exclusive: bool = column("Whether a user has at most one of them.")
    tags: list[Tag] = many(
        "The tags in use.", lambda group, tag: (tag.c.group_id == group.c.id) & tag.c.archived.is_(False), order=[tags.c.name]
    )


@rows(tags, scope="tags:read", public=True)
class Tag(Node):
    """A label on users."""

    key: str = column("Stable key.")
    name: str = column("Name.")
    kind: TagKind = column("What it says.")
    group: TagGroup | None = one("The group it is in.", lambda tag, group: group.c.id == tag.c.group_id)
    rule: JSON | None = column("The rule that sets and removes it, if there is one.")
    archived: bool = column("Whether it is out of use.")
    user_count: int = expression("How many users have it now.", reads.user_count, weight=2)


@rows(user_tags, scope="tags:read", owner=lambda tagged: tagged.c.user_id, visible=reads.current)
class UserTag:
    """A tag on a user."""

    tag: Tag = one("The tag.", lambda tagged, tag: tag.c.id == tagged.c.tag_id)
    source: TagSource = column("Who set it.")
    actor: str | None = column("By name.")
    reason: str | None = column("Why.")
    tagged_at: dt.datetime = column("When.")
    expires_at: dt.datetime | None = column("When it ends.")


@filter_input
class UserTagFilter:
    """Which tags of a user; every field that is given must hold."""

    group: list[str] | None = where(
        "In these groups, by key.", lambda tagged, keys: tagged.c.tag_id.in_(reads.tags_in_groups(keys))
    )
    kind: list[TagKind] | None = where(
        "Of these kinds.", lambda tagged, kinds: tagged.c.tag_id.in_(reads.tags_of_kinds([kind.value for kind in kinds]))
    )
    source: list[TagSource] | None = where(
        "Set by these.", lambda tagged, sources: tagged.c.source.in_([source.value for source in sources])
    )


@extend(User)
class UserTags:
    """A user's tags."""

    tags: list[UserTag] = many(
        "The person's tags, newest first.",
        lambda user, tagged: tagged.c.user_id == user.c.id,
        order=[user_tags.c.tagged_at.desc(), user_tags.c.tag_id],
        filter=UserTagFilter,
    )


@strawberry.input(description="Which tags a user has.")
class TagMatch:
    keys: list[str] = strawberry.field(description="Keys of tags.")
    mode: MatchMode | None = strawberry.field(description="How they are matched.", default=MatchMode.ANY)


@extend(UserFilter)
class UserTagMatch:
    """Users by their tags."""

    tag: TagMatch | None = where("By tags.", reads.tagged, scope="tags:read")


@extend(Query)
class TagQuery:
    """Tags to read."""

    tags: Connection[Tag] | None = many(
        "Tags in use, by name; `archived: true` shows the others, null both.",
        order=[tags.c.name],
        filter=TagFilter,
        filter_default={"archived": False},
        order_by=TagOrder,
        scope="tags:read",
    )
    tag_groups: list[TagGroup] | None = many("Groups of tags, by name.", order=[tag_groups.c.name], scope="tags:read")


@strawberry.input(description="A new tag.")
class CreateTagInput:
    key: str = strawberry.field(description="Stable key: lower case letters, digits, `_` and `-`.")
    name: str = strawberry.field(description="Name.")
    kind: TagKind = strawberry.field(description="What it says.", default=TagKind.BASIC)
    group: str | None = strawberry.field(description="Key of its group.", default=None)
    rule: JSON | None = strawberry.field(description="A rule that sets and removes it.", default=None)


@strawberry.input(description="Changes to a tag; what is absent stays.")
class UpdateTagInput:
    id: strawberry.ID = strawberry.field(description="The tag.")
    name: strawberry.Maybe[str | None] = strawberry.field(description="Name.")
    kind: strawberry.Maybe[TagKind | None] = strawberry.field(description="What it says.")
    group: strawberry.Maybe[str | None] = strawberry.field(description="Key of its group; null: none.")
    rule: strawberry.Maybe[JSON | None] = strawberry.field(description="A rule; null: none any more.")
    archived: strawberry.Maybe[bool | None] = strawberry.field(description="Whether it is out of use.")


@strawberry.input(description="A tag to delete; one that users have is archived instead, by updateTag.")
class DeleteTagInput:
    id: strawberry.ID = strawberry.field(description="The tag.")


@strawberry.input(description="A group to create or, if its key is known, to change.")
class SaveTagGroupInput:
    key: str = strawberry.field(description="Stable key.")
    name: str = strawberry.field(description="Name.")
    exclusive: bool | None = strawberry.field(
        description="Whether a user has at most one of its tags; left out, it stays as it is, for a new group false.",
        default=None,
    )


@strawberry.input(description="Tags to set, and on whom: by id, by filter, or on everybody.")
class TagUsersInput:
    tags: list[str] = strawberry.field(description="Keys of the tags.")
    user_ids: list[strawberry.ID] | None = strawberry.field(description="These users.", default=None)
    filter: UserFilter | None = strawberry.field(
        description="Or all users that match; one that names nothing is refused.", default=None
    )
    everybody: bool | None = strawberry.field(description="Or really all users.", default=False)
    reason: str | None = strawberry.field(description="Why, for the record.", default=None)
    expires_at: dt.datetime | None = strawberry.field(description="When the tag ends.", default=None)
    error_policy: BulkErrorPolicy | None = strawberry.field(
        description="What a user who cannot be tagged does to the others.", default=BulkErrorPolicy.REJECT_FAILED_ROWS
    )
    idempotency_key: str | None = strawberry.field(
        description="The same key again changes nothing and answers the same.", default=None
    )


@strawberry.input(description="Tags to remove, and from whom: by id, by filter, or from everybody.")
class UntagUsersInput:
    tags: list[str] = strawberry.field(description="Keys of the tags.")
    user_ids: list[strawberry.ID] | None = strawberry.field(description="These users.", default=None)
    filter: UserFilter | None = strawberry.field(
        description="Or all users that match; one that names nothing is refused.", default=None
    )
    everybody: bool | None = strawberry.field(description="Or really all users.", default=False)
    reason: str | None = strawberry.field(description="Why, for the record.", default=None)
    error_policy: BulkErrorPolicy | None = strawberry.field(
        description="What a user who cannot be untagged does to the others.", default=BulkErrorPolicy.REJECT_FAILED_ROWS
    )
    idempotency_key: str | None = strawberry.field(
        description="The same key again changes nothing and answers the same.", default=None
    )


@strawberry.type(description="A tag, or why not.")
class TagPayload:
    tag: Tag | None = strawberry.field(description="The tag as it is now.", default=None)
    errors: list[UserErrorType] = errors_field()


@strawberry.type(description="A group, or why not.")
class TagGroupPayload:
    tag_group: TagGroup | None = strawberry.field(description="The group as it is now.", default=None)
    errors: list[UserErrorType] = errors_field()


@strawberry.type(description="How many users were tagged or untagged.")
class TagUsersPayload:
    matched: int = strawberry.field(description="Users that were meant.", default=0)
    changed: int = strawberry.field(description="Users of whom something changed.", default=0)
    errors: list[UserErrorType] = errors_field()


@extend(Mutation)
class TagMutation:
    """Tags to change."""

    @mutation("Create a tag.", scope="tags:write")
    async def create_tag(self, info: Info, input: CreateTagInput) -> TagPayload | None:
        context, services = info.context, info.context.services
        created = await services.db.write(
            service.create_tag,
            key=input.key,
            name=input.name,
            kind=input.kind.value,
            group=input.group,
            rule=input.rule,  # type: ignore[arg-type]
            at=context.now,
            actor=context.actor,
            zone=services.settings.zone,
        )
        return TagPayload(tag=ref(Tag, created))

    @mutation("Change a tag.", scope="tags:write")
    async def update_tag(self, info: Info, input: UpdateTagInput) -> TagPayload | None:
        context, services = info.context, info.context.services
        key = node_id("Tag", input.id)
        changed = await services.db.write(
            service.update_tag, key, given(input), at=context.now, actor=context.actor, zone=services.settings.zone
        )
        return TagPayload(tag=ref(Tag, changed))

    @mutation("Delete a tag that nobody has.", scope="tags:write")
    async def delete_tag(self, info: Info, input: DeleteTagInput) -> DeletePayload | None:
        context = info.context
        key = node_id("Tag", input.id)
        await context.services.db.write(service.delete_tag, key, at=context.now, actor=context.actor)
        return DeletePayload(deleted_id=strawberry.ID(global_id("Tag", key)))

    @mutation("Create or change a group of tags.", scope="tags:write")
    async def save_tag_group(self, info: Info, input: SaveTagGroupInput) -> TagGroupPayload | None:
        context = info.context
        saved = await context.services.db.write(
            service.save_group,
            key=input.key,
            name=input.name,
            exclusive=input.exclusive,
            at=context.now,
            actor=context.actor,
            zone=context.services.settings.zone,
        )
        return TagGroupPayload(tag_group=ref(TagGroup, saved))

    @mutation("Set tags on users.", scope="tags:write")
    async def tag_users(self, info: Info, input: TagUsersInput) -> TagUsersPayload | None:
        return await change_tags(info, "tagUsers", input, tagging.tag_users, expires_at=input.expires_at)

    @mutation("Remove tags from users.", scope="tags:write")
    async def untag_users(self, info: Info, input: UntagUsersInput) -> TagUsersPayload | None:
        return await change_tags(info, "untagUsers", input, tagging.untag_users)


async def change_tags(info: Info, name: str, input: Any, change: Callable[..., tagging.Tagged], **more: Any) -> TagUsersPayload:
    """Set or remove tags on the users that the input means; once for an idempotency key."""
    context, services = info.context, info.context.services
    whom = _whom(info, input)
    strict = input.error_policy is BulkErrorPolicy.REJECT_EVERYTHING

    def run(tx: Tx, some: tagging.Users) -> tagging.Tagged:
        return change(
            tx,
            input.tags,
            some,
            source="MANUAL",
            reason=input.reason,
            strict=strict,
            at=context.now,
            actor=context.actor,
            zone=services.settings.zone,
            **more,
        )

    said = {"tags": input.tags, "userIds": input.user_ids, "filter": as_said(info, "input", "filter"), "reason": input.reason}
    said |= {"strict": strict, **{name: value and instant_text(value) for name, value in more.items()}}
    said |= {"everybody": True} if input.everybody else {}
    answer = await change_many(
        services.db,
        name,
        input.idempotency_key,
        said,
        run,
        whom,
        strict=strict,
        at=context.now,
        zone=services.settings.zone,
    )
    errors = [UserErrorType(**error) for error in answer["errors"]]
    return TagUsersPayload(matched=answer["matched"], changed=answer["changed"], errors=errors)


def _whom(info: Info, input: Any) -> tagging.Users:
    if [input.user_ids is not None, input.filter is not None, bool(input.everybody)].count(True) != 1:
        raise ScrmError("INVALID_INPUT", "give one of userIds, filter and everybody", path=("userIds",))
    if input.user_ids is not None:
        return [node_id("User", each, ("userIds", str(n))) for n, each in enumerate(input.user_ids)]
    if says_nothing(info, "input", "filter"):
        said = "the filter names nothing, so it would mean everybody; say everybody: true if they are meant"
        raise ScrmError("INVALID_INPUT", said, path=("filter",))
    return matching(info, users, "input", "filter")
