"""What can be asked of points as a whole, and followed, in GraphQL."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import Annotated, Any

import sqlalchemy as sa
import strawberry

from scrm.api import (
    JSON,
    Amount,
    BigInt,
    EventInput,
    Info,
    Money,
    Query,
    ScrmError,
    Subscription,
    as_recorded,
    enum,
    events,
    extend,
    follow,
    query,
    ref,
    subscription,
    users,
)

from . import preview, reports
from .events import TYPES
from .graphql import READ, PointsAccount
from .rules import LoyaltyRules


@strawberry.type(description="What points are earned for and how they are spent.")
class PointsProgram:
    timezone: str = strawberry.field(description="The zone of its days.")
    currency: str = strawberry.field(description="The currency it earns on.")
    redeem_minimum: BigInt = strawberry.field(description="The fewest points that one redemption takes.")
    redeem_step: BigInt = strawberry.field(description="Redemptions are multiples of this.")
    unit_value: Money | None = strawberry.field(
        description="What one point costs by the setting unit_cost; null where that is no whole number of minor units."
    )
    rules: JSON = strawberry.field(description="All rules in force.")


@strawberry.type(description="Points that members can spend now or later, and what they cost.")
class PointsLiability:
    as_of: dt.datetime = strawberry.field(description="The instant of these numbers.")
    points: BigInt = strawberry.field(description="Points that can be spent then or later, held ones included.")
    cost: Money = strawberry.field(description="What they cost by the setting unit_cost.")


@strawberry.type(description="What became of points in one business month.")
class PointsMonth:
    month: dt.date = strawberry.field(description="Its first day.")
    earned: BigInt = strawberry.field(description="Points credited in it, those that refunds took back later included.")
    redeemed: BigInt = strawberry.field(description="Points spent in it, less those given back in it.")
    expired: BigInt = strawberry.field(description="Points whose time was over in it.")
    breakage: float | None = strawberry.field(
        description="Of the points that ended in it, the share nobody spent; null where none has ended, or before it has."
    )


enum(
    "Why an event would not earn more.",
    name="PointsReasonCode",
    RECORDED_ALREADY="It is in the log.",
    NO_RULE="No earn rule is for its type.",
    NO_AMOUNT="It has no amount.",
    OTHER_CURRENCY="Its amount is in another currency.",
    NOT_THIS_DAY="The rule does not count on its day.",
    NOT_SUCH_EVENTS="The rule's filter does not fit.",
    NO_POINTS="The rule comes to less than one point.",
    TOO_MANY="The rule comes to more points than one event gives.",
    NOTHING_TO_TELL_APART="The rule earns once per value of a property that it lacks.",
    EARNED_BEFORE="The rule earns once per value of a property, and has.",
    DAY_CAP="The rule's cap per day.",
    PERIOD_CAP="The rule's cap per period.",
    LIFETIME_CAP="The rule's cap per lifetime.",
    ROUNDED_DOWN="Points are whole.",
    PAYS_DEBT="Some pay a debt.",
    REFUNDED_BEFORE="Some are cancelled by a refund that came before.",
)(preview.Why)


@strawberry.type(description="Why there are not more points.")
class PointsReason:
    code: preview.Why = strawberry.field(description="The kind of reason.")
    rule: str | None = strawberry.field(description="The earn rule that it is about; null: the whole event.")
    message: str = strawberry.field(description="The same in words.")


@strawberry.type(description="What one earn rule would give.")
class PointsEarning:
    rule: str = strawberry.field(description="The rule.")
    points: BigInt = strawberry.field(description="Points that would be credited by it.")
    available_at: dt.datetime | None = strawberry.field(description="From when on they could be spent; null: all pay a debt.")
    expires_at: dt.datetime | None = strawberry.field(description="From when on they could not be; null: never.")


@strawberry.type(description="What an event would earn.")
class PointsPreview:
    points: BigInt = strawberry.field(description="Points that would be credited.")
    debt_repaid: BigInt = strawberry.field(description="How many of them would pay a debt.")
    cancelled: BigInt = strawberry.field(description="How many would be cancelled at once, by a refund that came before.")
    earning: list[PointsEarning] = strawberry.field(description="The same by earn rule.")
    why: list[PointsReason] = strawberry.field(description="Why there are not more.")


@extend(Query)
class LoyaltyQuery:
    """Points to read."""

    @query("The program as it is in force.", scope=READ, self_service=True)
    async def points_program(self, info: Info) -> PointsProgram | None:
        rules = await _rules(info)
        return PointsProgram(
            timezone=rules.timezone,
            currency=rules.currency,
            redeem_minimum=BigInt(rules.redeem_minimum),
            redeem_step=BigInt(rules.redeem_step),
            unit_value=_money(reports.unit_cost(rules), rules),
            rules=JSON(rules.model_dump(mode="json")),
        )

    @query("What all points together are, and what they cost, at an instant: debts are not taken off.", scope=READ, weight=50)
    async def points_liability(
        self,
        info: Info,
        as_of: Annotated[dt.datetime | None, strawberry.argument(description="The instant; now unless given.")] = None,
    ) -> PointsLiability | None:
        rules, at = await _rules(info), as_of or info.context.now
        points = await info.context.read(reports.outstanding, at)
        cost: Any = Amount(reports.cost(points, rules), rules.currency)
        return PointsLiability(as_of=at, points=BigInt(points), cost=cost)

    @query("What became of points, business month by month, oldest first.", scope=READ, weight=50)
    async def points_report(
        self,
        info: Info,
        months: Annotated[int | None, strawberry.argument(description="How many, the present one included; 1 to 120.")] = 12,
    ) -> list[PointsMonth] | None:
        months = 12 if months is None else months
        if not 1 <= months <= reports.LONGEST:
            said = f"months is {months}; a report covers 1 to {reports.LONGEST}"
            raise ScrmError("INVALID_MONTHS", said, path=("months",), params={"months": months})
        found = await info.context.read(reports.by_month, months, await _rules(info), info.context.now)
        return [_month(month) for month in found]

    @query("What this event would earn if it were recorded now, and why not more.", scope=READ, weight=10)
    async def preview_points(
        self, info: Info, input: Annotated[EventInput, strawberry.argument(description="The event.")]
    ) -> PointsPreview | None:
        rules = await _rules(info)
        said = await info.context.read(preview.preview, await as_recorded(info, input), rules)
        return PointsPreview(
            points=BigInt(sum(each.points for each in said.earning)),
            debt_repaid=BigInt(said.debt_repaid),
            cancelled=BigInt(said.reversed),
            earning=[_earning(each) for each in said.earning],
            why=[PointsReason(code=each.code, rule=each.rule, message=each.message) for each in said.why],
        )


def _earning(each: preview.Earning) -> PointsEarning:
    return PointsEarning(
        rule=each.rule,
        points=BigInt(each.points),
        available_at=dt.datetime.fromisoformat(each.available_at) if each.available_at else None,
        expires_at=dt.datetime.fromisoformat(each.expires_at) if each.expires_at else None,
    )


def _money(amount_minor: int | None, rules: LoyaltyRules) -> Any:
    return None if amount_minor is None else Amount(amount_minor, rules.currency)


async def _rules(info: Info) -> LoyaltyRules:
    rules = await info.context.rules("loyalty")
    assert isinstance(rules, LoyaltyRules)
    return rules


def _month(month: reports.Month) -> PointsMonth:
    return PointsMonth(
        month=month.start,
        earned=BigInt(month.earned),
        redeemed=BigInt(month.redeemed),
        expired=BigInt(month.expired),
        breakage=month.expired / month.matured if month.matured else None,
    )


@extend(Subscription)
class LoyaltySubscription:
    """Points to follow."""

    @subscription("A person's points, whenever they change by what happens.", scope=READ, self_service=True)
    async def points_changed(
        self, info: Info, user_id: Annotated[strawberry.ID, strawberry.argument(description="Whose.")]
    ) -> AsyncIterator[PointsAccount]:
        key = await info.context.user(user_id)
        survivor = sa.select(users.c.merged_into).where(users.c.id == key).scalar_subquery()
        theirs = events.c.user_id == sa.func.coalesce(survivor, key, type_=events.c.user_id.type)
        changes = theirs & events.c.type.in_([each.name for each in TYPES])
        async for _ in follow(info.context, changes, plugin="loyalty"):
            yield ref(PointsAccount, await info.context.user(user_id))
