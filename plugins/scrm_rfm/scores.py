"""Everybody's scores as one statement on the log: what each did by day, each person's sums, where they stand among all, and what
that makes of them. Equal values share a score, and the order of the rows has no part in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import HandlerTx, Id, Instant, LogEvent, Text, days_between, json_text

from .models import erased, people
from .presets import ACTIVE, HIGH_VALUE, INSUFFICIENT, LOST, POTENTIAL, PROSPECT, UNCLASSIFIED
from .rules import FEWEST_BUYERS, Four, Line, Parameters

PAID, REFUNDED = "order.paid", "order.refunded"
INTERACTIONS = ("content.liked", "content.shared", "content.commented", "message.received", "group.spoke")
READ = (PAID, REFUNDED, *INTERACTIONS)
EVER = date(1, 1, 1)
DAY_SLACK = timedelta(hours=15)
SUMS: Mapping[str, Any] = {
    "last": sa.Date(),
    "frequency": sa.Integer(),
    "monetary": sa.BigInteger(),
    "other": sa.Integer(),
    "interactions": sa.Integer(),
    "spending": sa.BigInteger(),
    "active_days": sa.Integer(),
}
"""What is summed of each person."""

Column = sa.ColumnElement[Any]


@dataclass(frozen=True)
class Scoring:
    """What is scored: the log up to an event, as of an instant on a business day, with these parameters."""

    tx: HandlerTx
    event: LogEvent
    as_of: datetime
    day: date
    parameters: Parameters

    @property
    def window_after(self) -> date:
        """What counts for R, F and M comes after this day."""
        return _before(self.day, self.parameters.window_days)

    @property
    def behavior_after(self) -> date:
        """What counts for the behaviour layer and the health score comes after this day."""
        return _before(self.day, self.parameters.rules.behavior_days)

    def log(self, *types: str) -> sa.Subquery:
        """What happened by then."""
        return self.tx.history(types, until=self.event)

    def known(self, log: sa.Subquery, after: date) -> list[Column]:
        """What of the log belongs to it: what comes after a day."""
        found = [log.c.user_id.is_not(None), log.c.occurred_at <= sa.literal(self.as_of, Instant())]
        if after == EVER:
            return found
        # Whatever the zone, the next day begins no earlier; the log is indexed by instants.
        opens = datetime.combine(after, time.min, UTC) + timedelta(days=1) - DAY_SLACK
        return [*found, log.c.business_date > _date(after), log.c.occurred_at >= sa.literal(opens, Instant())]


def scores(scoring: Scoring, run_id: Any) -> sa.Insert:
    """The statement that writes a run's rows: one for each who bought within the window or was active of late."""
    ranked = _ranked(_sums(scoring), scoring.parameters)
    scored = _scored(ranked, scoring)
    placed = _placed(scored, scoring.parameters)
    names = [column.name for column in people.columns]
    made = {"run_id": sa.literal(run_id, Id), "holder_id": placed.c.user_id}
    return sa.insert(people).from_select(names, sa.select(*(made[name] if name in made else placed.c[name] for name in names)))


def _sums(scoring: Scoring) -> sa.Subquery:
    """Each person's purchases, money and activity."""
    both = sa.union_all(_bought(scoring), _lately(scoring)).subquery("both")
    sums = [
        _sum(both.c[name], kind).label(name) if name != "last" else sa.func.max(both.c.last, type_=kind).label(name)
        for name, kind in SUMS.items()
    ]
    known = both.c.user_id.not_in(sa.select(erased.c.user_id))
    return sa.select(both.c.user_id, *sums).where(known).group_by(both.c.user_id).subquery("sums")


def _bought(scoring: Scoring) -> sa.Select[Any]:
    """What each person bought within the window. Amounts in another currency are counted and enter no sum."""
    log = scoring.log(PAID, REFUNDED)
    paid, ours = log.c.type == PAID, _is_ours(log, scoring)
    order = sa.func.coalesce(json_text(log.c.properties, sa.literal("orderId")), sa.cast(log.c.id, sa.Text))
    purchase = order if scoring.parameters.rules.frequency == "orders" else log.c.business_date
    bought = sa.and_(paid, ours)
    sums = {
        "last": sa.func.max(_when(bought, log.c.business_date), type_=sa.Date()),
        "frequency": sa.func.count(sa.distinct(_when(bought, purchase))),
        "monetary": _sum(_signed(log, ours), sa.BigInteger()),
        "other": sa.func.count(_when(~ours, 1)),
    }
    return _by_person(log, scoring.known(log, scoring.window_after), sums)


def _lately(scoring: Scoring) -> sa.Select[Any]:
    """What each person did in the days of the behaviour layer."""
    log = scoring.log(*READ)
    touched = log.c.type.not_in((PAID, REFUNDED))
    sums = {
        "interactions": sa.func.count(_when(touched, 1)),
        "spending": _sum(_when(touched, 0, _signed(log, _is_ours(log, scoring))), sa.BigInteger()),
        "active_days": sa.func.count(sa.distinct(_when(log.c.type != REFUNDED, log.c.business_date))),
    }
    return _by_person(log, scoring.known(log, scoring.behavior_after), sums)


def _by_person(log: sa.Subquery, known: list[Column], sums: Mapping[str, Column]) -> sa.Select[Any]:
    """One row for each person, with every one of `SUMS`."""
    columns = [sums.get(name, sa.null() if name == "last" else sa.literal(0)).label(name) for name in SUMS]
    return sa.select(log.c.user_id, *columns).where(*known).group_by(log.c.user_id)


def _signed(log: sa.Subquery, ours: Column) -> Column:
    """The amount of an order or, taken away, of a refund; of another currency none."""
    return sa.case((~ours, 0), (log.c.type == PAID, log.c.amount_minor), else_=-log.c.amount_minor)


def _is_ours(log: sa.Subquery, scoring: Scoring) -> Column:
    """In the currency that is computed with, or without an amount."""
    return sa.func.coalesce(log.c.currency, scoring.parameters.rules.currency) == scoring.parameters.rules.currency


def _ranked(sums: sa.Subquery, parameters: Parameters) -> sa.Subquery:
    """How many are worse, or no better, in each value: of buyers among buyers, of activity among all who have some."""
    buyer, alive = sums.c.frequency > 0, sa.or_(sums.c.frequency > 0, sums.c.active_days > 0)
    among = {"partition_by": _when(buyer, 1, 0)}
    all_of_them = {"partition_by": _when(alive, 1, 0)}

    def worse(value: Column, of: dict[str, Column]) -> Column:
        return sa.func.rank().over(order_by=value, **of) - 1  # type: ignore[arg-type]

    def no_better(value: Column) -> Column:
        return sa.func.count().over(order_by=value, **among)  # type: ignore[arg-type]

    ranks = {
        "buyers": sa.func.count().over(**among),  # type: ignore[arg-type]
        "r_no_better": no_better(sums.c.last),
        "f_worse": worse(sums.c.frequency, among),
        "m_worse": worse(sums.c.monetary, among),
        "m_no_better": no_better(sums.c.monetary),
        "alive": sa.func.count().over(**all_of_them),  # type: ignore[arg-type]
        "interactions_worse": worse(sums.c.interactions, all_of_them),
        "spending_worse": worse(sums.c.spending, all_of_them),
        "active_days_worse": worse(sums.c.active_days, all_of_them),
    }
    columns = [sa.cast(value, sa.BigInteger).label(name) for name, value in ranks.items()]
    known = sa.or_(alive, sums.c.other > 0)
    return sa.select(sums, *columns).where(known).subquery("ranked")


def _scored(ranked: sa.Subquery, scoring: Scoring) -> sa.Subquery:
    """The scores from 1 to 5, and the percentile ranks."""
    rules, c = scoring.parameters.rules, ranked.c
    recency = days_between(c.last, _date(scoring.day))
    r = _by_most(recency, rules.recency_bounds) if rules.recency_bounds else (5 * c.r_no_better + c.buyers - 1) // c.buyers
    f = _by_least(c.frequency, rules.frequency_bounds) if rules.frequency_bounds else 1 + 5 * c.f_worse // c.buyers
    m = _by_least(c.monetary, rules.monetary_bounds) if rules.monetary_bounds else 1 + 5 * c.m_worse // c.buyers
    enough = c.frequency > 0
    if scoring.parameters.relative:
        enough &= c.buyers >= FEWEST_BUYERS
    alive = sa.or_(c.frequency > 0, c.active_days > 0)
    kept = ("user_id", "frequency", "interactions", "spending", "active_days", "buyers", "m_no_better")
    ranks = ("interactions", "spending", "active_days")
    return sa.select(
        *(c[name] for name in kept),
        recency.label("recency_days"),
        sa.case((c.frequency > 0, c.monetary), else_=0).label("monetary"),
        c.other.label("other_currency_events"),
        *(_when(enough, score).label(name) for name, score in (("r", r), ("f", f), ("m", m))),
        *(_when(alive, 100 * c[f"{name}_worse"] // _or_one(c.alive - 1)).label(f"{name}_rank") for name in ranks),
    ).subquery("scored")


def _placed(scored: sa.Subquery, parameters: Parameters) -> sa.Subquery:
    """The segment, the layers and the health score."""
    rules, c = parameters.rules, scored.c
    others = [column for column in c if column.name not in ("buyers", "m_no_better")]
    weights = rules.health_weights
    total = weights.interactions + weights.spending + weights.active_days
    weighed = (
        weights.interactions * c.interactions_rank + weights.spending * c.spending_rank + weights.active_days * c.active_days_rank
    )
    above = 100 * (c.buyers - c.m_no_better)
    high, mid = rules.value_high_percent, rules.value_high_percent + rules.value_mid_percent
    value = sa.case(
        (c.frequency == 0, _text("LOW")),
        (above < high * c.buyers, _text("HIGH")),
        (above < mid * c.buyers, _text("MID")),
        else_=_text("LOW"),
    )
    behavior = sa.case(
        (c.active_days >= rules.active_from_days, _text("ACTIVE")), (c.active_days > 0, _text("POTENTIAL")), else_=_text("SILENT")
    )
    segment = sa.case((c.frequency == 0, _text(PROSPECT)), *(_bands if parameters.mode == "threshold" else _cells)(c, parameters))
    made = {
        "segment": segment,
        "value_layer": value,
        "behavior_layer": behavior,
        "health": (2 * weighed + total) // (2 * total),
    }
    return sa.select(*others, *(each.label(name) for name, each in made.items())).subquery("placed")


def _cells(c: Any, parameters: Parameters) -> list[tuple[Column, Column]]:
    """The segment of each cell of the map."""
    cell = 100 * c.r + 10 * c.f + c.m
    mapped = [(cell.in_([int(one) for one in segment.cells]), _text(segment.key)) for segment in parameters.rules.segments]
    return [(c.r.is_(None), _text(INSUFFICIENT)), *((found, key) for found, key in mapped)]


def _bands(c: Any, parameters: Parameters) -> list[tuple[Column, Column]]:
    """The band of fixed lines: the worst of the three, or, strictly, the one that all three lie in."""
    rules = parameters.rules
    high, potential, lost = rules.high, rules.potential, c.recency_days > rules.lost_recency

    def reached(line: Line) -> list[Column]:
        return [c.recency_days <= line.recency, c.frequency >= line.frequency, c.monetary >= line.monetary]

    in_high, to_potential = reached(high), reached(potential)
    found = [(lost, _text(LOST)), (sa.and_(*in_high), _text(HIGH_VALUE))]
    if not rules.strict:
        return [*found, (sa.and_(*to_potential), _text(POTENTIAL)), (sa.true(), _text(ACTIVE))]
    between = [~above & below for above, below in zip(in_high, to_potential, strict=True)]
    beneath = [~each for each in to_potential]
    return [
        *found,
        (sa.and_(*between), _text(POTENTIAL)),
        (sa.and_(*beneath), _text(ACTIVE)),
        (sa.true(), _text(UNCLASSIFIED)),
    ]


def _by_most(value: Column, bounds: Four) -> Column:
    return sa.case(*((value <= bound, 5 - place) for place, bound in enumerate(bounds)), else_=1)


def _by_least(value: Column, bounds: Four) -> Column:
    return sa.case(*((value >= bound, place) for place, bound in zip((5, 4, 3, 2), reversed(bounds), strict=True)), else_=1)


def _before(day: date, days: int | None) -> date:
    if days is None or (day - EVER).days < days:
        return EVER
    return day - timedelta(days=days)


def _date(day: date) -> Column:
    return sa.literal(day, sa.Date())


def _text(word: str) -> Column:
    return sa.literal(word, Text)


def _when(condition: Any, value: Any, otherwise: Any = None) -> Column:
    return sa.case((condition, value), else_=sa.null() if otherwise is None else otherwise)


def _or_one(number: Column) -> Column:
    return sa.case((number > 0, number), else_=1)


def _sum(value: Column, type_: Any) -> Column:
    return sa.cast(sa.func.coalesce(sa.func.sum(value), 0), type_)
