"""Shares, pace, variance and returns of lines and budgets, computed from whole numbers when they are asked.

`shown` is the one place where a ratio of money becomes a number with a point: on its way out.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import date
from fractions import Fraction
from typing import Any

import sqlalchemy as sa

from scrm.api import BatchInfo, Tx, among

from .models import budgets, lines, sources
from .returns import LONGEST, WINDOW, Return, returns
from .service import carried, on

HUNDRED = 100
Keys = Sequence[uuid.UUID]


def shown(ratio: Fraction | None) -> float | None:
    """A ratio as the front end sees it."""
    return float(ratio) if ratio is not None else None


def share_of(part: int, whole: int) -> Fraction | None:
    """A ratio; null over nothing."""
    return Fraction(part, whole) if whole > 0 else None


def pace_of(spent: int, funds: int, opens_on: date, ends_on: date, today: date) -> Fraction | None:
    """Spent share ÷ elapsed share; the day counts whole. Null before the first day and where there is nothing to spend."""
    days = (ends_on - opens_on).days
    elapsed = min((today - opens_on).days + 1, days)
    return Fraction(spent * days, funds * elapsed) if elapsed > 0 and funds > 0 else None


def paced_lines(tx: Tx, ids: Keys, today: date) -> dict[uuid.UUID, Fraction | None]:
    """How fast each line is spent."""
    funds = (lines.c.allocated + carried(lines, on(today))).label("funds")
    said = sa.select(lines.c.id, lines.c.spent, funds, budgets.c.opens_on, budgets.c.ends_on).join(budgets)
    rows = tx.rows(said.where(among(lines.c.id, ids)))
    return {row.id: pace_of(row.spent, row.funds, row.opens_on, row.ends_on, today) for row in rows}


def paced_budgets(tx: Tx, ids: Keys, today: date) -> dict[uuid.UUID, Fraction | None]:
    """How fast each budget is spent, its reserve included."""
    sums = [sa.func.sum(lines.c.spent).label("spent"), sa.func.sum(lines.c.allocated + carried(lines, on(today))).label("funds")]
    said = sa.select(budgets.c.id, budgets.c.opens_on, budgets.c.ends_on, *sums).join(lines, lines.c.budget_id == budgets.c.id)
    rows = tx.rows(said.where(among(budgets.c.id, ids)).group_by(budgets.c.id, budgets.c.opens_on, budgets.c.ends_on))
    return {row.id: pace_of(int(row.spent), int(row.funds), row.opens_on, row.ends_on, today) for row in rows}


def shared(tx: Tx, ids: Keys) -> dict[uuid.UUID, Fraction]:
    """How many percent of its budget's lines each line has."""
    other = lines.alias()
    whole = sa.select(sa.func.sum(other.c.allocated)).where(other.c.budget_id == lines.c.budget_id, other.c.place > 0)
    said = sa.select(lines.c.id, lines.c.allocated, whole.correlate(lines).scalar_subquery().label("whole"))
    rows = tx.rows(said.where(among(lines.c.id, ids)))
    return {row.id: (share_of(row.allocated, int(row.whole)) or Fraction(0)) * HUNDRED for row in rows}


def breaches(tx: Tx, ids: Keys, language: str) -> dict[uuid.UUID, list[str]]:
    """Which lines have a share outside the range of their category, in words."""
    found: dict[uuid.UUID, list[str]] = {key: [] for key in ids}
    ranges = {row.id: row.ranges for row in tx.rows(sa.select(budgets.c.id, budgets.c.ranges).where(among(budgets.c.id, ids)))}
    said = sa.select(lines.c.budget_id, lines.c.category, lines.c.allocated).where(
        among(lines.c.budget_id, ids), lines.c.place > 0
    )
    rows = tx.rows(said.order_by(lines.c.budget_id, lines.c.place))
    wholes: dict[uuid.UUID, int] = {}
    for row in rows:
        wholes[row.budget_id] = wholes.get(row.budget_id, 0) + row.allocated
    for row in rows:
        if row.category not in ranges[row.budget_id]:
            continue
        low, high = ranges[row.budget_id][row.category]
        whole = wholes[
            row.budget_id
        ]  # where shares are rounded to whole minor units, a line has less than one too many or too few
        if (row.allocated + 1) * HUNDRED <= low * whole or (row.allocated - 1) * HUNDRED >= high * whole > 0:
            share = (share_of(row.allocated, whole) or Fraction(0)) * HUNDRED
            found[row.budget_id].append(_breach(row.category, share, low, high, language))
    return found


def _breach(category: str, share: Fraction, low: int, high: int, language: str) -> str:
    hundredths = (share * 200 + 1) // 2
    said = f"{hundredths // HUNDRED}.{hundredths % HUNDRED:02d}".rstrip("0").rstrip(".")
    if language.startswith("zh"):
        return f"{category} 占 {said}%，应为 {low}–{high}%"
    return f"{category} is {said} %; it should be {low}-{high} %"


def named(tx: Tx, ids: Keys) -> dict[uuid.UUID, list[str]]:
    """The campaigns that lines name."""
    found: dict[uuid.UUID, list[str]] = {key: [] for key in ids}
    said = sa.select(sources.c.line_id, sources.c.key).where(among(sources.c.line_id, ids), sources.c.channel_id.is_(None))
    for row in tx.rows(said.order_by(sources.c.key)):
        found[row.line_id].append(row.key)
    return found


# ---- as fields


async def line_pace(keys: Keys, info: BatchInfo) -> Mapping[Any, Any]:
    found = await info.read(paced_lines, keys, info.today)
    return {key: shown(found.get(key)) for key in keys}


async def budget_pace(keys: Keys, info: BatchInfo) -> Mapping[Any, Any]:
    found = await info.read(paced_budgets, keys, info.today)
    return {key: shown(found.get(key)) for key in keys}


async def line_share(keys: Keys, info: BatchInfo) -> Mapping[Any, Any]:
    found = await info.read(shared, keys)
    return {key: shown(found[key]) for key in keys}


async def variance_percent(keys: Sequence[tuple[int, int]], info: BatchInfo) -> Mapping[Any, Any]:
    return {(spent, planned): shown(share_of((spent - planned) * HUNDRED, planned)) for spent, planned in keys}


async def expected(keys: Sequence[int | None], info: BatchInfo) -> Mapping[Any, Any]:
    return {key: shown(Fraction(key, 10_000)) if key is not None else None for key in keys}


async def range_breaches(keys: Keys, info: BatchInfo) -> Mapping[Any, Any]:
    found: Mapping[Any, Any] = await info.read(breaches, keys, info.language)
    return found


async def campaigns(keys: Keys, info: BatchInfo) -> Mapping[Any, Any]:
    found: Mapping[Any, Any] = await info.read(named, keys)
    return found


async def _returns(keys: Keys, info: BatchInfo, days: int | None = None) -> Mapping[uuid.UUID, Return]:
    found: Mapping[uuid.UUID, Return] = await info.read(returns, keys, info.today, within(days))
    return found


def within(days: int | None) -> int:
    """A number of days that returns can be looked at over."""
    return min(max(days if days is not None else WINDOW, 1), LONGEST)


async def roi(keys: Keys, info: BatchInfo, days: int | None) -> Mapping[Any, Any]:
    return {key: shown(one.roi) for key, one in (await _returns(keys, info, days)).items()}


async def net_roi(keys: Keys, info: BatchInfo, days: int | None) -> Mapping[Any, Any]:
    found = await _returns(keys, info, days)
    return {key: shown(one.roi - 1) if one.roi is not None else None for key, one in found.items()}


async def recommendation(keys: Keys, info: BatchInfo) -> Mapping[Any, Any]:
    return {key: one.recommendation for key, one in (await _returns(keys, info)).items()}
