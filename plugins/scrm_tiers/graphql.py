"""Levels, memberships and their history in GraphQL."""

from __future__ import annotations

import datetime as dt
from enum import Enum

import sqlalchemy as sa

from scrm.api import (
    JSON,
    NOW,
    BigInt,
    Connection,
    Direction,
    Event,
    Money,
    Node,
    Query,
    StringFilter,
    User,
    UserFilter,
    UserOrder,
    column,
    enum,
    expression,
    extend,
    filter,
    many,
    money,
    one,
    ordering,
    rows,
    same_row,
    users,
    worded,
)

from . import service
from .models import levels, transitions

READ, WRITE = "tiers:read", "tiers:write"
PLACE = sa.column("place", sa.SmallInteger())


@enum(
    "What a level is reached by.",
    SPEND="Money spent on paid orders, less what was refunded, in minor units.",
    POINTS_EARNED="Points earned, spent or not.",
    ORDERS="Paid orders that were not refunded whole.",
    GROWTH="Growth value 成长值, given for tasks and by hand.",
)
class TierMetric(Enum):
    SPEND = "SPEND"
    POINTS_EARNED = "POINTS_EARNED"
    ORDERS = "ORDERS"
    GROWTH = "GROWTH"


@enum(
    "Why a level changed.",
    UPGRADE="What the person did reached it.",
    REVIEW="The review at the end of a period.",
    PIN="It was given by hand.",
    UNPIN="It was given by hand, and taken back before its end.",
    MERGE="Two profiles became one.",
)
class TierCause(Enum):
    UPGRADE = "UPGRADE"
    REVIEW = "REVIEW"
    PIN = "PIN"
    UNPIN = "UNPIN"
    MERGE = "MERGE"


@rows(None, public=True)
class TierThreshold:
    """What a level asks for."""

    metric: TierMetric = column("Of what.")
    value: BigInt = column("At least so much; money in minor units.")


@rows(None, public=True)
class TierBenefit:
    """What a level gives."""

    key: str = column("Stable key; `multiplier` is by what earned points are multiplied.")
    name: str = worded("Name, in the request's language where there is one.", "name", "names")
    value: JSON | None = column("How much, or what; the scheme's own.")


@rows(levels, scope=READ, public=True, visible=lambda level: level.c.rank > 0)
class Tier(Node):
    """A level of membership."""

    key: str = column("Stable key.")
    name: str = worded("Name, in the request's language where there is one.", "name", "names")
    level: int = column("Its place from 1, the lowest; 0 where the scheme does not have it any more.", name="rank")
    thresholds: list[TierThreshold] = many("What it asks for.", select=service.thresholds, order=[PLACE])
    benefits: list[TierBenefit] = many("What it gives.", select=service.given, order=[PLACE])
    member_count: int = expression("How many people have it now.", service.member_count, weight=5)


@rows(None, public=True)
class TierProgress:
    """How far somebody is on the way to a level."""

    metric: TierMetric = column("Of what.")
    value: BigInt = column("So much in the window; money in minor units.")
    required: BigInt | None = column("What the level asks for; null where there is none above.")
    remaining: BigInt | None = column("What is missing; 0 where nothing is.")
    money: Money | None = money(
        "The value, if it is money.",
        lambda row: sa.case((row.c.metric == "SPEND", row.c.value), else_=sa.null()),
        lambda row: row.c.currency,
    )


@rows(transitions, scope=READ, owner=service.holder)
class TierTransition(Node):
    """A change of somebody's level; never changed."""

    user: User | None = one(
        "Whose; null once the person is erased.", lambda transition, user: user.c.id == service.holder(transition)
    )
    from_: Tier | None = one("The level before; null: none.", lambda transition, level: level.c.key == transition.c.from_tier)
    to: Tier | None = one("The level from then on; null: none.", lambda transition, level: level.c.key == transition.c.to_tier)
    at: dt.datetime = column("When; for a review the day on which it was due.")
    cause: TierCause = column("Why.")
    progress: list[TierProgress] = many(
        "The values then, against what the new level asked for.", select=service.progress_then, order=[PLACE]
    )
    counted_from: dt.date | None = column("The first day of what was counted; null: from ever.")
    counted_to: dt.date = column("The last day of what was counted.")
    event: Event | None = one("The event it follows from.", lambda transition, event: event.c.id == transition.c.event_id)


@rows(users, scope=READ, owner=lambda user: user.c.id)
class Membership:
    """A person's level; everybody has a membership."""

    user: User = one("Whose.", lambda membership, user: user.c.id == membership.c.id)
    tier: Tier | None = one("The level; null: none yet.", service.has_tier)
    since: dt.datetime | None = expression("Since when; null: from the start.", service.since)
    valid_until: dt.datetime | None = expression(
        "The first review at which the level may fall if nothing is done for it; null where it cannot.", service.valid_until
    )
    pinned_until: dt.datetime | None = expression(
        "Until when nothing lowers the level that was given by hand; null where none was.", service.pinned_until
    )
    as_of: dt.datetime = expression("The instant of these numbers.", lambda membership: NOW)
    growth: BigInt = expression("Growth value 成长值 in the window.", service.growth, weight=1)
    next_tier: Tier | None = one("The level above; null at the top.", service.is_next)
    progress: list[TierProgress] = many("How far it is to the next level, by metric.", select=service.progress, order=[PLACE])
    projected_tier: Tier | None = one("The highest level that today's values reach; null: none.", service.is_projected)
    history: Connection[TierTransition] = many(
        "Changes of the level, newest first.",
        service.transitions_of,
        order=[transitions.c.at.desc(), transitions.c.number.desc(), transitions.c.id.desc()],
    )


@extend(User)
class TiersUser:
    """A user's membership."""

    membership: Membership | None = same_row("The person's membership.", scope=READ)


@extend(UserFilter)
class TiersFilter:
    """Users by their level."""

    tier: StringFilter | None = filter("By the key of the level.", service.tier_key, scope=READ)


@extend(UserOrder)
class TiersOrder:
    """Users sorted by their level."""

    tier_level: Direction | None = ordering("By level.", service.tier_rank, nullable=False, scope=READ)


@extend(Query)
class TiersQuery:
    """Levels to read."""

    tiers: list[Tier] | None = many("The levels of the scheme, the lowest first.", order=[levels.c.rank], scope=READ)
