"""The scheme: levels, what is asked for each, when levels are reviewed, and what growth value is given for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator
from pydantic_core import PydanticCustomError

from scrm.api import BusinessRules, PropertyFilter

from .periods import CALENDAR, next_review
from .presets import preset

LARGEST = 2**53 - 1
Metric = Literal["spend", "orders", "points_earned", "growth"]
METRICS: tuple[Metric, ...] = ("spend", "orders", "points_earned", "growth")
EARNED = "points.earned"

Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,59}$")]
Words = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(strict=True, ge=0, le=LARGEST)]
Times = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Names = Mapping[str, Words]
Values = tuple[int, int, int, int]
"""One number for each of `METRICS`, in their order."""


class Part(BaseModel):
    """Something within the scheme."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Benefit(Part):
    """Something that a level gives: data for whoever grants it."""

    key: Key = Field(description="Its name for programs.")
    name: Words = Field(description="Its name for people.")
    names: Names = Field(default_factory=dict, description="Names by language tag.")
    value: JsonValue = Field(default=None, description="Whatever whoever grants it needs to know.")


class Level(Part):
    """One level: what it is called, what it takes, what it gives."""

    key: Key = Field(description="Its name for programs.")
    name: Words = Field(description="Its name for people.")
    names: Names = Field(default_factory=dict, description="Names by language tag.")
    bounds: Mapping[Metric, Count] = Field(
        description="At least how much of `spend` (minor units), `orders`, `points_earned` and `growth` in the window: the same "
        "metrics for every level, and more from level to level."
    )
    multiplier: Decimal = Field(default=Decimal(1), ge=0, le=100, description="What whoever gives points multiplies them by.")
    benefits: tuple[Benefit, ...] = Field(default=(), description="What it gives besides: data for whoever grants it.")


class Task(Part):
    """Something that growth value is given for."""

    key: Key = Field(description="Its name.")
    event: str = Field(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$", description="The event type.")
    where: PropertyFilter = Field(
        default=PropertyFilter(), description='Conditions on its properties, as `[{key = "page", eq = "home"}]`; all must hold.'
    )
    growth: int = Field(strict=True, ge=1, le=1_000_000_000, description="Growth value for each event.")
    per_day: Times | None = Field(default=None, description="At most so many times per member and business day.")
    lifetime: Times | None = Field(default=None, description="At most so many times per member, ever.")

    def fits(self, type_: str, properties: Mapping[str, Any]) -> bool:
        """Whether it is given for such an event."""
        return type_ == self.event and self.where.fits(properties)


class TiersRules(BusinessRules):
    """The scheme. What is not said is the preset's; `currency` and `timezone` are the business's unless said."""

    preset: Literal["spend", "points", "growth", "spend_and_orders"] = Field(
        default="spend", description="What the other settings are unless said."
    )
    levels: tuple[Level, ...] = Field(default=(), description="From the lowest to the highest; see below. Empty: the preset's.")
    match: Literal["ALL", "ANY"] = Field(default="ALL", description="Whether every bound of a level must be reached, or one.")
    window: Literal["ROLLING_12M", "CALENDAR_YEAR", "LIFETIME"] = Field(default="ROLLING_12M", description="What is counted.")
    review: Literal["MONTH", "QUARTER", "YEAR"] = Field(
        default="MONTH", description="At whose end levels are reviewed; unless said, with a calendar year it is `YEAR`."
    )
    downgrade: Literal["TO_LEVEL", "ONE_DOWN", "NEVER"] = Field(
        default="TO_LEVEL", description="What a failed review does: to the level that is reached, one down, or nothing."
    )
    grace: int = Field(default=0, strict=True, ge=0, le=12, description="Failed reviews in a row that are let pass.")
    tasks: tuple[Task, ...] = Field(default=(), description="What growth value is given for; see below. Empty: the preset's.")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, said: Any) -> Any:
        if not isinstance(said, dict):
            return said
        whole = {**preset(said.get("preset", "spend"), said.get("currency", "CNY")), **said}
        return {"review": "YEAR" if whole.get("window") == CALENDAR else "MONTH", **whole}

    @field_validator("levels")
    @classmethod
    def _in_order(cls, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        if not levels:
            raise PydanticCustomError("TIERS_MISSING", "one level at least (TIERS_MISSING)")
        _check_keys([level.key for level in levels], "level", "TIER_KEY_TWICE")
        named = [metric for metric in METRICS if any(metric in level.bounds for level in levels)]
        for level in levels:
            missing = next((metric for metric in named if metric not in level.bounds), None)
            if missing or not named:
                words = "a bound of every metric for every level: {level} has none of {metric} (TIER_BOUND_MISSING)"
                raise PydanticCustomError("TIER_BOUND_MISSING", words, {"level": level.key, "metric": missing or "any"})
        for below, level in pairwise(levels):
            _check_rise(below, level, named)
        return levels

    @field_validator("tasks")
    @classmethod
    def _once(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        _check_keys([task.key for task in tasks], "task", "TASK_KEY_TWICE")
        return tasks

    def event_types(self) -> Sequence[str]:
        """Points are learned from whoever announces them."""
        return (EARNED,) if "points_earned" in self.metrics else ()

    def reads(self) -> Mapping[str, Collection[str]]:
        """The event types of tasks."""
        return {
            task.event: {key for one in self.tasks if one.event == task.event for key in one.where.keys} for task in self.tasks
        }

    def warnings(self, today: date) -> Sequence[str]:
        """Tasks that nothing can be given for."""
        return [f"nothing is ever given for the task {task.key}: {said}" for task in self.tasks if (said := task.where.never)]

    @cached_property
    def metrics(self) -> list[Metric]:
        """The metrics that levels are reached by, in the order of `METRICS`."""
        return [metric for metric in METRICS if metric in self.levels[0].bounds]

    @cached_property
    def base(self) -> int:
        """The rank that everybody has: 1 where the lowest level asks for nothing, else 0."""
        return self.reached((0, 0, 0, 0))

    def rank(self, key: str | None) -> int:
        """A level's place from 1, the lowest; 0 for none, and for one that the scheme does not have."""
        return self._ranks.get(key, 0)

    @cached_property
    def _ranks(self) -> Mapping[str | None, int]:
        return {level.key: rank for rank, level in enumerate(self.levels, 1)}

    def lacks(self, key: str | None) -> bool:
        """Whether it is a level that the scheme does not have any more."""
        return key is not None and not self.rank(key)

    def held(self, key: str | None) -> int:
        """The rank of somebody who was given this level."""
        return max(self.rank(key), self.base)

    def key(self, rank: int) -> str | None:
        """The level of a rank; None for 0."""
        return self.levels[rank - 1].key if rank else None

    def gives(self, rank: int) -> str | None:
        """What the level of a rank gives, as a short text that tells whether two give the same; None where it is nothing."""
        return self._gives[rank]

    @cached_property
    def _gives(self) -> Sequence[str | None]:
        return [None, *(_digest(level) for level in self.levels)]

    def reached(self, values: Values) -> int:
        """The highest rank whose bounds these values reach; a bound that is equalled is reached."""
        enough = all if self.match == "ALL" else any
        for rank in range(len(self.levels), 0, -1):
            bounds = self.levels[rank - 1].bounds
            if enough(value >= bounds[metric] for metric, value in zip(METRICS, values, strict=True) if metric in bounds):
                return rank
        return 0

    def midnight(self, day: date) -> datetime:
        """The first instant of a business day."""
        return datetime.combine(day, time.min, self.zone).astimezone(UTC)

    def review_after(self, day: date, count: int = 1) -> date:
        """The `count`-th review day after a day."""
        return next_review(self.review, day, count)

    def review_from(self, at: datetime) -> date:
        """The first review day that begins at or after an instant."""
        day = self.day(at)
        return self.review_after(day if self.midnight(day) < at else day - timedelta(days=1))


def _digest(level: Level) -> str | None:
    if level.multiplier == 1 and not level.benefits:
        return None
    benefits = [benefit.model_dump(mode="json") for benefit in level.benefits]
    said = json.dumps([f"{level.multiplier.normalize():f}", benefits], sort_keys=True)
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def _check_keys(keys: Sequence[str], what: str, code: str) -> None:
    for place, key in enumerate(keys):
        if key in keys[:place]:
            raise PydanticCustomError(code, f"a key of its own for every {what}: {{key}} is there twice ({code})", {"key": key})


def _check_rise(below: Level, level: Level, metrics: Sequence[Metric]) -> None:
    for metric in metrics:
        lower, upper = below.bounds[metric], level.bounds[metric]
        if lower < upper:
            continue
        code = "TIER_BOUND_TWICE" if lower == upper else "TIER_BOUNDS_NOT_RISING"
        words = f"bounds that rise from level to level: {metric} is {{upper}} for {{level}} and {{lower}} for {{below}} ({code})"
        raise PydanticCustomError(code, words, {"upper": upper, "level": level.key, "lower": lower, "below": below.key})
