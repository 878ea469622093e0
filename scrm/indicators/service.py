"""The core's indicators: named series over business days, each list of periods answered by one statement.

An indicator is one or two measures. A measure is SQL on a row of periods (`[opens, closes)`); it sees the log up to an
instant and, if asked, one channel with its children. Which log that is, its transaction says: a handler's ends with its event.
"""

from __future__ import annotations

import functools
import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from scrm.channels.models import channels
from scrm.channels.service import MAX_DEPTH
from scrm.channels.stats import LOST_TYPES, channels_below, within
from scrm.db import Id, Tx
from scrm.events.models import events
from scrm.events.view import is_settled, log_of
from scrm.plugin import Indicator, IndicatorUnit, Period, Ratio
from scrm.rowset import row_set
from scrm.sql import json_kind, json_text
from scrm.users.models import users
from scrm.users.seen import shows_person_where

CHURN_DAYS = 90

CONTENT_INTERACTIONS = ("content.liked", "content.shared", "content.commented")
INTERACTIONS = (*CONTENT_INTERACTIONS, "message.received", "group.spoke")
_REACHED, _LEFT = ("user.followed", "group.joined"), LOST_TYPES


class plus_days(FunctionElement[date]):
    """`plus_days(date, n)`: the day `n` days later."""

    type = sa.Date()
    inherit_cache = True


@compiles(plus_days, "postgresql")
def _plus_days_postgresql(element: plus_days, compiler: Any, **kw: Any) -> str:
    day, count = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({day} + {count})"


@compiles(plus_days, "sqlite")
def _plus_days_sqlite(element: plus_days, compiler: Any, **kw: Any) -> str:
    day, count = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"date({day}, {count} || ' days')"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a series may see: the log up to an instant (its business day is `today`), and one channel with its children or all."""

    as_of: datetime
    today: date
    channel_id: uuid.UUID | None
    log: sa.FromClause = events
    settled: bool = True
    """Whether everybody's events are whose they are now."""
    shared: dict[str, sa.CTE] = field(default_factory=dict)
    """What both measures of a statement are made from, by name: computed once for all periods."""

    def once(self, name: str, build: Callable[[Scope], sa.Select[Any]]) -> sa.CTE:
        """The shared table of this name."""
        if name not in self.shared:
            self.shared[name] = build(self).cte(name).prefix_with("MATERIALIZED")
        return self.shared[name]

    def sees(self) -> sa.ColumnElement[bool]:
        """The condition on rows of the log."""
        known = self.log.c.occurred_at <= self.as_of
        return known if self.channel_id is None else sa.and_(known, self.log.c.channel_id.in_(self.channels()))

    def channels(self) -> sa.Select[Any]:
        """The ids of the channel and of those below it."""
        return channels_below(sa.literal(self.channel_id, Id))


Measure = Callable[[Scope, sa.FromClause], sa.ColumnElement[int]]
"""SQL on a row of periods."""
Condition = Callable[[sa.FromClause], sa.ColumnElement[bool]]
"""SQL on a row of the log."""


def series(
    numerator: Measure,
    denominator: Measure | None,
    zone: ZoneInfo,
    tx: Tx,
    periods: Sequence[Period],
    channel_id: uuid.UUID | None,
    as_of: datetime,
) -> list[Ratio]:
    """One `Ratio` per period, in order; one statement whatever their number."""
    if not periods:
        return []
    scope = Scope(as_of, as_of.astimezone(zone).date(), channel_id, log_of(tx), is_settled(tx))
    rows = [{"n": n, "opens": period.start, "closes": period.end} for n, period in enumerate(periods)]
    span = row_set(tx, "period", {"n": sa.Integer(), "opens": sa.Date(), "closes": sa.Date()}, rows)
    below = denominator(scope, span) if denominator is not None else sa.null()
    found = tx.rows(sa.select(numerator(scope, span).label("above"), below.label("below")).select_from(span).order_by(span.c.n))
    return [Ratio(int(row.above), int(row.below) if row.below is not None else None) for row in found]


# ---- measures


def of_types(*types: str) -> Condition:
    """Events of these types."""
    return lambda log: log.c.type.in_(types)


def count_events(*types: str) -> Measure:
    """How many events of these types."""

    def measure(scope: Scope, period: sa.FromClause) -> sa.ColumnElement[int]:
        return _of_events(sa.func.count(), scope, period, scope.log.c.type.in_(types))

    return measure


def distinct_users(condition: Condition) -> Measure:
    """How many users have such an event."""

    def measure(scope: Scope, period: sa.FromClause) -> sa.ColumnElement[int]:
        return _of_events(sa.func.count(sa.distinct(scope.log.c.user_id)), scope, period, condition(scope.log))

    return measure


def net_revenue(currency: str) -> Measure:
    """Paid less refunded, minor units of the business currency; other currencies are left out."""

    def measure(scope: Scope, period: sa.FromClause) -> sa.ColumnElement[int]:
        log = scope.log.c
        signed = sa.case((log.type == "order.refunded", -log.amount_minor), else_=log.amount_minor)
        total = sa.cast(sa.func.coalesce(sa.func.sum(signed), 0), sa.BigInteger())
        money = sa.and_(log.type.in_(("order.paid", "order.refunded")), log.currency == currency)
        return _of_events(total, scope, period, money)

    return measure


def _of_events(what: Any, scope: Scope, period: sa.FromClause, condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    seen = sa.and_(condition, within(scope.log, period.c.opens, period.c.closes), scope.sees())
    return sa.select(what).select_from(scope.log).where(seen).correlate(period).scalar_subquery()


THOUSANDTHS = 1_000


def reported(key: str) -> tuple[Measure, Measure]:
    """The last figure that was reported from outside under this name, in thousandths, and a thousand; 0 and 0 where none was."""

    def last(scope: Scope, period: sa.FromClause, what: Callable[[Any], Any], missing: int) -> sa.ColumnElement[int]:
        log = scope.log.c
        named = sa.and_(log.type == "indicator.reported", json_text(log.properties, sa.literal("indicator")) == key)
        seen = sa.and_(named, json_kind(log.properties, sa.literal("value")) == "number", scope.sees())
        newest = sa.select(what(json_text(log.properties, sa.literal("value")))).select_from(scope.log)
        newest = newest.where(seen, within(scope.log, period.c.opens, period.c.closes))
        newest = newest.order_by(log.occurred_at.desc(), log.id.desc()).limit(1)
        return sa.func.coalesce(newest.correlate(period).scalar_subquery(), missing, type_=sa.BigInteger())

    def thousandths(text: Any) -> Any:
        return sa.cast(sa.func.round(sa.cast(text, sa.Numeric(24, 6)) * THOUSANDTHS), sa.BigInteger())

    return (
        lambda scope, period: last(scope, period, thousandths, 0),
        lambda scope, period: last(scope, period, lambda _: sa.literal(THOUSANDTHS, sa.BigInteger()), 0),
    )


def joined_users(scope: Scope, period: sa.FromClause) -> sa.ColumnElement[int]:
    """Users whose first event falls in the period."""
    days = scope.once("first_days", _first_days)
    return _count(days, period, days.c.day >= period.c.opens, days.c.day < period.c.closes)


def users_at_start(scope: Scope, period: sa.FromClause) -> sa.ColumnElement[int]:
    """Users whose first event is before the period."""
    days = scope.once("first_days", _first_days)
    return _count(days, period, days.c.day < period.c.opens)


def reachable_at_start(scope: Scope, period: sa.FromClause) -> sa.ColumnElement[int]:
    """Users who followed or were in a group when the period began."""
    return _reachable(scope, period, period.c.opens)


def reachable_at_end(scope: Scope, period: sa.FromClause) -> sa.ColumnElement[int]:
    """Users who followed or were in a group when the period ended."""
    return _reachable(scope, period, period.c.closes)


def churned_buyers(scope: Scope, period: sa.FromClause) -> sa.ColumnElement[int]:
    """Buyers whose 90th day without a purchase falls in the period and has come."""
    bought = scope.once("purchase_days", _purchase_days)
    due = plus_days(bought.c.day, CHURN_DAYS)
    quiet = sa.or_(bought.c.following.is_(None), bought.c.following > due)
    return _count_users(bought, period, due >= period.c.opens, due < period.c.closes, due <= scope.today, quiet)


def buyers_at_start(scope: Scope, period: sa.FromClause) -> sa.ColumnElement[int]:
    """Buyers with a purchase in the 90 days before the period."""
    bought = scope.once("purchase_days", _purchase_days)
    since = plus_days(period.c.opens, -CHURN_DAYS)
    return _count_users(bought, period, bought.c.day >= since, bought.c.day < period.c.opens)


def repeat_buyers(scope: Scope, period: sa.FromClause) -> sa.ColumnElement[int]:
    """Buyers of the period who had bought on an earlier day."""
    bought = scope.once("purchase_days", _purchase_days)
    inside = (bought.c.day >= period.c.opens, bought.c.day < period.c.closes)
    return _count_users(bought, period, *inside, bought.c.day > bought.c.earliest)


def _count(table: sa.FromClause, period: sa.FromClause, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.select(sa.func.count()).select_from(table).where(*conditions).correlate(period).scalar_subquery()


def _count_users(table: sa.FromClause, period: sa.FromClause, *conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    people = sa.func.count(sa.distinct(table.c.user_id))
    return sa.select(people).select_from(table).where(*conditions).correlate(period).scalar_subquery()


def _first_days(scope: Scope) -> sa.Select[Any]:
    """Everybody's first day: by the index on people's events, or where people were merged since, from the whole log."""
    log = scope.log.c
    if scope.settled:
        mine = sa.select(log.business_date).where(log.user_id == users.c.id, log.occurred_at <= scope.as_of)
        day: sa.ColumnElement[Any] = mine.order_by(log.occurred_at, log.id).limit(1).correlate(users).scalar_subquery()
        statement = sa.select(users.c.id, day.label("day")).where(users.c.merged_into.is_(None))
    else:
        day = sa.func.min(log.business_date, type_=sa.Date())
        statement = sa.select(log.user_id.label("id"), day.label("day")).select_from(
            scope.log.outerjoin(users, users.c.id == log.user_id)
        )
        statement = statement.where(log.user_id.is_not(None), log.occurred_at <= scope.as_of).group_by(log.user_id)
    if scope.channel_id is not None:
        statement = statement.where(users.c.acquisition_channel_id.in_(scope.channels()))
    return statement


def _purchase_days(scope: Scope) -> sa.Select[Any]:
    """Everybody's days with a purchase, each with the next one and the first."""
    log = scope.log.c
    paid = sa.and_(log.type == "order.paid", log.user_id.is_not(None), scope.sees())
    days = sa.select(log.user_id, log.business_date.label("day")).where(paid).distinct().subquery("days")
    after = sa.func.lead(days.c.day, type_=sa.Date()).over(partition_by=days.c.user_id, order_by=days.c.day)
    first = sa.func.min(days.c.day, type_=sa.Date()).over(partition_by=days.c.user_id)
    return sa.select(days.c.user_id, days.c.day, after.label("following"), first.label("earliest"))


def _reachable(scope: Scope, period: sa.FromClause, moment: sa.ColumnElement[date]) -> sa.ColumnElement[int]:
    spans = scope.once("reach_spans", _reach_spans)
    lasting = sa.or_(spans.c.until.is_(None), spans.c.until >= moment)
    conditions = [spans.c.since < moment, lasting]
    if scope.channel_id is not None:
        conditions.append(spans.c.channel_id.in_(scope.channels()))
    return _count_users(spans, period, *conditions)


def _reach_spans(scope: Scope) -> sa.Select[Any]:
    """Since when somebody can be reached through an account or a group, and the day of the next word on that."""
    log = scope.log.c
    levels = [channels.alias(f"level_{n}") for n in range(MAX_DEPTH)]
    source: sa.FromClause = scope.log.outerjoin(levels[0], levels[0].c.id == log.channel_id)
    for below, above in itertools.pairwise(levels):
        source = source.outerjoin(above, above.c.id == below.c.parent_id)
    root = sa.func.coalesce(*(level.c.id for level in reversed(levels)))
    in_group = log.type.in_(("group.joined", "group.left"))
    group = sa.case((in_group, json_text(log.properties, sa.literal("groupId"))))
    place = [log.user_id, in_group, root, group]
    following = sa.func.lead(log.business_date, type_=sa.Date())
    word = sa.select(
        log.user_id,
        log.channel_id,
        log.type,
        log.business_date.label("since"),
        following.over(partition_by=place, order_by=[log.occurred_at, log.id]).label("until"),
    ).select_from(source)
    known = sa.and_(log.type.in_((*_REACHED, *_LEFT)), log.user_id.is_not(None), log.occurred_at <= scope.as_of)
    words = word.where(known).subquery("words")
    return sa.select(words).where(words.c.type.in_(_REACHED))


# ---- the list


def core_indicators(currency: str, zone: ZoneInfo) -> tuple[Indicator, ...]:
    """Every indicator that core offers, with its definition in words; all are of the log."""
    found = []
    for key, name, definition, better, above, below in (*_PEOPLE, *_PURCHASES):
        unit = IndicatorUnit.COUNT if below is None else IndicatorUnit.RATE
        found.append(Indicator(key, name, unit, definition, partial(series, above, below, zone), better, of_log=True))
    earned = partial(series, net_revenue(currency), None, zone)
    said = "paid − refunded, in the business currency"
    revenue = Indicator("revenue", "Revenue", IndicatorUnit.MONEY, said, earned, True, of_log=True)
    words = "the last `indicator.reported` of the period, in thousandths, ÷ 1 000"
    index = partial(series, *reported("opinion_index"), zone)
    opinion = Indicator("opinion_index", "Opinion index", IndicatorUnit.INDEX, words, index, False, of_log=True)
    return (*found, revenue, opinion)


@functools.lru_cache(maxsize=16)
def offered_by_core(currency: str, zone: ZoneInfo) -> Mapping[str, tuple[str, Indicator]]:
    """The same by key, each with who offers it."""
    return {each.key: ("core", each) for each in core_indicators(currency, zone)}


_ACTIVE = distinct_users(shows_person_where)
_BUYERS = distinct_users(of_types("order.paid"))
_INTERACTING = distinct_users(of_types(*INTERACTIONS))
_LOST = distinct_users(of_types(*LOST_TYPES))
_REFUNDED = distinct_users(of_types("order.refunded"))
_CONTENT, _READ = count_events(*CONTENT_INTERACTIONS), count_events("content.read")
_DISPUTES, _ORDERS, _COMPLAINTS = count_events("dispute.opened"), count_events("order.paid"), count_events("complaint.filed")

_Said = tuple[str, str, str, bool, Measure, Measure | None]
"""Key, name, definition, whether more is better, numerator, denominator."""

_PEOPLE: tuple[_Said, ...] = (
    ("new_users", "New users", "users whose first event falls in the period", True, joined_users, None),
    ("growth_rate", "Growth rate", "new users ÷ users at the start", True, joined_users, users_at_start),
    ("active_users", "Active users", "distinct users who did something", True, _ACTIVE, None),
    (
        "interaction_rate",
        "Interaction rate",
        "distinct users who liked, shared, commented, wrote or spoke ÷ users reachable at the end",
        True,
        _INTERACTING,
        reachable_at_end,
    ),
    (
        "content_interaction_rate",
        "Content interaction rate",
        "content likes, shares and comments ÷ content reads",
        True,
        _CONTENT,
        _READ,
    ),
    (
        "unfollow_rate",
        "Unfollow rate",
        "distinct users who unfollowed or left a group ÷ users reachable at the start",
        False,
        _LOST,
        reachable_at_start,
    ),
)
_PURCHASES: tuple[_Said, ...] = (
    (
        "churn_rate",
        "Churn rate",
        "buyers whose 90th day without a purchase falls in the period ÷ buyers of the 90 days before the start",
        False,
        churned_buyers,
        buyers_at_start,
    ),
    ("conversion_rate", "Conversion rate", "distinct buyers ÷ active users", True, _BUYERS, _ACTIVE),
    (
        "repurchase_rate",
        "Repurchase rate",
        "distinct buyers who had bought on an earlier day ÷ distinct buyers",
        True,
        repeat_buyers,
        _BUYERS,
    ),
    ("refund_user_rate", "Refund user rate", "distinct refunded users ÷ distinct buyers", False, _REFUNDED, _BUYERS),
    ("dispute_rate", "Dispute rate", "disputes ÷ paid orders", False, _DISPUTES, _ORDERS),
    ("complaints", "Complaints", "complaints filed", False, _COMPLAINTS, None),
)
