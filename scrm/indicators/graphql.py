"""Indicators in GraphQL: named series that the core and plugins offer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated

import strawberry

from scrm.db import Tx
from scrm.graphql.context import Context, Info
from scrm.graphql.enums import enum
from scrm.graphql.resolvers import field, query
from scrm.graphql.scalars import BigInt
from scrm.graphql.sources import Query, extend
from scrm.indicators import periods
from scrm.plugin import Indicator as Definition
from scrm.plugin import IndicatorUnit as Unit
from scrm.plugin import Ratio

READ = "indicators:read"

IndicatorUnit = enum(
    "What an indicator's number counts.",
    COUNT="Things or people.",
    RATE="A share; 0.05 is 5 %.",
    MONEY="Minor units of the business currency.",
    POINTS="Points.",
    MULTIPLE="A multiple; 1.5 is one and a half times.",
    INDEX="A number from outside, such as an opinion index.",
)(Unit)


@enum(
    "How long a period is.",
    DAY="A business day.",
    WEEK="Monday to Sunday.",
    MONTH="A calendar month.",
    QUARTER="A calendar quarter.",
)
class Period(Enum):
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"
    QUARTER = "QUARTER"


@strawberry.type(description="An indicator's value for one period.")
class IndicatorPoint:
    start: dt.date = strawberry.field(description="First business day.")
    end: dt.date = strawberry.field(description="The day after the last.")
    value: float | None = strawberry.field(description="The number; null where the denominator is 0.")
    numerator: BigInt | None = strawberry.field(description="What was counted.")
    denominator: BigInt | None = strawberry.field(description="What it is a share of; null for a plain count.")
    complete: bool = strawberry.field(description="Whether the period is over.")
    computed_at: dt.datetime = strawberry.field(description="When it was computed.")


@strawberry.type(description="How an indicator changed from one period to the next.")
class IndicatorChange:
    current: IndicatorPoint = strawberry.field(description="The last complete period.")
    previous: IndicatorPoint = strawberry.field(description="The one before.")
    change_pct: float | None = strawberry.field(
        description="Relative change in per cent; null where the previous value is 0 or missing."
    )
    change_pp: float | None = strawberry.field(
        description="Difference of two rates in percentage points; null for what is no rate."
    )


@strawberry.type(description="A named series.")
class Indicator:
    key: str = strawberry.field(description="Stable key.")
    name: str = strawberry.field(description="Name.")
    owner: str = strawberry.field(description="`core` or the plugin that offers it.")
    unit: IndicatorUnit = strawberry.field(description="What its number counts.")  # type: ignore[valid-type]
    definition: str = strawberry.field(description="How it is computed.")
    higher_is_better: bool | None = strawberry.field(description="Which way is good, if one is.")

    @field("Its values for the periods that touch the days `from` to before `to`, at most 800.", scope=READ)
    async def series(
        self,
        info: Info,
        from_: Annotated[dt.date, strawberry.argument(name="from", description="First business day.")],
        to: Annotated[dt.date, strawberry.argument(description="The day after the last.")],
        period: Annotated[Period, strawberry.argument(description="How long each period is.")] = Period.DAY,
        channel: Annotated[str | None, strawberry.argument(description="Only of this channel and those below, by key.")] = None,
    ) -> list[IndicatorPoint] | None:
        spans = periods.spans(from_, to, period.value)
        return await _points(info.context, self.key, spans, channel, info.context.now)

    @field("The last complete period against the one before.", scope=READ)
    async def change(
        self,
        info: Info,
        period: Annotated[Period, strawberry.argument(description="How long a period is.")] = Period.WEEK,
        as_of: Annotated[dt.datetime | None, strawberry.argument(description="As of this instant; now unless said.")] = None,
        channel: Annotated[str | None, strawberry.argument(description="Only of this channel and those below, by key.")] = None,
    ) -> IndicatorChange | None:
        at = as_of or info.context.now
        spans = periods.last_two(at, info.context.services.settings.zone, period.value)
        previous, current = await _points(info.context, self.key, spans, channel, at)
        return IndicatorChange(
            current=current,
            previous=previous,
            change_pct=periods.change_pct(current.value, previous.value),
            change_pp=periods.change_pp(current.value, previous.value) if self.unit is Unit.RATE else None,
        )


async def _points(
    context: Context, key: str, spans: list[periods.Span], channel: str | None, as_of: dt.datetime
) -> list[IndicatorPoint]:
    services = context.services
    if key not in services.indicators:
        raise periods.unknown_indicator(key, services.indicators)
    owner, definition = services.indicators[key]
    ratios = await services.db.read(periods.read_series, owner, definition, spans, channel, as_of)
    today = as_of.astimezone(services.settings.zone).date()
    return [_point(span, ratio, span.end <= today, context.now) for span, ratio in zip(spans, ratios, strict=True)]


def _point(span: periods.Span, ratio: Ratio, complete: bool, at: dt.datetime) -> IndicatorPoint:
    return IndicatorPoint(
        start=span.start,
        end=span.end,
        value=periods.value(ratio),
        numerator=BigInt(ratio.numerator),
        denominator=BigInt(ratio.denominator) if ratio.denominator is not None else None,
        complete=complete,
        computed_at=at,
    )


def _shown(owner: str, definition: Definition) -> Indicator:
    return Indicator(
        key=definition.key,
        name=definition.name,
        owner=owner,
        unit=definition.unit,
        definition=definition.definition,
        higher_is_better=definition.higher_is_better,
    )


def shown_indicators(tx: Tx, keys: Sequence[str]) -> dict[str, Indicator]:
    """Indicators by key as GraphQL shows them; of one that nobody offers now there is nothing but its key."""
    offered: Mapping[str, tuple[str, Definition]] = getattr(tx, "indicators", {})
    gone = "nobody offers it now"
    return {
        key: _shown(*offered[key])
        if key in offered
        else Indicator(key=key, name=key, owner="", unit=Unit.COUNT, definition=gone, higher_is_better=None)
        for key in keys
    }


@extend(Query)
class IndicatorQuery:
    """Indicators to read."""

    @query("Series that the core and plugins offer, by key.", scope=READ)
    async def indicators(
        self,
        info: Info,
        keys: Annotated[list[str] | None, strawberry.argument(description="Only these; all unless said.")] = None,
    ) -> list[Indicator] | None:
        known = info.context.services.indicators
        missing = [key for key in keys or () if key not in known]
        if missing:
            raise periods.unknown_indicator(missing[0], known, "keys")
        return [_shown(*known[key]) for key in (keys if keys is not None else sorted(known))]
