"""Channels in GraphQL."""

from __future__ import annotations

import datetime as dt
from enum import Enum
from typing import Any

import strawberry

from scrm.channels import reads, service, stats
from scrm.channels.models import channels
from scrm.graphql.context import Info
from scrm.graphql.enums import enum
from scrm.graphql.ids import node_id
from scrm.graphql.money import Money, money
from scrm.graphql.resolvers import UserErrorType, errors_field, mutation
from scrm.graphql.scalars import JSON, Direction
from scrm.graphql.sources import (
    Connection,
    Mutation,
    Node,
    Query,
    arg,
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
    same_row,
    where,
)
from scrm.sql import CURRENCY


@enum(
    "What sort of channel it is.",
    WECHAT_OA="WeChat official account 公众号.",
    WECOM="WeCom 企业微信.",
    MINI_PROGRAM="Mini-program 小程序.",
    GROUP="Group chat 社群.",
    APP="The brand's app.",
    SMS="Text messages.",
    EMAIL="E-mail.",
    DOUYIN="Douyin 抖音.",
    XIAOHONGSHU="Xiaohongshu 小红书.",
    WEBSITE="The brand's website.",
    STORE="A store 门店.",
    OTHER="Anything else.",
)
class ChannelKind(Enum):
    WECHAT_OA = "WECHAT_OA"
    WECOM = "WECOM"
    MINI_PROGRAM = "MINI_PROGRAM"
    GROUP = "GROUP"
    APP = "APP"
    SMS = "SMS"
    EMAIL = "EMAIL"
    DOUYIN = "DOUYIN"
    XIAOHONGSHU = "XIAOHONGSHU"
    WEBSITE = "WEBSITE"
    STORE = "STORE"
    OTHER = "OTHER"


@enum(
    "How much the brand relies on a channel.",
    MAIN="Where customers are kept.",
    AUXILIARY="Where they come from or are reached besides.",
)
class ChannelRole(Enum):
    MAIN = "MAIN"
    AUXILIARY = "AUXILIARY"


@order_input
class ChannelOrder:
    """What channels are sorted by."""

    name: Direction | None = ordering("By name.", lambda channel: channel.c.name, nullable=False)
    key: Direction | None = ordering("By key.", lambda channel: channel.c.key, nullable=False)
    user_count: Direction | None = ordering("By how many users they have.", stats.user_count, nullable=False)
    new_users: Direction | None = ordering("By how many users they brought in all.", stats.acquired, nullable=False)


@filter_input
class ChannelFilter:
    """Which channels; every field that is given must hold."""

    search: str | None = where("Name or key contains this.", reads.channel_search)
    parent: list[str] | None = where("Children of these, by key.", reads.child_of)
    kind: list[ChannelKind] | None = where(
        "Of these kinds.", lambda channel, kinds: channel.c.kind.in_([kind.value for kind in kinds])
    )
    role: ChannelRole | None = where("In this role.", lambda channel, role: channel.c.role == role.value)
    enabled: bool | None = where("Whether it is in use.", lambda channel, enabled: channel.c.enabled.is_(enabled))


@rows(None, public=True)
class ChannelStats:
    """What happened on a channel, its children included, over days `from` to before `to`."""

    new_users: int = column("Users whose first event came through it.")
    lost_users: int = column("Distinct users who unfollowed or left.")
    active_users: int = column("Distinct users with any event on it.")
    buyers: int = column("Distinct users who paid an order on it.")
    orders: int = column("Orders paid on it.")
    revenue: Money = money(
        "Paid less refunded, in the business currency.", lambda row: row.c.revenue_minor, lambda row: row.c.currency
    )


@rows(channels, scope="channels:read", public=True)
class Channel(Node):
    """A place where the brand meets its customers. A child's people are its root's."""

    key: str = column("Stable key.")
    name: str = column("Name.")
    kind: ChannelKind = column("What sort of channel it is.")
    role: ChannelRole = column("How much the brand relies on it.")
    enabled: bool = column("Whether it is in use.")
    config: JSON = column("Settings of the channel, without secrets.")
    user_count: int = expression("How many users have an identity here or in a child.", stats.user_count, weight=2)
    parent: Channel | None = one("The channel it belongs to.", lambda channel, parent: parent.c.id == channel.c.parent_id)
    children: Connection[Channel] = many(
        "The channels that belong to it.",
        lambda channel, child: child.c.parent_id == channel.c.id,
        order=[channels.c.name],
        filter=ChannelFilter,
        order_by=ChannelOrder,
    )
    stats: ChannelStats | None = same_row(
        "What happened on it over some days.",
        lambda channel, from_, to: {**stats.stats(channel, *stats.checked(from_, to), CURRENCY), "currency": CURRENCY},
        from_=arg(dt.date, "First business day."),
        to=arg(dt.date, "The day after the last; later than `from`."),
    )


@extend(Query)
class ChannelQuery:
    """Channels to read."""

    channels: Connection[Channel] | None = many(
        "All channels, by name.", order=[channels.c.name], filter=ChannelFilter, order_by=ChannelOrder, scope="channels:read"
    )


@strawberry.input(description="A new channel.")
class CreateChannelInput:
    key: str = strawberry.field(description="Stable key: lower case letters, digits, `_` and `-`.")
    name: str = strawberry.field(description="Name.")
    kind: ChannelKind = strawberry.field(description="What sort of channel it is.")
    role: ChannelRole = strawberry.field(description="How much the brand relies on it.", default=ChannelRole.MAIN)
    enabled: bool = strawberry.field(description="Whether it is in use.", default=True)
    config: JSON | None = strawberry.field(description="Settings of the channel, without secrets.", default=None)
    parent: str | None = strawberry.field(description="Key of the channel it belongs to.", default=None)


@strawberry.input(description="Changes to a channel; what is absent stays.")
class UpdateChannelInput:
    id: strawberry.ID = strawberry.field(description="The channel.")
    name: strawberry.Maybe[str | None] = strawberry.field(description="Name.")
    kind: strawberry.Maybe[ChannelKind | None] = strawberry.field(description="What sort of channel it is.")
    role: strawberry.Maybe[ChannelRole | None] = strawberry.field(description="How much the brand relies on it.")
    enabled: strawberry.Maybe[bool | None] = strawberry.field(description="Whether it is in use.")
    config: strawberry.Maybe[JSON | None] = strawberry.field(description="Settings of the channel.")
    parent: strawberry.Maybe[str | None] = strawberry.field(description="Key of the channel it belongs to; null: none.")


@strawberry.type(description="A channel, or why not.")
class ChannelPayload:
    channel: Channel | None = strawberry.field(description="The channel as it is now.", default=None)
    errors: list[UserErrorType] = errors_field()


@extend(Mutation)
class ChannelMutation:
    """Channels to change."""

    @mutation("Create a channel.", scope="channels:write")
    async def create_channel(self, info: Info, input: CreateChannelInput) -> ChannelPayload | None:
        context = info.context
        created = await context.services.db.write(
            service.create_channel,
            key=input.key,
            name=input.name,
            kind=input.kind.value,
            role=input.role.value,
            enabled=input.enabled,
            config=input.config or {},  # type: ignore[arg-type]
            parent=input.parent,
            at=context.now,
            actor=context.actor,
        )
        return ChannelPayload(channel=ref(Channel, created))

    @mutation("Change a channel.", scope="channels:write")
    async def update_channel(self, info: Info, input: UpdateChannelInput) -> ChannelPayload | None:
        context = info.context
        key = node_id("Channel", input.id)
        changed = await context.services.db.write(service.update_channel, key, given(input), at=context.now, actor=context.actor)
        return ChannelPayload(channel=ref(Channel, changed))


def given(input: Any) -> dict[str, Any]:
    """The fields of an input that were given (`Maybe`), by name; enums as their values."""
    found = {}
    for name, value in vars(input).items():
        if isinstance(value, strawberry.Some):
            found[name] = value.value.value if isinstance(value.value, Enum) else value.value
    return found
