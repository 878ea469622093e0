"""What points are earned for, and how long they last."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from scrm.api import BusinessRules, currency_exponent

from .earn_rules import MONTHS, EarnRule

PAID = "order.paid"
ORDER_RULE = "order"
"""The earn rule of paid orders where no other is listed."""


class LoyaltyRules(BusinessRules):
    """The program. `currency` and `timezone` are the business's unless said."""

    points_per_unit: Decimal = Field(
        default=Decimal(1),
        ge=0,
        le=100,
        description="Points per currency unit of a paid order, exact: the earn rule `order`, where `earn` lists none.",
    )
    earn: tuple[EarnRule, ...] = Field(default=(), max_length=100, description="What earns points; see below.")
    validity_days: int = Field(default=365, ge=0, le=36_500, description="Days until points expire, at local midnight; 0: never.")
    validity_until: Literal["day", "week", "month", "quarter", "year"] = Field(
        default="day",
        description="Points last until the end of the day, week (its Sunday), month, quarter or year in which "
        "`validity_days` are over.",
    )
    pending_days: int = Field(
        default=0,
        ge=0,
        le=3_650,
        description="Days until points can be spent, from local midnight; 0: at once. Fewer than `validity_days`.",
    )
    redeem_minimum: int = Field(default=1, ge=1, le=2**53 - 1, description="The fewest points that one redemption takes.")
    redeem_step: int = Field(default=1, ge=1, le=2**53 - 1, description="Redemptions are multiples of this.")
    hold_seconds: int = Field(
        default=900, ge=1, le=31_536_000, description="Seconds that points are held where nobody says how long."
    )
    reinstatement_days: int = Field(
        default=0,
        ge=0,
        le=36_500,
        description="Days that points last which an undone redemption gives back and whose time is over; 0: they stay expired.",
    )
    unit_cost: Decimal = Field(
        default=Decimal("0.01"), ge=0, le=1_000_000, description="What one point costs the business, in currency units, exact."
    )
    debt_policy: Literal["debt", "floor_zero", "block"] = Field(
        default="debt",
        description="Points that were spent before their order was refunded: `debt` is paid first by the next credit, "
        "`floor_zero` lets them go, `block` takes nothing back, the unspent ones neither, and says so.",
    )

    @field_validator("earn")
    @classmethod
    def _once(cls, earn: tuple[EarnRule, ...]) -> tuple[EarnRule, ...]:
        keys = [rule.key for rule in earn]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            words = "a key of its own for every earn rule: {key} is there twice (EARN_KEY_TWICE)"
            raise PydanticCustomError("EARN_KEY_TWICE", words, {"key": twice})
        return earn

    @model_validator(mode="after")
    def _can_be_spent(self) -> LoyaltyRules:
        if self.validity_days and self.pending_days >= self.validity_days:
            raise ValueError(
                f"pending_days below validity_days ({self.validity_days}), or points expire before they can be spent"
            )
        return self

    @property
    def exponent(self) -> int:
        """How many decimals the currency has."""
        return currency_exponent(self.currency)

    @cached_property
    def program(self) -> Sequence[EarnRule]:
        """The earn rules in force."""
        return self.earn or (EarnRule(key=ORDER_RULE, event=PAID, per_unit=self.points_per_unit),)

    @cached_property
    def earning(self) -> Mapping[str, Sequence[EarnRule]]:
        """The earn rules in force by event type."""
        return {event: [rule for rule in self.program if rule.event == event] for event in {rule.event for rule in self.program}}

    def reads(self) -> Mapping[str, Collection[str]]:
        """The event types that earn."""
        return {event: {key for rule in found for key in rule.looks_at} for event, found in self.earning.items()}

    def warnings(self, today: date) -> Sequence[str]:
        """Earn rules that can never earn."""
        return [f"the earn rule {rule.key} can never earn: {said}" for rule in self.program for said in rule.warnings(today)]

    def expires_on(self, earned_at: datetime) -> date | None:
        """The local day on which points earned then are gone; the day before is the last to spend them."""
        if not self.validity_days:
            return None
        return self._end(self.day_of(earned_at) + timedelta(days=self.validity_days - 1))

    def _end(self, last: date) -> date:
        """The day after the period that a day is in."""
        months = MONTHS.get(self.validity_until)
        if months is None:
            return last + timedelta(days=7 - last.weekday() if self.validity_until == "week" else 1)
        number = (last.year * 12 + last.month - 1) // months * months + months
        return date(number // 12, number % 12 + 1, 1)

    def available_at(self, earned_at: datetime) -> datetime:
        """From when on points earned then can be spent."""
        return self.midnight(self.day_of(earned_at) + timedelta(days=self.pending_days)) if self.pending_days else earned_at

    def reinstated_until(self, at: datetime) -> date:
        """The local day on which points given back then are gone."""
        return self.day_of(at) + timedelta(days=self.reinstatement_days)

    def midnight(self, day: date) -> datetime:
        """The first instant of a local day."""
        return _midnight(day, self.timezone)

    def day_of(self, at: datetime) -> date:
        """The local day of an instant."""
        return at.astimezone(self.zone).date()


@functools.lru_cache(maxsize=4_096)
def _midnight(day: date, timezone: str) -> datetime:
    return datetime.combine(day, time.min, ZoneInfo(timezone)).astimezone(UTC)
