"""How customers are scored: the mode, the window, the map of segments, the layers; and when runs are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cached_property
from itertools import pairwise, product
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from scrm.api import UNSET, BusinessRules, currency_exponent

from .presets import BANDS, UNCLASSIFIED, eleven, further

LARGEST = 2**53 - 1
LONGEST_WINDOW = 36_500
FEWEST_BUYERS = 5
"""Of fewer buyers no fifth can be told from another."""
CELLS = tuple("".join(digits) for digits in product("12345", repeat=3))

Mode = Literal["quintile", "threshold"]
Every = Literal["DAY", "WEEK", "MONTH"]
Key = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,59}$")]
Words = Annotated[str, Field(min_length=1, max_length=500)]
Names = Mapping[str, Words]
Count = Annotated[int, Field(strict=True, ge=0, le=LARGEST)]
Days = Annotated[int, Field(strict=True, ge=0, le=LONGEST_WINDOW)]
Percent = Annotated[int, Field(strict=True, ge=0, le=100)]
Weight = Annotated[int, Field(strict=True, ge=0, le=1_000)]
Four = tuple[Count, Count, Count, Count]


class Part(BaseModel):
    """Something within the rules."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Segment(Part):
    """One segment of the map: its words, and which of the 125 cells are its."""

    key: Key = Field(description="Its name for programs.")
    name: Words = Field(description="Its name for people.")
    names: Names = Field(default_factory=dict, description="Names by language tag.")
    description: Words = Field(description="What its people have in common.")
    descriptions: Names = Field(default_factory=dict, description="Descriptions by language tag.")
    cells: tuple[str, ...] = Field(description="Its cells: scores written RFM, 5 best, as `545`; every cell is in one segment.")


@dataclass(frozen=True, slots=True)
class Line:
    """What it takes to be in a band of the threshold mode: at most so many days, at least so many purchases and so much money."""

    recency: int
    frequency: int
    monetary: int


class HealthWeights(Part):
    """How much each factor of the health score counts."""

    interactions: Weight = Field(default=1, description="Weight of the number of interactions.")
    spending: Weight = Field(default=1, description="Weight of the money spent.")
    active_days: Weight = Field(default=1, description="Weight of the number of active days.")

    @model_validator(mode="after")
    def _some(self) -> HealthWeights:
        if not self.interactions + self.spending + self.active_days:
            raise PydanticCustomError("RFM_NO_WEIGHT", "a weight above 0 for one factor at least (RFM_NO_WEIGHT)")
        return self


class RfmRules(BusinessRules):
    """How customers are scored. `currency` and `timezone` are the business's unless said."""

    mode: Mode = Field(default="quintile", description="Whether customers are compared with each other, or with fixed lines.")
    frequency: Literal["days", "orders"] = Field(default="days", description="What F counts: days with a purchase, or orders.")
    window_days: int | None = Field(
        default=None,
        strict=True,
        ge=1,
        le=LONGEST_WINDOW,
        description="How many days up to the run's count for R, F and M.",
        json_schema_extra={UNSET: "all time"},
    )
    segments: tuple[Segment, ...] = Field(
        default=(), description="The map of the 125 cells; see below. Empty: the eleven usual ones."
    )
    recency_bounds: Four | None = Field(
        default=None,
        description="The most days for an R of 5, 4, 3 and 2, rising, in place of fifths.",
        json_schema_extra={UNSET: "fifths of the buyers"},
    )
    frequency_bounds: Four | None = Field(
        default=None,
        description="The fewest purchases for an F of 2, 3, 4 and 5, rising, in place of fifths.",
        json_schema_extra={UNSET: "fifths of the buyers"},
    )
    monetary_bounds: Four | None = Field(
        default=None,
        description="The least money, in minor units, for an M of 2, 3, 4 and 5, rising, in place of fifths.",
        json_schema_extra={UNSET: "fifths of the buyers"},
    )
    high_recency: Days = Field(default=7, description="Threshold mode: the most days since the last purchase for `HIGH_VALUE`.")
    high_frequency: Count = Field(default=5, description="The fewest purchases for it.")
    high_monetary: Count | None = Field(
        default=None,
        description="The least money for it, in minor units.",
        json_schema_extra={UNSET: "5 000 of the currency's units"},
    )
    potential_recency: Days = Field(
        default=30, description="Threshold mode: the most days since the last purchase for `POTENTIAL`."
    )
    potential_frequency: Count = Field(default=2, description="The fewest purchases for it.")
    potential_monetary: Count | None = Field(
        default=None,
        description="The least money for it, in minor units.",
        json_schema_extra={UNSET: "1 000 of the currency's units"},
    )
    lost_recency: Days = Field(default=90, description="Threshold mode: more days since the last purchase are `LOST`.")
    strict: bool = Field(
        default=False, description="In the threshold mode: all three values must lie in one band, else `UNCLASSIFIED`."
    )
    value_high_percent: Percent = Field(
        default=20, description="The value layer `HIGH`: buyers with fewer than so many per cent above."
    )
    value_mid_percent: Percent = Field(default=30, description="The value layer `MID`: so many per cent next.")
    behavior_days: int = Field(
        default=30, strict=True, ge=1, le=3_660, description="How many days the behaviour layer and the health score look back."
    )
    active_from_days: int = Field(
        default=4, strict=True, ge=1, le=3_660, description="With so many active days the behaviour layer is `ACTIVE`."
    )
    health_weights: HealthWeights = Field(default=HealthWeights(), description="What the health score is the mean of.")
    every: Every = Field(default="DAY", description="After which periods a run is made, as of their last instant.")
    keep_runs: int = Field(
        default=100, strict=True, ge=2, le=10_000, description="Of how many runs, the last made, each person's scores are kept."
    )

    @field_validator("segments")
    @classmethod
    def _partition(cls, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        return check_map(segments or tuple(Segment(**one) for one in eleven()))

    @field_validator("recency_bounds", "frequency_bounds", "monetary_bounds")
    @classmethod
    def _rising(cls, bounds: Four | None) -> Four | None:
        if bounds is not None and any(lower >= upper for lower, upper in pairwise(bounds)):
            raise PydanticCustomError("RFM_BOUNDS_NOT_RISING", "four numbers that rise (RFM_BOUNDS_NOT_RISING)")
        return bounds

    @model_validator(mode="after")
    def _whole(self) -> RfmRules:
        if self.value_high_percent + self.value_mid_percent > 100:
            words = "value_high_percent and value_mid_percent of 100 at most together (RFM_PERCENT_OVER)"
            raise PydanticCustomError("RFM_PERCENT_OVER", words)
        if self.active_from_days > self.behavior_days:
            words = "active_from_days no larger than behavior_days: no more days than there are (RFM_DAYS_OVER)"
            raise PydanticCustomError("RFM_DAYS_OVER", words)
        high, potential = self.high, self.potential
        for name, rising in (
            ("recency", high.recency < potential.recency < self.lost_recency),
            ("frequency", high.frequency > potential.frequency),
            ("monetary", high.monetary > potential.monetary),
        ):
            if not rising:
                words = "high_{name} better than potential_{name}, and that better than lost (RFM_THRESHOLDS_ORDER)"
                raise PydanticCustomError("RFM_THRESHOLDS_ORDER", words, {"name": name})
        return self

    @property
    def high(self) -> Line:
        """What it takes to be of high value."""
        return Line(self.high_recency, self.high_frequency, self._money(self.high_monetary, 5_000))

    @property
    def potential(self) -> Line:
        """What it takes to have potential."""
        return Line(self.potential_recency, self.potential_frequency, self._money(self.potential_monetary, 1_000))

    def _money(self, said: int | None, units: int) -> int:
        return units * 10 ** currency_exponent(self.currency) if said is None else said

    @cached_property
    def words(self) -> Sequence[Mapping[str, Any]]:
        """Every segment that a run may give, in order, with its words: those of the map, then the others."""
        mapped = [one.model_dump(exclude={"cells"}) for one in self.segments]
        keys = {one["key"] for one in mapped}
        return [*mapped, *(one for one in further() if one["key"] not in keys)]


@dataclass(frozen=True)
class Parameters:
    """What one run computes with: the rules, and the mode and window that it was asked for."""

    rules: RfmRules
    mode: Mode
    window_days: int | None

    @classmethod
    def of(cls, rules: RfmRules, said: Mapping[str, Any]) -> Parameters:
        """The rules' own, unless `said` has `mode` or `windowDays`; 0 days are all time."""
        window = said.get("windowDays")
        return cls(rules, said.get("mode") or rules.mode, rules.window_days if window is None else window or None)

    @property
    def standing(self) -> bool:
        """Whether these are the rules' own, so that the run says how customers stand."""
        return (self.mode, self.window_days) == (self.rules.mode, self.rules.window_days)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on, as JSON can hold it."""
        said = self.rules.model_dump(mode="json", exclude={"every", "keep_runs", "segments"})
        cells = {segment.key: list(segment.cells) for segment in self.rules.segments}
        return {**said, "mode": self.mode, "window_days": self.window_days, "segments": cells}

    @property
    def digest(self) -> str:
        """The same for the same settings."""
        text = json.dumps(self.settings, ensure_ascii=False, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def keys(self) -> Sequence[str]:
        """The segments that buyers may be put in."""
        if self.mode == "quintile":
            return [segment.key for segment in self.rules.segments]
        return (*BANDS, UNCLASSIFIED) if self.rules.strict else BANDS

    @property
    def relative(self) -> bool:
        """Whether a score compares buyers with each other, which takes some of them."""
        rules = self.rules
        return None in (rules.recency_bounds, rules.frequency_bounds, rules.monetary_bounds)


def check_map(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The map, if every one of the 125 cells is in exactly one segment."""
    owners: dict[str, str] = {}
    reserved = {one["key"] for one in further()} - set(BANDS)
    for place, segment in enumerate(segments):
        if segment.key in reserved or segment.key in {one.key for one in segments[:place]}:
            why = "kept for what is no cell" if segment.key in reserved else "there twice"
            words = "a key of its own for every segment: {key} is {why} (RFM_SEGMENT_KEY)"
            raise PydanticCustomError("RFM_SEGMENT_KEY", words, {"key": segment.key, "why": why})
        for cell in segment.cells:
            if cell not in CELLS:
                words = 'cells of three scores from 1 to 5, as "543": {cell} of {key} is none (RFM_CELL_UNKNOWN)'
                raise PydanticCustomError("RFM_CELL_UNKNOWN", words, {"cell": cell[:20], "key": segment.key})
            if cell in owners:
                words = "every cell in one segment: {cell} is in {first} and in {key} (RFM_CELL_TWICE)"
                raise PydanticCustomError("RFM_CELL_TWICE", words, {"cell": cell, "first": owners[cell], "key": segment.key})
            owners[cell] = segment.key
    if missing := [cell for cell in CELLS if cell not in owners]:
        words = "every one of the 125 cells in a segment: {cells} {are} in none (RFM_CELL_MISSING)"
        raise PydanticCustomError(
            "RFM_CELL_MISSING", words, {"cells": ", ".join(missing), "are": "is" if len(missing) == 1 else "are"}
        )
    return tuple(segments)


def period_start(every: str, day: date) -> date:
    """The first day of the period that a day is in."""
    if every == "WEEK":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if every == "MONTH" else day


def closing(every: str, at: datetime, zone: tzinfo) -> datetime:
    """The last instant of the newest period that is over."""
    start = period_start(every, at.astimezone(zone).date())
    return datetime.combine(start, time.min, zone).astimezone(UTC) - timedelta(microseconds=1)
