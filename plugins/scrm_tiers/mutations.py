"""Levels given by hand, growth value, reviews, simulations, and what happens to levels, in GraphQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
import strawberry

from scrm.api import (
    JSON,
    BigInt,
    Decision,
    Info,
    Mutation,
    Query,
    ScrmError,
    Subscription,
    Tx,
    User,
    UserErrorType,
    errors_field,
    events,
    extend,
    field,
    follow,
    global_id,
    instant_text,
    json_text,
    mutation,
    node_id,
    query,
    ref,
    subscription,
)

from . import service
from .book import CHANGED
from .events import CLEARED, DUE, GRANTED, SET
from .graphql import READ, WRITE, Membership, TierTransition
from .rules import TiersRules
from .simulate import movers, moves, parse_scheme

set_tier = Decision("setTier", SET, service.set_tier)
clear_tier = Decision("clearTier", CLEARED, service.clear_tier)
grant_growth = Decision("grantGrowth", GRANTED, service.grant_growth)
review_tiers = Decision("reviewTiers", DUE, service.review_tiers)
DECISIONS = (set_tier, clear_tier, grant_growth, review_tiers)

KEY = "The same key again changes nothing and answers the same."
REASON = "Why, for the log; forgotten when the person is erased."


@strawberry.input(description="A level to give by hand.")
class SetTierInput:
    user_id: strawberry.ID = strawberry.field(description="To whom.")
    tier: str = strawberry.field(description="Key of the level.")
    until: dt.datetime = strawberry.field(description="Until when nothing lowers it.")
    reason: str | None = strawberry.field(description=REASON, default=None)
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="A level that was given by hand, to take back.")
class ClearTierInput:
    user_id: strawberry.ID = strawberry.field(description="Whose.")
    reason: str | None = strawberry.field(description=REASON, default=None)
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="Growth value to give by hand.")
class GrantGrowthInput:
    user_id: strawberry.ID = strawberry.field(description="To whom.")
    growth: BigInt = strawberry.field(description="How much.")
    reason: str | None = strawberry.field(description=REASON, default=None)
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.input(description="A review to do now, if it is due and was not done.")
class ReviewTiersInput:
    as_of: dt.datetime | None = strawberry.field(description="The periods that were over then; now unless said.", default=None)
    idempotency_key: str = strawberry.field(description=KEY)


@strawberry.type(description="A person's membership as it is now, or why not.")
class MembershipPayload:
    membership: Membership | None = strawberry.field(description="The membership.", default=None)
    errors: list[UserErrorType] = errors_field()


@strawberry.type(description="What a review did, or why not.")
class TierReviewPayload:
    day: dt.date | None = strawberry.field(description="The day that begins the period after the one reviewed.", default=None)
    changed: int | None = strawberry.field(description="How many levels it changed.", default=None)
    left: int | None = strawberry.field(
        description="How many people are still to be reviewed, where they are many: ask again, or leave it to the clock.",
        default=None,
    )
    errors: list[UserErrorType] = errors_field()


@extend(Mutation)
class TiersMutation:
    """Levels to change."""

    @mutation("Give a person a level, below which nothing lowers before its end.", scope=WRITE)
    async def set_tier(self, info: Info, input: SetTierInput) -> MembershipPayload | None:
        said = {"tier": input.tier, "until": instant_text(input.until), "reason": input.reason}
        return await _decided(info, set_tier, input, said)

    @mutation("Take back a level that was given by hand.", scope=WRITE)
    async def clear_tier(self, info: Info, input: ClearTierInput) -> MembershipPayload | None:
        return await _decided(info, clear_tier, input, {"reason": input.reason})

    @mutation("Give a person growth value.", scope=WRITE)
    async def grant_growth(self, info: Info, input: GrantGrowthInput) -> MembershipPayload | None:
        return await _decided(info, grant_growth, input, {"growth": int(input.growth), "reason": input.reason})

    @mutation("Review all levels as of the end of the newest period, without waiting for the clock.", scope=WRITE)
    async def review_tiers(self, info: Info, input: ReviewTiersInput) -> TierReviewPayload | None:
        said = {"asOf": instant_text(input.as_of) if input.as_of is not None else None}
        decided = await info.context.decide(review_tiers, said, key=input.idempotency_key)
        day = dt.date.fromisoformat(decided.properties["day"])
        changed, left = await info.context.read(service.reviewed, decided.event_id, day)
        return TierReviewPayload(day=day, changed=changed, left=left)


async def _decided(info: Info, decision: Decision, input: Any, said: dict[str, Any]) -> MembershipPayload:
    user = await info.context.user(input.user_id)
    decided = await info.context.decide(decision, {"userId": user.hex, **said}, key=input.idempotency_key)
    return MembershipPayload(membership=ref(Membership, decided.user_id or user))


@extend(Subscription)
class TiersSubscription:
    """Levels, as they change."""

    @subscription("Changes of levels, as they happen.", scope=READ, self_service=True)
    async def tier_changed(
        self,
        info: Info,
        user_id: Annotated[strawberry.ID | None, strawberry.argument(description="Only this person's.")] = None,
    ) -> AsyncIterator[TierTransition]:
        wanted = (events.c.type == CHANGED) & json_text(events.c.properties, "transition").is_not(None)
        if user_id is not None:
            wanted &= events.c.user_id == await info.context.user(user_id)
        async for event_id in follow(info.context, wanted, plugin="tiers"):
            yield ref(TierTransition, await info.context.read(_transition_of, event_id))


def _transition_of(tx: Tx, event_id: UUID) -> UUID:
    return UUID(tx.scalar(sa.select(events.c.properties).where(events.c.id == event_id))["transition"])


@strawberry.type(description="How many people would go from one level to another.")
class TierMove:
    from_: str | None = strawberry.field(name="from", description="Key of the level they have; null: none.")
    to: str | None = strawberry.field(description="Key of the level they would have; null: none.")
    count: int = strawberry.field(description="How many.")


@strawberry.type(description="Somebody whose level would change.")
class TierMover:
    user: User | None = strawberry.field(description="Who.")
    from_: str | None = strawberry.field(name="from", description="Key of the level the person has; null: none.")
    to: str | None = strawberry.field(description="Key of the level the person would have; null: none.")


@strawberry.type(description="A page of people whose levels would change.")
class TierMovers:
    nodes: list[TierMover] = strawberry.field(description="They, by id.")
    has_next_page: bool = strawberry.field(description="Whether more follow.")
    end_cursor: str | None = strawberry.field(description="To go on with, as `after`.")


@strawberry.type(description="What another scheme would make of everybody today; nothing has changed.")
class TierSimulation:
    given: strawberry.Private[TiersRules]
    as_of: dt.datetime = strawberry.field(description="The instant of these numbers.")

    people: int = strawberry.field(description="How many people were looked at.")
    unchanged: int = strawberry.field(description="How many would keep their level.")
    moves: list[TierMove] = strawberry.field(description="How many would go from which level to which.")

    @field("Who they are.")
    async def users(
        self,
        info: Info,
        from_: Annotated[str | None, strawberry.argument(name="from", description="Only from this level, by key.")] = None,
        to: Annotated[str | None, strawberry.argument(description="Only to this level, by key.")] = None,
        first: Annotated[int, strawberry.argument(description="How many, 1 to 100.")] = 20,
        after: Annotated[str | None, strawberry.argument(description="Only what comes after this cursor.")] = None,
    ) -> TierMovers | None:
        if not 1 <= first <= 100:
            raise ScrmError("INVALID_PAGE", f"first is {first}; ask for 1 to 100", path=("first",))
        behind = node_id("User", after, ("after",)) if after is not None else None
        found = await info.context.read(movers, self.given, info.context.now, from_, to, behind, first + 1)
        page = [TierMover(user=ref(User, user), from_=left, to=got) for user, left, got in found[:first]]
        end = global_id("User", found[:first][-1][0]) if page else None
        return TierMovers(nodes=page, has_next_page=len(found) > first, end_cursor=end)


@extend(Query)
class TiersSimulations:
    """Schemes to try."""

    @query(
        "What a review of everybody today would do under another scheme, with no grace left; nothing changes.",
        scope=READ,
        weight=50,
    )
    async def simulate_tiers(
        self, info: Info, scheme: Annotated[JSON, strawberry.argument(description="The scheme, as `[plugins.tiers]` says it.")]
    ) -> TierSimulation | None:
        context = info.context
        house = await context.rules("tiers")
        assert isinstance(house, TiersRules)
        given = parse_scheme(scheme, house)
        found = await context.read(moves, given, context.now)
        return TierSimulation(
            given=given,
            as_of=context.now,
            people=sum(move.count for move in found),
            unchanged=sum(move.count for move in found if move.before == move.after),
            moves=[TierMove(from_=move.before, to=move.after, count=move.count) for move in found if move.before != move.after],
        )
