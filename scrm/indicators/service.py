"""The core's indicators: named series over business days, each list of periods answered by one statement.

An indicator is one or two measures. A measure is a number for each of the periods (`[opens, closes)`), from one pass over the
log, however many they are; it sees the log up to an instant and, if asked, one channel with its children. Which log that is, its
transaction says: a handler's ends with its event.
"""

from __future__ import annotations

import functools
import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from scrm.channels.models import channels
from scrm.channels.service import MAX_DEPTH
from scrm.channels.stats import LOST_TYPES, channels_below, near_day
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


class days_between(FunctionElement[int]):
    """`days_between(first, last)`: how many days lie from one date to the other."""

    type = sa.Integer()
    inherit_cache = True


@compiles(days_between, "postgresql")
def _days_between_postgresql(element: days_between, compiler: Any, **kw: Any) -> str:
    first, last = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({last} - {first})"


@compiles(days_between, "sqlite")
def _days_between_sqlite(element: days_between, compiler: Any, **kw: Any) -> str:
    first, last = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"cast(julianday({last}) - julianday({first}) as integer)"


class as_day(FunctionElement[date]):
    """`as_day(date)`: the same day, said so that SQLite finds the rows of `period_days` by it: its dates are numbers to it, what
    comes of JSON is text."""

    type = sa.Date()
    inherit_cache = True


@compiles(as_day, "postgresql")
def _as_day_postgresql(element: as_day, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


@compiles(as_day, "sqlite")
def _as_day_sqlite(element: as_day, compiler: Any, **kw: Any) -> str:
    return f"cast({compiler.process(element.clauses, **kw)} as text)"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a series may see: the log up to an instant (its business day is `today`), and one channel with its children or all."""

    as_of: datetime
    today: date
    channel_id: uuid.UUID | None
    periods: Sequence[Period]
    span: sa.FromClause
    """The periods: `n`, `opens`, `closes`."""
    days: sa.CTE
    """Their days: `n`, `day`."""
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

    @property
    def first(self) -> date:
        """The first day of all periods."""
        return min(period.start for period in self.periods)

    @property
    def last(self) -> date:
        """The day after the last of all periods."""
        return max(period.end for period in self.periods)

    def sees(self) -> sa.ColumnElement[bool]:
        """The condition on rows of the log."""
        known = self.log.c.occurred_at <= self.as_of
        return known if self.channel_id is None else sa.and_(known, self.log.c.channel_id.in_(self.channels()))

    def channels(self) -> sa.Select[Any]:
        """The ids of the channel and of those below it."""
        return channels_below(sa.literal(self.channel_id, Id))


Measure = Callable[[Scope], sa.Select[Any]]
"""A row for each period that is not 0: `n`, `value`."""
Condition = Callable[[sa.FromClause], sa.ColumnElement[bool]]
"""SQL on a row of the log."""


def period_days(tx: Tx, periods: Sequence[Period]) -> sa.CTE:
    """Every day of these periods, to join the log with by its `business_date`: `n`, the period's place among them, and `day`. A
    series is then one pass over the log, `group by n`, however many periods it has."""
    rows = [
        {"n": n, "day": period.start + timedelta(days=day)}
        for n, period in enumerate(periods)
        for day in range((period.end - period.start).days)
    ]
    days = row_set(tx, "period_day", {"n": sa.Integer(), "day": sa.Date()}, rows)
    return sa.select(days.c.n, as_day(days.c.day).label("day")).cte("period_days").prefix_with("MATERIALIZED")


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
    rows = [{"n": n, "opens": period.start, "closes": period.end} for n, period in enumerate(periods)]
    span = row_set(tx, "period", {"n": sa.Integer(), "opens": sa.Date(), "closes": sa.Date()}, rows)
    today = as_of.astimezone(zone).date()
    scope = Scope(as_of, today, channel_id, periods, span, period_days(tx, periods), log_of(tx), is_settled(tx))
    above = numerator(scope).subquery("above")
    source = span.outerjoin(above, above.c.n == span.c.n)
    under: sa.ColumnElement[Any] = sa.null()
    if denominator is not None:
        below = denominator(scope).subquery("below")
        source, under = source.outerjoin(below, below.c.n == span.c.n), sa.func.coalesce(below.c.value, 0)
    columns = (sa.func.coalesce(above.c.value, 0).label("above"), under.label("below"))
    found = tx.rows(sa.select(*columns).select_from(source).order_by(span.c.n))
    return [Ratio(int(row.above), int(row.below) if row.below is not None else None) for row in found]


# ---- measures


def of_types(*types: str) -> Condition:
    """Events of these types."""
    return lambda log: log.c.type.in_(types)


def count_events(*types: str) -> Measure:
    """How many events of these types."""
    return lambda scope: _of_events(scope, sa.func.count(), scope.log.c.type.in_(types))


def distinct_users(condition: Condition) -> Measure:
    """How many users have such an event."""
    return lambda scope: _of_events(scope, sa.func.count(sa.distinct(scope.log.c.user_id)), condition(scope.log))


def net_revenue(currency: str) -> Measure:
    """Paid less refunded, minor units of the business currency; other currencies are left out."""

    def measure(scope: Scope) -> sa.Select[Any]:
        log = scope.log.c
        signed = sa.case((log.type == "order.refunded", -log.amount_minor), else_=log.amount_minor)
        total = sa.cast(sa.func.coalesce(sa.func.sum(signed), 0), sa.BigInteger())
        money = sa.and_(log.type.in_(("order.paid", "order.refunded")), log.currency == currency)
        return _of_events(scope, total, money)

    return measure


def _of_events(scope: Scope, what: sa.ColumnElement[Any], *conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Something of each period's events."""
    grouped = sa.select(scope.days.c.n, what.label("value")).select_from(_dated(scope)).where(*conditions, *_seen(scope))
    return grouped.group_by(scope.days.c.n)


def _dated(scope: Scope) -> sa.Join:
    return scope.log.outerjoin(scope.days, scope.days.c.day == as_day(scope.log.c.business_date))


def _seen(scope: Scope) -> tuple[sa.ColumnElement[bool], ...]:
    """What is seen of the log, from the first day to the last, said so that an index on `occurred_at` serves."""
    at = scope.log.c.occurred_at
    return scope.sees(), at >= near_day(sa.literal(scope.first), -2), at < near_day(sa.literal(scope.last), 2)


THOUSANDTHS = 1_000
LARGEST = 9 * 10**12
"""A figure beyond it is none: in thousandths, both engines count so far exactly."""


def reported(key: str) -> tuple[Measure, Measure]:
    """The last figure that was reported from outside under this name, in thousandths, and a thousand; 0 and 0 where none was."""

    def last(scope: Scope, value: Callable[[Any], Any]) -> sa.Select[Any]:
        log = scope.log.c
        named = sa.and_(log.type == "indicator.reported", json_text(log.properties, sa.literal("indicator")) == key)
        text = json_text(log.properties, sa.literal("value"))
        # Without digits to hold: PostgreSQL refuses what does not fit before it could be compared.
        number = sa.cast(sa.case((json_kind(log.properties, sa.literal("value")) == "number", text)), sa.Numeric())
        place = sa.func.row_number().over(partition_by=scope.days.c.n, order_by=[log.occurred_at.desc(), log.id.desc()])
        said = sa.select(scope.days.c.n, value(number).label("value"), place.label("place")).select_from(_dated(scope))
        each = said.where(named, number.between(-LARGEST, LARGEST), *_seen(scope)).subquery("reported")
        return sa.select(each.c.n, each.c.value).where(each.c.place == 1)

    def thousandths(number: Any) -> Any:
        return sa.cast(sa.func.round(number * THOUSANDTHS), sa.BigInteger())

    return (
        lambda scope: last(scope, thousandths),
        lambda scope: last(scope, lambda _: sa.literal(THOUSANDTHS, sa.BigInteger())),
    )


def joined_users(scope: Scope) -> sa.Select[Any]:
    """Users whose first event falls in the period."""
    first = scope.once("first_days", _first_days)
    return _on_days(scope, first.c.day, first.c.id)


def users_at_start(scope: Scope) -> sa.Select[Any]:
    """Users whose first event is before the period."""
    first = scope.once("first_days", _first_days)
    return _before(scope, scope.span.c.opens, sa.select(first.c.day, sa.func.count().label("change")).group_by(first.c.day))


def reachable_at_start(scope: Scope) -> sa.Select[Any]:
    """Users who followed or were in a group when the period began."""
    return _reachable(scope, scope.span.c.opens)


def reachable_at_end(scope: Scope) -> sa.Select[Any]:
    """Users who followed or were in a group when the period ended."""
    return _reachable(scope, scope.span.c.closes)


def churned_buyers(scope: Scope) -> sa.Select[Any]:
    """Buyers whose 90th day without a purchase falls in the period and has come."""
    bought = scope.once("purchase_days", _purchase_days)
    quiet = sa.or_(bought.c.following.is_(None), bought.c.following > bought.c.due)
    return _on_days(scope, bought.c.due, bought.c.user_id, bought.c.due <= scope.today, quiet)


def buyers_at_start(scope: Scope) -> sa.Select[Any]:
    """Buyers with a purchase in the 90 days before the period: of each the last one before it counts, until the next comes."""
    bought = scope.once("purchase_days", _purchase_days)
    sooner = sa.and_(bought.c.following.is_not(None), bought.c.following < bought.c.due)
    until = sa.case((sooner, bought.c.following), else_=bought.c.due)
    return _lasting(scope, scope.span.c.opens, sa.select(bought.c.day.label("since"), until.label("until")).subquery("counting"))


def repeat_buyers(scope: Scope) -> sa.Select[Any]:
    """Buyers of the period who had bought on an earlier day."""
    bought = scope.once("purchase_days", _purchase_days)
    return _on_days(scope, bought.c.day, bought.c.user_id, bought.c.day > bought.c.earliest)


def _on_days(
    scope: Scope, day: sa.ColumnElement[Any], who: sa.ColumnElement[Any], *conditions: sa.ColumnElement[bool]
) -> sa.Select[Any]:
    """How many users have a row whose day falls in each period."""
    people = sa.func.count(sa.distinct(who))
    if all(period.end - period.start == timedelta(days=1) for period in scope.periods):
        counted = sa.select(as_day(day).label("day"), people.label("value")).where(*conditions).group_by(day).subquery("counted")
        each = counted.join(scope.days, scope.days.c.day == counted.c.day)
        return sa.select(scope.days.c.n, counted.c.value).select_from(each)
    inside = (day >= scope.span.c.opens, day < scope.span.c.closes)
    return sa.select(scope.span.c.n, people.label("value")).where(*inside, *conditions).group_by(scope.span.c.n)


def _before(scope: Scope, moment: sa.ColumnElement[date], changes: sa.Select[Any]) -> sa.Select[Any]:
    """The sum of the changes before a day of each period; `changes` are few: one for each `day`, or two."""
    each = changes.cte().prefix_with("MATERIALIZED")
    total = sa.cast(sa.func.sum(each.c.change), sa.BigInteger())
    return sa.select(scope.span.c.n, total.label("value")).where(each.c.day < moment).group_by(scope.span.c.n)


def _lasting(scope: Scope, moment: sa.ColumnElement[date], spans: sa.FromClause) -> sa.Select[Any]:
    """How many rows there are with `since < moment <= until`; null: for ever."""
    begun = sa.select(spans.c.since.label("day"), sa.func.count().label("change")).group_by(spans.c.since)
    over = sa.select(spans.c.until, -sa.func.count()).where(spans.c.until.is_not(None)).group_by(spans.c.until)
    changes = sa.union_all(begun, over).subquery("changes")
    return _before(scope, moment, sa.select(changes.c.day, changes.c.change))


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
    """Everybody's days with a purchase, each with the next one, the first, and the 90th day after it."""
    log = scope.log.c
    paid = sa.and_(log.type == "order.paid", log.user_id.is_not(None), scope.sees())
    days = sa.select(log.user_id, log.business_date.label("day")).where(paid).distinct().subquery("days")
    after = sa.func.lead(days.c.day, type_=sa.Date()).over(partition_by=days.c.user_id, order_by=days.c.day)
    first = sa.func.min(days.c.day, type_=sa.Date()).over(partition_by=days.c.user_id)
    due = plus_days(days.c.day, CHURN_DAYS)
    return sa.select(days.c.user_id, days.c.day, after.label("following"), first.label("earliest"), due.label("due"))


def _reachable(scope: Scope, moment: sa.ColumnElement[date]) -> sa.Select[Any]:
    """Who can be reached in several ways counts once: what two of somebody's times share is taken from the later one."""
    spans = scope.once("reach_spans", _reach_spans)
    mine = sa.select(spans).where(spans.c.channel_id.in_(scope.channels()) if scope.channel_id is not None else sa.true())
    each = mine.subquery("ways")
    until = sa.func.coalesce(each.c.until, sa.literal(date.max), type_=sa.Date())
    covered = sa.func.max(until, type_=sa.Date()).over(
        partition_by=each.c.user_id, order_by=[each.c.since, until], rows=(None, -1)
    )
    known = sa.select(each.c.since, until.label("until"), covered.label("covered")).subquery("covered")
    since = sa.case((known.c.covered > known.c.since, known.c.covered), else_=known.c.since)
    apart = sa.select(since.label("since"), known.c.until).where(known.c.until > since).subquery("apart")
    return _lasting(scope, moment, apart)


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
    """Every indicator that core offers, with its definition in words. All are of the log, but those that need who is reachable:
    that depends on how channels hang together."""
    found = []
    for key, name, definition, better, above, below in (*_PEOPLE, *_PURCHASES):
        unit = IndicatorUnit.COUNT if below is None else IndicatorUnit.RATE
        of_log = below not in (reachable_at_start, reachable_at_end)
        found.append(Indicator(key, name, unit, definition, partial(series, above, below, zone), better, of_log=of_log))
    earned = partial(series, net_revenue(currency), None, zone)
    said = "paid − refunded, in the business currency"
    revenue = Indicator("revenue", "Revenue", IndicatorUnit.MONEY, said, earned, True, of_log=True)
    words = "the last `indicator.reported` of the period within ±9 000 000 000 000, in thousandths, ÷ 1 000"
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
