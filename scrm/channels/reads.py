"""What is asked about channels, as SQL on a channel's row. A channel's figures include its children's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from scrm.channels.models import channels
from scrm.events.models import events
from scrm.sql import CURRENCY, Value, member, position_of
from scrm.users.models import identities, users

LOST = ("user.unfollowed", "group.left")


def below(channel: Any) -> sa.Select[Any]:
    """The ids of a channel and of all channels below it."""
    tree = sa.select(channel.c.id.label("id")).cte("tree", recursive=True, nesting=True)
    child = channels.alias("child")
    tree = tree.union_all(sa.select(child.c.id).where(child.c.parent_id == tree.c.id))
    return sa.select(tree.c.id)


def user_count(channel: Any) -> sa.ColumnElement[int]:
    """Users with an identity on it, or who came through it or a child."""
    known = sa.select(identities.c.user_id.label("id")).where(identities.c.channel_id == channel.c.id)
    came = sa.select(users.c.id).where(users.c.acquisition_channel_id.in_(below(channel)), users.c.merged_into.is_(None))
    return sa.select(sa.func.count()).select_from(known.union(came).alias("both")).scalar_subquery()


def acquired(channel: Any) -> sa.ColumnElement[int]:
    """Users who came through it or a child, ever."""
    came = users.c.acquisition_channel_id.in_(below(channel))
    return sa.select(sa.func.count()).select_from(users).where(came, users.c.merged_into.is_(None)).scalar_subquery()


def channel_search(channel: Any, text: Value) -> sa.ColumnElement[bool]:
    """Name or key contains the text."""
    return sa.or_(position_of(text, channel.c.name) > 0, position_of(text, channel.c.key) > 0)


def child_of(channel: Any, keys: Value) -> sa.ColumnElement[bool]:
    """Directly below one of these channels."""
    return channel.c.parent_id.in_(sa.select(channels.c.id).where(member(channels.c.key, keys)))


def stats(channel: Any, start: Any, end: Any) -> Mapping[str, sa.ColumnElement[Any]]:
    """New, lost and active users, buyers, orders and revenue over business days `[start, end)`; revenue in minor units of the business currency."""
    here = [events.c.channel_id.in_(below(channel)), events.c.business_date >= start, events.c.business_date < end]

    def people(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
        return sa.select(sa.func.count(sa.distinct(events.c.user_id))).where(*here, *conditions).scalar_subquery()

    paid = events.c.type == "order.paid"
    signed = sa.case((paid, events.c.amount_minor), else_=-events.c.amount_minor)
    money = sa.and_(events.c.type.in_(["order.paid", "order.refunded"]), events.c.currency == CURRENCY)
    revenue = sa.select(sa.cast(sa.func.coalesce(sa.func.sum(signed), 0), sa.BigInteger)).where(*here, money).scalar_subquery()
    first = sa.func.min(events.c.business_date)
    came = sa.and_(users.c.acquisition_channel_id.in_(below(channel)), users.c.merged_into.is_(None))
    firsts = sa.select(users.c.id).select_from(users.join(events, events.c.user_id == users.c.id)).where(came).group_by(users.c.id)
    new = firsts.having(first >= start, first < end).alias("new")
    return {
        "new_users": sa.select(sa.func.count()).select_from(new).scalar_subquery(),
        "lost_users": people(events.c.type.in_(LOST)),
        "active_users": people(),
        "buyers": people(paid),
        "orders": sa.select(sa.func.count()).where(*here, paid).scalar_subquery(),
        "revenue_minor": revenue,
    }
