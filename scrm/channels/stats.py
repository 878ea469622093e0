"""What happened on a channel, its children included: expressions for compiled reads, and the same numbers as a function.

`channel` is anything with `.c.id`. Days are business days, `[start, end)`.
"""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass
from datetime import date
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from scrm.channels.models import channels
from scrm.channels.service import MAX_DEPTH, half_open
from scrm.db import Id, Instant, Tx
from scrm.events.models import events
from scrm.sql import Moment, Value
from scrm.users.models import identities, users
from scrm.users.seen import shows_person_where

LOST_TYPES = ("user.unfollowed", "group.left")


class near_day(FunctionElement[Any]):
    """`near_day(date, n)`: an instant `n` days (2 or more away) from the start of a business day in any zone: for an index.

    A day beyond the last of the calendar is later than every instant.
    """

    type = Instant()
    inherit_cache = True


@compiles(near_day, "postgresql")
def _near_day_postgresql(element: near_day, compiler: Any, **kw: Any) -> str:
    day, count = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"(cast(cast({day} as date) + {count} as timestamp) at time zone 'UTC')"


@compiles(near_day, "sqlite")
def _near_day_sqlite(element: near_day, compiler: Any, **kw: Any) -> str:
    day, count = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"coalesce(date({day}, {count} || ' days'), '9999-12-31Z')"


def subtree(channel: Any) -> sa.Select[Any]:
    """The ids of the channel and of everything below it."""
    levels = [channels.alias() for _ in range(MAX_DEPTH)]
    chain: sa.FromClause = levels[0]
    for below, above in itertools.pairwise(levels):
        chain = chain.outerjoin(above, above.c.id == below.c.parent_id)
    return sa.select(levels[0].c.id).select_from(chain).where(channel.c.id.in_([level.c.id for level in levels]))


def channels_below(channel_id: Any) -> sa.Select[Any]:
    """The ids of the channel with an id, which is a column or a parameter, and of everything below it."""
    return subtree(SimpleNamespace(c=SimpleNamespace(id=channel_id)))


def first_day(user: Any) -> sa.ScalarSelect[date]:
    """The business day of the user's first event; their creation is one. `user` has `.c.id`."""
    own = events.alias()
    earliest = sa.select(own.c.business_date).where(own.c.user_id == user.c.id)
    return earliest.order_by(own.c.occurred_at, own.c.id).limit(1).correlate_except(own).scalar_subquery()


def within(table: Any, start: Any, end: Any) -> sa.ColumnElement[bool]:
    """The condition that an event's business day is in `[start, end)`, said so that an index on `occurred_at` serves."""
    dated = sa.and_(table.c.business_date >= start, table.c.business_date < end)
    return sa.and_(dated, table.c.occurred_at >= near_day(start, -2), table.c.occurred_at < near_day(end, 2))


def checked(start: Value, end: Value) -> tuple[Value, Value]:
    """The days `[start, end)` as a request gives them, which are refused when it is answered if they are none."""

    def last(both: list[date], _moment: Moment) -> date:
        half_open(*both)
        return both[1]

    return start, start.together(end, "end", sa.Date(), last)


def user_count(channel: Any) -> sa.ScalarSelect[int]:
    """How many users the channel knows: by an identity there, or because they came through it."""
    people = users.alias()
    known = sa.select(identities.c.user_id).where(identities.c.channel_id.in_(subtree(channel)))
    came = sa.select(people.c.id).where(people.c.acquisition_channel_id.in_(subtree(channel)), people.c.merged_into.is_(None))
    return sa.select(sa.func.count()).select_from(sa.union(known, came).subquery()).scalar_subquery()


def acquired(channel: Any) -> sa.ScalarSelect[int]:
    """How many users came through the channel in all."""
    people = users.alias()
    came = people.c.acquisition_channel_id.in_(subtree(channel))
    return sa.select(sa.func.count()).select_from(people).where(came, people.c.merged_into.is_(None)).scalar_subquery()


def new_users(channel: Any, start: Any, end: Any) -> sa.ScalarSelect[int]:
    """Users who came through the channel and whose first event is on one of these days."""
    people = users.alias()
    came = sa.and_(people.c.acquisition_channel_id.in_(subtree(channel)), people.c.merged_into.is_(None))
    day = first_day(people)
    # A user is made when their first event arrives, which is at most a day ahead: nobody made before that is new.
    fresh = sa.and_(people.c.created_at >= near_day(start, -3), day >= start, day < end)
    return sa.select(sa.func.count()).select_from(people).where(came, fresh).scalar_subquery()


def lost_users(channel: Any, start: Any, end: Any) -> sa.ScalarSelect[int]:
    """Distinct users who unfollowed or left on these days."""
    return _distinct(channel, start, end, events.c.type.in_(LOST_TYPES))


def active_users(channel: Any, start: Any, end: Any) -> sa.ScalarSelect[int]:
    """Distinct users who did something there on these days."""
    return _distinct(channel, start, end, shows_person_where())


def buyers(channel: Any, start: Any, end: Any) -> sa.ScalarSelect[int]:
    """Distinct users who paid an order there on these days."""
    return _distinct(channel, start, end, events.c.type == "order.paid")


def orders(channel: Any, start: Any, end: Any) -> sa.ScalarSelect[int]:
    """Orders paid there on these days."""
    return _select(sa.func.count(), channel, start, end, events.c.type == "order.paid")


def revenue(channel: Any, start: Any, end: Any, currency: Any) -> sa.ScalarSelect[int]:
    """Paid less refunded there on these days, minor units of the business currency; other currencies are left out."""
    signed = sa.case((events.c.type == "order.refunded", -events.c.amount_minor), else_=events.c.amount_minor)
    total = sa.cast(sa.func.coalesce(sa.func.sum(signed), 0), sa.BigInteger())
    money = sa.and_(events.c.type.in_(("order.paid", "order.refunded")), events.c.currency == currency)
    return _select(total, channel, start, end, money)


def stats(channel: Any, start: Any, end: Any, currency: Any) -> dict[str, sa.ScalarSelect[int]]:
    """Everything at once, by name: what `ChannelStats` is read from."""
    return {
        "new_users": new_users(channel, start, end),
        "lost_users": lost_users(channel, start, end),
        "active_users": active_users(channel, start, end),
        "buyers": buyers(channel, start, end),
        "orders": orders(channel, start, end),
        "revenue_minor": revenue(channel, start, end, currency),
    }


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """The numbers of one channel over some days; revenue in minor units."""

    new_users: int
    lost_users: int
    active_users: int
    buyers: int
    orders: int
    revenue_minor: int


def channel_stats(tx: Tx, channel_id: uuid.UUID, start: date, end: date, *, currency: str) -> ChannelStats:
    """The channel's numbers, its children's included.

    Raises:
        ScrmError: `INVALID_RANGE`.
    """
    half_open(start, end)
    channel = SimpleNamespace(c=SimpleNamespace(id=sa.literal(channel_id, Id)))
    first, last = sa.literal(start, sa.Date()), sa.literal(end, sa.Date())
    said = stats(channel, first, last, sa.literal(currency))
    row = tx.rows(sa.select(*(number.label(name) for name, number in said.items())))[0]
    return ChannelStats(**row._mapping)


def _distinct(channel: Any, start: Any, end: Any, condition: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return _select(sa.func.count(sa.distinct(events.c.user_id)), channel, start, end, condition)


def _select(what: Any, channel: Any, start: Any, end: Any, condition: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    here = sa.and_(condition, within(events, start, end), events.c.channel_id.in_(subtree(channel)))
    return sa.select(what).select_from(events).where(here).correlate_except(events).scalar_subquery()
