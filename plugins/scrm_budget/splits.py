"""Money divided without a remainder, and moved to where it earns more: whole minor units, exact sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

PRESETS: Mapping[str, tuple[tuple[str, Fraction], ...]] = {
    "ACTIVITIES": (
        ("content", Fraction(20)),
        ("community", Fraction(30)),
        ("analytics", Fraction(15)),
        ("technology", Fraction(15)),
        ("campaigns", Fraction(20)),
    ),
    "RESOURCES": (
        ("platform", Fraction(95, 4)),
        ("tools", Fraction(55, 4)),
        ("people", Fraction(135, 4)),
        ("marketing", Fraction(115, 4)),
    ),
}
"""Categories with their percent of the lines; RESOURCES is the low end of each range and a quarter of what they leave."""


def split(total: int, weights: Sequence[Fraction]) -> list[int]:
    """Whole parts of a total in proportion to weights, by largest remainder, the first of equal ones first."""
    whole = sum(weights)
    exact = [Fraction(weight * total, whole) if whole else Fraction(0) for weight in weights]
    return rounded(exact, total if whole else 0)


def rounded(exact: Sequence[Fraction], total: int) -> list[int]:
    """Numbers that sum to a total, each rounded down, and those with the largest remainders up by one until they do."""
    parts = [part.numerator // part.denominator for part in exact]
    order = sorted(range(len(parts)), key=lambda n: (parts[n] - exact[n], n))
    for n in order[: total - sum(parts)]:
        parts[n] += 1
    return parts


@dataclass(frozen=True, slots=True)
class Share:
    """A line in a reallocation: what it has, its return, and what it cannot give up because it is used."""

    amount: int
    roi: Fraction
    used: int = 0


def reallocate(shares: Sequence[Share], percent: int) -> list[int]:
    """The same total, in proportion to amount × return, each within ± percent of what it has and no less than what is used."""
    low = [max(-(-one.amount * (100 - percent) // 100), min(one.amount, one.used)) for one in shares]
    high = [one.amount * (100 + percent) // 100 for one in shares]
    total = sum(one.amount for one in shares)
    weights = [one.amount * one.roi for one in shares]
    earning = [n for n, weight in enumerate(weights) if weight > 0]
    idle = [n for n, weight in enumerate(weights) if weight <= 0]
    for_earning = min(total - sum(low[n] for n in idle), sum(high[n] for n in earning))
    levels = dict(zip(earning, filled([weights[n] for n in earning], low, high, earning, for_earning), strict=True))
    kept = [Fraction(shares[n].amount) for n in idle]
    levels |= zip(idle, filled(kept, low, high, idle, total - for_earning), strict=True)
    return rounded([levels[n] for n in range(len(shares))], total)


def filled(
    weights: Sequence[Fraction], low: Sequence[int], high: Sequence[int], places: Sequence[int], total: int
) -> list[Fraction]:
    """Water-filling: one level for all, `level × weight` kept between low and high, so that the sum is the total."""
    bounds = [(Fraction(low[n]), Fraction(high[n])) for n in places]

    def at(level: Fraction) -> list[Fraction]:
        return [min(max(level * weight, least), most) for weight, (least, most) in zip(weights, bounds, strict=True)]

    marks = {Fraction(bound, weight) for weight, both in zip(weights, bounds, strict=True) if weight for bound in both}
    below = Fraction(0)
    for mark in sorted(marks):
        if sum(at(mark)) >= total:
            before, after = sum(at(below)), sum(at(mark))
            level = mark if after == before else below + Fraction((mark - below) * (total - before), after - before)
            return at(level)
        below = mark
    return at(below)
