"""Marks in GraphQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any

import sqlalchemy as sa
import strawberry

from scrm.api import (
    BatchInfo,
    BigInt,
    Connection,
    Direction,
    Info,
    IntFilter,
    Mutation,
    Node,
    Query,
    Row,
    Subscription,
    User,
    UserErrorType,
    UserFilter,
    UserOrder,
    arg,
    batch,
    column,
    derive_id,
    errors_field,
    events,
    expression,
    extend,
    filter,
    follow,
    many,
    mutation,
    node_id,
    one,
    ordering,
    query,
    ref,
    rows,
    subscription,
)

from .events import MARKED, PAID, SPENT
from .handlers import SPEND
from .models import marks, reviews
from .settings import EverythingRules

READ, WRITE = "marks:read", "marks:write"


def weight(user: Row, since: Any = None) -> sa.ColumnElement[int]:
    """The weight of a person's marks."""
    made = sa.select(sa.cast(sa.func.coalesce(sa.func.sum(marks.c.weight), 0), sa.BigInteger)).where(
        marks.c.owner_id == user.c.id
    )
    return (made if since is None else made.where(marks.c.day >= since)).scalar_subquery()


async def medals(keys: Sequence[Any], info: BatchInfo) -> Mapping[Any, str]:
    """A word for a weight."""
    return {key: "gold" if key >= 10 else "silver" for key in keys if key > 0}


@rows(marks, scope=READ, owner=lambda mark: mark.c.owner_id)
class Mark(Node):
    """A mark."""

    weight: int = column("How heavy; negative when it was spent.")
    note: str | None = column("What was whispered.", personal=True)
    day: dt.date = column("The business day.")
    made_at: dt.datetime = column("When it was made.")
    medal: str | None = batch("Gold, silver or none.", medals, needs=["weight"])
    user: User | None = one("Whose.", lambda mark, user: user.c.id == mark.c.owner_id)


@rows(reviews, scope=READ, public=True)
class Review:
    """A day that is over."""

    day: dt.date = column("The day.")
    people: int = column("People with an order or a mark until then.")


@extend(User, scope=READ)
class EverythingUser:
    """A person's marks."""

    mark_weight: BigInt | None = expression("Weight of the marks.", weight, since=arg(dt.date | None, "Since a day.", None))
    marks: Connection[Mark] | None = many(
        "Newest first.", lambda user, mark: mark.c.owner_id == user.c.id, order=[marks.c.made_at.desc()]
    )


@extend(UserFilter, scope=READ)
class EverythingUserFilter:
    """Users by their marks."""

    mark_weight: IntFilter | None = filter("By the weight of the marks.", weight)


@extend(UserOrder, scope=READ)
class EverythingUserOrder:
    """Users by their marks."""

    mark_weight: Direction | None = ordering("By the weight of the marks.", weight, nullable=False)


@extend(Query)
class EverythingQuery:
    """Marks to read."""

    marks: Connection[Mark] | None = many("All marks, newest first.", order=[marks.c.made_at.desc()], scope=READ)
    mark_reviews: list[Review] | None = many("Days that are over, newest first.", order=[reviews.c.day.desc()], scope=READ)

    @query("Weight of the mark that an order makes now.", scope=READ, self_service=True)
    async def mark_per_order(self, info: Info) -> int | None:
        rules = await info.context.rules("everything")
        assert isinstance(rules, EverythingRules)
        return rules.per_order


@strawberry.input(description="Marks to spend.")
class SpendMarksInput:
    user_id: strawberry.ID = strawberry.field(description="Whose.")
    weight: int = strawberry.field(description="How many.")
    idempotency_key: str = strawberry.field(description="The same key again changes nothing and answers the same.")


@strawberry.type(description="The mark that was made of it, or why not.")
class SpendMarksPayload:
    mark: Mark | None = strawberry.field(description="What was spent, as a mark.", default=None)
    errors: list[UserErrorType] = errors_field()


@extend(Mutation)
class EverythingMutation:
    """Marks to change."""

    @mutation("Spend marks.", scope=WRITE, self_service=True)
    async def spend_marks(self, info: Info, input: SpendMarksInput) -> SpendMarksPayload | None:
        user = await info.context.user(input.user_id)
        decided = await info.context.decide(SPEND, {"user": user.hex, "weight": input.weight}, key=input.idempotency_key)
        return SpendMarksPayload(mark=ref(Mark, derive_id(decided.event_id, "mark")))


@extend(Subscription)
class EverythingSubscription:
    """Marks, as they are made."""

    @subscription("A person's marks, as they are made.", scope=READ)
    async def mark_made(
        self, info: Info, user_id: Annotated[strawberry.ID, strawberry.argument(description="Whose.")]
    ) -> AsyncIterator[Mark]:
        mine = (events.c.user_id == node_id("User", user_id)) & events.c.type.in_([PAID, MARKED, SPENT])
        async for event_id in follow(info.context, mine, plugin="everything"):
            yield ref(Mark, derive_id(event_id, "mark"))
