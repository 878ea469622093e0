"""When a rule holds: conditions on a series of values, computed exactly.

Every condition is judged at one period from the values up to it. Values are fractions, so a limit that is met is met: nothing is
rounded before it is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from scrm.api import KEPT, Period, Ratio

P = TypeVar("P", bound="Part")
DEEPEST = 4
"""How many conditions may lie within each other."""
WEEK = 7

Number = Annotated[Decimal, Field(allow_inf_nan=False, ge=-(10**15), le=10**15)]


def _not_nought(target: Decimal) -> Decimal:
    if not target:
        raise PydanticCustomError("TARGET_IS_NOUGHT", "a target that is not 0: nothing is a share of it (TARGET_IS_NOUGHT)")
    return target


Aim = Annotated[Number, AfterValidator(_not_nought)]
Share = Annotated[Decimal, Field(allow_inf_nan=False, gt=0, le=1000)]
Steps = Annotated[int, Field(strict=True, ge=1, le=366)]


class Part(BaseModel):
    """Something within the rules."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, said: Any) -> Any:
        for name in said if isinstance(said, dict) else ():
            if name not in cls.model_fields:
                words = "names among {known}; {name} is none of them (UNKNOWN_NAME)"
                raise PydanticCustomError("UNKNOWN_NAME", words, {"known": ", ".join(cls.model_fields), "name": str(name)})
        return said


class Point(NamedTuple):
    """One period of a series: the days `[start, end)`."""

    start: date
    end: date
    numerator: int
    denominator: int | None

    @property
    def value(self) -> Fraction | None:
        """The value; None where the denominator is 0."""
        if self.denominator is None:
            return Fraction(self.numerator)
        return Fraction(self.numerator, self.denominator) if self.denominator else None


@dataclass(frozen=True, slots=True)
class Judged:
    """Whether a condition holds (None: a value that it needs is missing), the limit it has, and what is to be said of it."""

    holds: bool | None
    limit: Fraction | None = None
    said: tuple[Mapping[str, Any], ...] = ()


MISSING = Judged(None)


def points_of(periods: Sequence[Period], ratios: Sequence[Ratio]) -> list[Point]:
    """A series as it was read."""
    pairs = zip(periods, ratios, strict=True)
    return [Point(span.start, span.end, ratio.numerator, ratio.denominator) for span, ratio in pairs]


class Threshold(Part):
    """The value itself: holds where it is as every bound that is named says. `above` and `below` are strict, the others not."""

    kind: Literal["threshold"]
    above: Number | None = None
    at_least: Number | None = None
    below: Number | None = None
    at_most: Number | None = None

    @model_validator(mode="after")
    def _some_bound(self, info: ValidationInfo) -> Threshold:
        if info.context is KEPT:
            return self
        _needs_one(self, ("above", "at_least", "below", "at_most"))
        lows = [(bound, strict) for bound, strict in ((self.above, 1), (self.at_least, 0)) if bound is not None]
        highs = [(bound, -strict) for bound, strict in ((self.below, 1), (self.at_most, 0)) if bound is not None]
        if lows and highs and (max(lows)[0] > min(highs)[0] or (max(lows)[0] == min(highs)[0] and max(lows)[1] - min(highs)[1])):
            words = (
                "bounds that a value can have: none is over {low} and under {high}; for the one or the other, "
                "write any of two thresholds (NO_VALUE_FITS)"
            )
            raise PydanticCustomError("NO_VALUE_FITS", words, {"low": str(max(lows)[0]), "high": str(min(highs)[0])})
        return self

    def judge(self, points: Sequence[Point]) -> Judged:
        """Judge the last of the points."""
        value = points[-1].value
        if value is None:
            return MISSING
        held = {
            "below": self.below is None or value < Fraction(self.below),
            "at_most": self.at_most is None or value <= Fraction(self.at_most),
            "above": self.above is None or value > Fraction(self.above),
            "at_least": self.at_least is None or value >= Fraction(self.at_least),
        }
        holds = all(held.values())
        bound = next(name for name in held if getattr(self, name) is not None and (holds or not held[name]))
        return judged(self, holds, value, Fraction(getattr(self, bound)), bound=bound)

    @property
    def reach(self) -> int:
        """How many values before the last it needs."""
        return 0


class Change(Part):
    """The relative change from an earlier value, which has to be above 0: by `rise` or more, or down by `fall` or more."""

    kind: Literal["change"]
    rise: Share | None = None
    fall: Share | None = None
    back: Steps = Field(default=1, description="From how many periods before.")
    minimum: Annotated[int, Field(strict=True, ge=0)] = Field(default=0, description="The least that is counted now.")

    @model_validator(mode="after")
    def _some_way(self) -> Change:
        return _needs_one(self, ("rise", "fall"))

    def judge(self, points: Sequence[Point]) -> Judged:
        """Judge the last of the points."""
        before, value = points[-1 - self.back].value if len(points) > self.back else None, points[-1].value
        if value is None or before is None or before <= 0:
            return MISSING
        change, enough = (value - before) / before, points[-1].numerator >= self.minimum
        down = self.rise is None or (self.fall is not None and change < 0)
        share = self.fall if down else self.rise
        assert share is not None
        far = (-change if down else change) >= Fraction(share)
        limit = before * (1 - Fraction(share) if down else 1 + Fraction(share))
        more = {"least": self.minimum} if far and not enough else {}
        return judged(self, far and enough, value, limit, other=before, change=change, share=share, side=_side(down), **more)

    @property
    def reach(self) -> int:
        """How many values before the last it needs."""
        return self.back


class Difference(Part):
    """The difference to an earlier value in its own unit, for rates in parts of 1 (0.005 is half a percentage point): up by more
    than `above`, or down by more than `below`; strict."""

    kind: Literal["difference"]
    above: Number | None = Field(default=None, ge=0)
    below: Number | None = Field(default=None, ge=0)
    back: Steps = 1

    @model_validator(mode="after")
    def _some_way(self) -> Difference:
        return _needs_one(self, ("above", "below"))

    def judge(self, points: Sequence[Point]) -> Judged:
        """Judge the last of the points."""
        before, value = points[-1 - self.back].value if len(points) > self.back else None, points[-1].value
        if value is None or before is None:
            return MISSING
        change = value - before
        down = self.above is None or (self.below is not None and change < 0)
        step = -Fraction(self.below or 0) if down else Fraction(self.above or 0)
        far = change < step if down else change > step
        return judged(self, far, value, before + step, other=before, change=change, share=step, side=_side(down))

    @property
    def reach(self) -> int:
        """How many values before the last it needs."""
        return self.back


class _OfTheMean(Part):
    """What is compared with the mean of earlier values."""

    window: Annotated[int, Field(strict=True, ge=8, le=366)] = Field(default=28, description="Of how many values before.")
    direction: Literal["both", "above", "below"] = "both"
    same_weekday: bool = Field(default=False, description="Of those of the same weekday only; for days.")

    def earlier(self, points: Sequence[Point]) -> list[Fraction] | None:
        """The values before the last that it is compared with; None where there are fewer, or one is missing."""
        step = WEEK if self.same_weekday else 1
        chosen = points[-1 - step :: -step][: self.window] if len(points) > step else []
        values = [value for point in chosen if (value := point.value) is not None]
        return values if len(values) == len(chosen) == self.window else None

    def _far(self, away: Fraction) -> bool:
        return self.direction == "both" or (away > 0) == (self.direction == "above")

    def _sign(self, away: Fraction) -> int:
        """On which side its limit is."""
        return -1 if self.direction == "below" or (self.direction == "both" and away < 0) else 1

    @property
    def reach(self) -> int:
        """How many values before the last it needs."""
        return self.window * (WEEK if self.same_weekday else 1)


class Deviation(_OfTheMean):
    """More than `sigmas` standard deviations (of a sample) off the mean of the values before; strict. Where these are all the
    same, any other value."""

    kind: Literal["deviation"]
    sigmas: Share = Decimal(2)

    def judge(self, points: Sequence[Point]) -> Judged:
        """Judge the last of the points."""
        value, before = points[-1].value, self.earlier(points)
        if value is None or before is None:
            return MISSING
        mean = sum(before, Fraction(0)) / len(before)
        variance = sum(((each - mean) ** 2 for each in before), Fraction(0)) / (len(before) - 1)
        away = value - mean
        far = away**2 > Fraction(self.sigmas) ** 2 * variance and self._far(away)
        limit = mean + Fraction(float(self.sigmas) * float(variance) ** 0.5).limit_denominator(10**9) * self._sign(away)
        return judged(self, far, value, limit, other=mean, share=self.sigmas, away=away, side=self.direction)


class OffMean(_OfTheMean):
    """`by` or more off the mean of the values before, as a share of it; the mean has to be above 0."""

    kind: Literal["off_mean"]
    by: Share

    def judge(self, points: Sequence[Point]) -> Judged:
        """Judge the last of the points."""
        value, before = points[-1].value, self.earlier(points)
        mean = sum(before, Fraction(0)) / len(before) if before else Fraction(0)
        if value is None or mean <= 0:
            return MISSING
        away = (value - mean) / mean
        limit = mean * (1 + self._sign(away) * Fraction(self.by))
        far = abs(away) >= Fraction(self.by) and self._far(away)
        return judged(self, far, value, limit, other=mean, change=away, share=self.by, side=self.direction)


class Target(Part):
    """`by` or more off a target, as a share of it, on either side."""

    kind: Literal["target"]
    target: Aim
    by: Share = Decimal("0.05")

    def judge(self, points: Sequence[Point]) -> Judged:
        """Judge the last of the points."""
        value, target = points[-1].value, Fraction(self.target)
        if value is None:
            return MISSING
        away = (value - target) / abs(target)
        limit = target + (1 if away >= 0 else -1) * abs(target) * Fraction(self.by)
        far = abs(away) >= Fraction(self.by)
        return judged(self, far, value, limit, other=target, change=away, share=self.by, side="both")

    @property
    def reach(self) -> int:
        """How many values before the last it needs."""
        return 0


class Trend(Part):
    """Each of the last `times` changes went this way."""

    kind: Literal["trend"]
    direction: Literal["falling", "rising"]
    times: Steps = 2

    def judge(self, points: Sequence[Point]) -> Judged:
        """Judge the last of the points."""
        values = [point.value for point in points[-1 - self.times :]]
        known = [value for value in values if value is not None]
        if len(known) != self.times + 1:
            return MISSING
        falling = self.direction == "falling"
        steps = pairwise(known)
        held = all(after < before if falling else after > before for before, after in steps)
        return judged(self, held, known[-1], known[-2], other=known[0])

    @property
    def reach(self) -> int:
        """How many values before the last it needs."""
        return self.times


class InARow(Part):
    """A condition holds in each of the last `periods`."""

    kind: Literal["in_a_row"]
    periods: Annotated[int, Field(strict=True, ge=2, le=60)]
    condition: Condition

    def judge(self, points: Sequence[Point]) -> Judged:
        """Judge the last of the points."""
        found = [self.condition.judge(points[: len(points) - back]) for back in range(min(self.periods, len(points)))]
        last, holds = found[0], _every([each.holds for each in found])
        if len(found) < self.periods or holds is None:
            return MISSING
        return Judged(holds, last.limit, tuple({**each, "row" if holds else "of": self.periods} for each in last.said))

    @property
    def reach(self) -> int:
        """How many values before the last it needs."""
        return self.condition.reach + self.periods - 1


class Combination(Part):
    """All of these hold, or at least one of them. What is missing decides nothing that the others decide."""

    kind: Literal["all", "any"]
    conditions: Annotated[tuple[Condition, ...], Field(min_length=2, max_length=8)]

    def judge(self, points: Sequence[Point]) -> Judged:
        """Judge the last of the points."""
        found = [each.judge(points) for each in self.conditions]
        holds = _every([each.holds for each in found]) if self.kind == "all" else _some([each.holds for each in found])
        telling = [each for each in found if each.holds is holds] or found
        return Judged(holds, telling[0].limit, tuple(words for each in telling for words in each.said))

    @property
    def reach(self) -> int:
        """How many values before the last it needs."""
        return max(each.reach for each in self.conditions)


Condition = Annotated[
    Threshold | Change | Difference | Deviation | OffMean | Target | Trend | InARow | Combination, Field(discriminator="kind")
]
InARow.model_rebuild()
Combination.model_rebuild()


def depth(condition: Any) -> int:
    """How deep conditions lie within each other; 1 for one alone."""
    inner = (condition.condition,) if isinstance(condition, InARow) else getattr(condition, "conditions", ())
    return 1 + max((depth(each) for each in inner), default=0)


def judged(condition: Part, holds: bool, value: Fraction, limit: Fraction, **more: Any) -> Judged:
    """Whether it holds, with what is to be said of the value as JSON can hold it: fractions as text."""
    kind = condition.kind  # type: ignore[attr-defined]
    facts = {"kind": kind, "holds": holds, "value": value, "limit": limit, **more}
    made = {name: str(each) if isinstance(each, Fraction | Decimal) else each for name, each in facts.items()}
    ways = {name: way for name in ("direction", "times", "back") if (way := getattr(condition, name, None)) is not None}
    return Judged(holds, limit, ({**made, **ways},))


def said_of(judged: Judged, point: Point) -> dict[str, Any]:
    """What is to be said of a value, and whether the condition holds for it."""
    value = str(point.value) if point.value is not None else None
    return {"value": value, "holds": judged.holds, "said": [dict(each) for each in judged.said]}


def _side(down: bool) -> str:
    return "below" if down else "above"


def _needs_one(part: P, names: Sequence[str]) -> P:
    if all(getattr(part, name) is None for name in names):
        words = "one of {names} at least (BOUND_MISSING)"
        raise PydanticCustomError("BOUND_MISSING", words, {"names": ", ".join(names)})
    return part


def _every(held: Sequence[bool | None]) -> bool | None:
    if any(each is False for each in held):
        return False
    return None if None in held else True


def _some(held: Sequence[bool | None]) -> bool | None:
    if any(held):
        return True
    return None if None in held else False
