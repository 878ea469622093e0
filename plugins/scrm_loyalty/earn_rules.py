"""An earn rule, as data: for which events, how many points, on which days, and how often."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from scrm.api import Condition, PropertyFilter, currency_exponent

LARGEST = 10**9
"""What a rule or an event may say."""
MOST = 10**12
"""What one rule gives for one event."""
REFUNDED = "order.refunded"
OWN = "points."
"""What loyalty announces begins so, and earns nothing."""
CYCLE = 366 * 28
"""Days after which dates and days of the week come together again."""

Points = Annotated[int, Field(strict=True, ge=1, le=LARGEST)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
AMOUNTS = ("per_unit", "fixed", "points_property")
MONTHS = {"month": 1, "quarter": 3, "year": 12}


class EarnRule(BaseModel):
    """What earns points. An event earns by every rule that fits it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,59}$", description="Its name, in the ledger and in every message.")
    event: str = Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$", description="The event type that earns.")
    filter: PropertyFilter = Field(
        default=PropertyFilter(), description='Conditions on its properties, as `[{key = "store", eq = "Bund"}]`; all must hold.'
    )
    per_unit: Decimal | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Points per currency unit of the event's amount, exact; an order's are rounded once.",
    )
    fixed: Points | None = Field(default=None, description="So many points for each event.")
    points_property: str | None = Field(
        default=None, min_length=1, max_length=200, description="The property of the event that says how many points."
    )
    tier_multiplier: bool = Field(default=True, description="Whether the member's level multiplies the points.")
    once_per: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="A property whose every value earns once, as `contentId`.",
    )
    cap_per_day: Points | None = Field(default=None, description="At most so many points per member and business day.")
    cap_per_period: Points | None = Field(default=None, description="At most so many points per member and `period`.")
    period: Literal["week", "month", "quarter", "year"] = Field(default="month", description="The period of `cap_per_period`.")
    cap_lifetime: Points | None = Field(default=None, description="At most so many points per member, ever.")
    from_date: date | None = Field(default=None, description="The first business day on which it counts.")
    until_date: date | None = Field(default=None, description="The last.")
    weekdays: tuple[Weekday, ...] = Field(default=(), description="Days of the week on which it counts; none named: all.")
    days_of_month: tuple[Annotated[int, Field(strict=True, ge=1, le=31)], ...] = Field(
        default=(), description="Days of the month on which it counts (会员日); none named: all."
    )

    @field_validator("event")
    @classmethod
    def _may_earn(cls, event: str) -> str:
        if event == REFUNDED or event.startswith(OWN):
            words = "an event type that can earn: {event} takes points back, or follows from earning (EVENT_CANNOT_EARN)"
            raise PydanticCustomError("EVENT_CANNOT_EARN", words, {"event": event})
        return event

    @model_validator(mode="after")
    def _one_amount(self) -> EarnRule:
        said = [name for name in AMOUNTS if getattr(self, name) is not None]
        if len(said) != 1:
            words = "one of per_unit, fixed and points_property: the earn rule {key} has {said} (EARN_AMOUNT)"
            raise PydanticCustomError("EARN_AMOUNT", words, {"key": self.key, "said": " and ".join(said) or "none"})
        return self

    @property
    def capped(self) -> bool:
        """Whether what was earned before limits what is earned now."""
        return any(cap is not None for cap in (self.cap_per_day, self.cap_per_period, self.cap_lifetime))

    @property
    def looks_at(self) -> frozenset[str]:
        """The properties that it looks at."""
        return self.filter.keys | {name for name in (self.points_property, self.once_per) if name is not None}

    def misfit(self, properties: Mapping[str, Any], day: date) -> str | None:
        """Why it earns nothing for an event of its type on a business day: `NOT_THIS_DAY` or `NOT_SUCH_EVENTS`."""
        if not self.counts_on(day):
            return "NOT_THIS_DAY"
        return None if self.filter.fits(properties) else "NOT_SUCH_EVENTS"

    def counts_on(self, day: date) -> bool:
        """Whether a business day is one of its days."""
        return not (
            (self.from_date is not None and day < self.from_date)
            or (self.until_date is not None and day > self.until_date)
            or (self.weekdays and WEEKDAYS[day.weekday()] not in self.weekdays)
            or (self.days_of_month and day.day not in self.days_of_month)
        )

    def points(self, properties: Mapping[str, Any], currency: str, multiplier: str, before: int, amount: int) -> int:
        """Points without caps, rounded down once; `before` and `amount` are minor units: of its order so far and of the event."""
        points, of_unit = self._rate(properties, currency, multiplier)
        if self.per_unit is None:
            return points // of_unit
        return (before + amount) * points // of_unit - before * points // of_unit

    def is_rounded(self, properties: Mapping[str, Any], currency: str, multiplier: str, paid: int) -> bool:
        """Whether the points for all that was paid, or for the event, are no whole number before they are rounded down."""
        points, of_unit = self._rate(properties, currency, multiplier)
        return bool((paid if self.per_unit is not None else 1) * points % of_unit)

    def _rate(self, properties: Mapping[str, Any], currency: str, multiplier: str) -> tuple[int, int]:
        """So many points for so many minor units, or for so many events."""
        if not self.tier_multiplier:
            multiplier = "1"
        if self.per_unit is not None:
            return _rate(self.per_unit, currency, multiplier)
        said = self.fixed if self.points_property is None else properties.get(self.points_property)
        if not isinstance(said, int) or isinstance(said, bool) or not 0 < said <= LARGEST:
            return 0, 1
        return said * Fraction(multiplier).numerator, Fraction(multiplier).denominator

    def period_of(self, day: date) -> tuple[date, date]:
        """The period of a day: its first day, and the first of the next."""
        if self.period == "week":
            first = day - timedelta(days=day.weekday())
            return first, first + timedelta(days=7)
        months = MONTHS[self.period]
        number = (day.year * 12 + day.month - 1) // months * months
        return _first(number), _first(number + months)

    def once(self, properties: Mapping[str, Any]) -> str | None:
        """The value that earns once, as text; None where the event has none."""
        value = properties.get(self.once_per) if self.once_per is not None else None
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = json.dumps(value, sort_keys=True, ensure_ascii=False)
        return text if len(text) <= 200 else hashlib.sha256(text.encode()).hexdigest()

    def named(self, properties: Mapping[str, Any]) -> str | None:
        """The same as it is said, to be read by people."""
        value = properties.get(self.once_per) if self.once_per is not None else None
        return str(value)[:200] if isinstance(value, str | int | float) else self.once(properties)

    def warnings(self, today: date) -> Iterator[str]:
        """Why it can never earn from a business day on, if so."""
        if self.per_unit is not None and not self.per_unit:
            yield "per_unit is 0"
        wanted = [Condition(name, "exists", True) for name in (self.points_property, self.once_per) if name is not None]
        wanted += [Condition(self.points_property, "gt", 0)] if self.points_property is not None else []
        never = PropertyFilter((*self.filter, *wanted)).never
        if never is not None:
            yield never
        if self.from_date is not None and self.until_date is not None and self.until_date < self.from_date:
            yield f"until_date {self.until_date} is before from_date {self.from_date}"
        elif self.until_date is not None and self.until_date < today:
            yield f"until_date {self.until_date} is over"
        elif not self._ever(max(self.from_date or today, today)):
            yield "no day is one of its weekdays and one of its days_of_month between from_date and until_date"

    def _ever(self, first: date) -> bool:
        last = self.until_date or date.max
        days = min((last - first).days + 1, CYCLE, (date.max - first).days)
        return not (self.weekdays or self.days_of_month) or any(self.counts_on(first + timedelta(days=n)) for n in range(days))


def _first(number: int) -> date:
    return date(number // 12, number % 12 + 1, 1)


@functools.lru_cache(maxsize=1_024)
def _rate(per_unit: Decimal, currency: str, multiplier: str) -> tuple[int, int]:
    """So many points for so many minor units."""
    rate = Fraction(per_unit) * Fraction(multiplier) / 10 ** currency_exponent(currency)
    return rate.numerator, rate.denominator
