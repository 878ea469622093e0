"""What is counted of the log for all people together, as indicators, and for each of them, by rules about people."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import sqlalchemy as sa

from scrm.api import (
    Id,
    Indicator,
    IndicatorUnit,
    Period,
    Ratio,
    Tx,
    as_day,
    channels_below,
    json_kind,
    json_text,
    log_of,
    period_days,
)

LARGEST = 2**53 - 1
"""What is larger counts for nothing."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How many such events there are, or the sum of a number that they carry."""

    key: str
    name: str
    unit: IndicatorUnit
    definition: str
    type: str
    summed: str | None = None
    whose: str | None = None
    """The property that names whose it is; None: the event's own user."""

    def amount(self, log: Any) -> sa.ColumnElement[int]:
        """What is made of rows of the log."""
        if self.summed is None:
            return sa.func.count()
        said = sa.literal(self.summed)
        # Without digits to hold: PostgreSQL refuses what does not fit before it could be compared.
        number = sa.cast(sa.case((json_kind(log.properties, said) == "number", json_text(log.properties, said))), sa.Numeric())
        whole = sa.case((number.between(-LARGEST, LARGEST), sa.cast(number, sa.BigInteger())), else_=0)
        return sa.cast(sa.func.coalesce(sa.func.sum(whole), 0), sa.BigInteger())


MEASURES = {
    each.key: each
    for each in (
        Measure(
            "points_earned", "Points earned", IndicatorUnit.POINTS, "sum of `points` of points.earned", "points.earned", "points"
        ),
        Measure("coupons_redeemed", "Coupons redeemed", IndicatorUnit.COUNT, "number of coupon.redeemed", "coupon.redeemed"),
        Measure(
            "coupon_cost", "Cost of coupons", IndicatorUnit.MONEY, "sum of `cost` of coupon.redeemed", "coupon.redeemed", "cost"
        ),
        Measure(
            "referrals",
            "Referrals",
            IndicatorUnit.COUNT,
            "number of referral.accepted, by inviter",
            "referral.accepted",
            None,
            "inviter",
        ),
        Measure("refunds", "Refunds", IndicatorUnit.COUNT, "number of order.refunded", "order.refunded"),
        Measure("complaints", "Complaints", IndicatorUnit.COUNT, "complaints filed", "complaint.filed"),
    )
}
"""By key. `complaints` of all together are the core's."""


def indicators() -> list[Indicator]:
    """Those that this plugin offers."""
    return [
        Indicator(each.key, each.name, each.unit, each.definition, partial(series, each), None, of_log=True)
        for each in MEASURES.values()
        if each.key != "complaints"
    ]


def series(measure: Measure, tx: Tx, periods: Sequence[Period], channel_id: uuid.UUID | None, as_of: datetime) -> list[Ratio]:
    """One `Ratio` per period, in order; one statement whatever their number."""
    if not periods:
        return []
    log, days = log_of(tx), period_days(tx, periods)
    said = sa.select(days.c.n, measure.amount(log.c).label("value"))
    counted = said.select_from(log.outerjoin(days, days.c.day == as_day(log.c.business_date))).group_by(days.c.n)
    first, last = min(period.start for period in periods), max(period.end for period in periods)
    counted = counted.where(log.c.type == measure.type, log.c.business_date >= first, log.c.business_date < last)
    counted = counted.where(log.c.occurred_at <= as_of)
    if channel_id is not None:
        counted = counted.where(log.c.channel_id.in_(channels_below(sa.literal(channel_id, Id))))
    found = {row.n: int(row.value) for row in tx.rows(counted)}
    return [Ratio(found.get(n, 0)) for n in range(len(periods))]
