"""What budgets are measured by: when spending is announced, what costs something, and whose revenue an order is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, time
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from scrm.api import UNSET, BusinessRules

LARGEST = 10**14
"""The largest amount in minor units."""

AMOUNT = "amount"
"""As a cost's property: what the event itself says was paid."""

LONGEST_NAME = 200
"""Characters of the longest name of a budget, a campaign, or an order."""

Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,59}$")]
Percent = Annotated[int, Field(strict=True, ge=0, le=100)]
TOUCHES = (
    "user.followed",
    "user.signed_up",
    "page.viewed",
    "content.read",
    "content.liked",
    "content.shared",
    "content.commented",
    "message.received",
    "group.joined",
    "group.spoke",
    "survey.answered",
    "referral.accepted",
)
RANGES = {"platform": (20, 25), "tools": (10, 15), "people": (30, 35), "marketing": (25, 30)}


class Cost(BaseModel):
    """What an event costs, and which line pays where neither its campaign nor its channel is a line's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    event: str = Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$", description="The event type.")
    cost: str = Field(
        default="cost", min_length=1, max_length=100, description="The property with the cost, in minor units of the currency."
    )
    category: Key | None = Field(
        default=None, description="The category whose line pays where neither its campaign nor its channel is a line's."
    )


class BudgetRules(BusinessRules):
    """How budgets are kept. `currency` and `timezone` are the business's unless said."""

    thresholds: tuple[Annotated[int, Field(strict=True, ge=1, le=1_000)], ...] = Field(
        default=(50, 80, 100), description="Percent spent that are announced, each once for a line and once for its budget."
    )
    cause_percent: int = Field(
        default=5, strict=True, ge=1, le=100, description="From what variance on a cause is asked for, in percent of the plan."
    )
    commitment_seconds: int = Field(
        default=2_592_000,
        strict=True,
        ge=1,
        le=31_536_000,
        description="Seconds that a commitment lasts where nobody says how long.",
    )
    close_after_days: int = Field(
        default=0, strict=True, ge=0, le=366, description="Days after its end on which a budget still takes what belongs to it."
    )
    reallocation_percent: int = Field(
        default=10,
        strict=True,
        ge=1,
        le=100,
        description="How far a reallocation moves a line at most, in percent of its amount.",
    )
    attribution_days: int = Field(
        default=30,
        strict=True,
        ge=0,
        le=366,
        description="How long before an order the last touch may be; 0: only the order's own.",
    )
    touches: tuple[str, ...] = Field(
        default=TOUCHES, description="Events that are a touch, where they have a channel or a campaign."
    )
    costs: tuple[Cost, ...] = Field(default=(), description="Events that cost something; see below.")
    ranges: dict[Key, tuple[Percent, Percent]] = Field(
        default=RANGES,
        description="From how many to how many percent of the lines a category should have.",
        json_schema_extra={UNSET: "platform 20 to 25, tools 10 to 15, people 30 to 35, marketing 25 to 30"},
    )

    @field_validator("thresholds")
    @classmethod
    def _rising(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if list(values) != sorted(set(values)):
            raise PydanticCustomError("THRESHOLDS_NOT_RISING", "numbers that rise, each once (THRESHOLDS_NOT_RISING)")
        return values

    @field_validator("ranges")
    @classmethod
    def _in_order(cls, values: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        for category, (low, high) in values.items():
            if low > high:
                said = {"category": category, "low": low, "high": high}
                raise PydanticCustomError(
                    "RANGE_INVERTED", "{category} from low to high, not {low} to {high} (RANGE_INVERTED)", said
                )
        return values

    @field_validator("costs")
    @classmethod
    def _once(cls, costs: tuple[Cost, ...]) -> tuple[Cost, ...]:
        named = [cost.event for cost in costs]
        twice = next((event for place, event in enumerate(named) if event in named[:place]), None)
        if twice is not None:
            raise PydanticCustomError("COST_TWICE", "one cost for an event type: {event} has two (COST_TWICE)", {"event": twice})
        return costs

    def reads(self) -> Mapping[str, Collection[str]]:
        """The touches, and what costs something."""
        found: dict[str, set[str]] = {event: {"campaign"} for event in self.touches}
        for cost in self.costs:
            found.setdefault(cost.event, {"campaign"}).update({cost.cost} - {AMOUNT})
        return found

    def cost_of(self, type_: str) -> Cost | None:
        """What says the cost of an event of this type."""
        return next((cost for cost in self.costs if cost.event == type_), None)

    def midnight(self, day: date) -> datetime:
        """The first instant of a business day."""
        return datetime.combine(day, time.min, self.zone).astimezone(UTC)
