"""What is asked about events, as SQL on an event's or a user's row."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.channels.models import channels
from scrm.errors import ScrmError
from scrm.events.models import events
from scrm.graphql.attributes import matches
from scrm.graphql.filters import operators
from scrm.sql import CURRENCY, Moment, member


def matched(user: Any, given: Any) -> sa.ColumnElement[bool]:
    """The user's events that match: how many (one or more unless said), the newest, and the sum of their amounts in the
    business currency."""
    log = events.alias("matched")
    conditions: list[Any] = [log.c.user_id == user.c.id]
    if given["type"] is not None:
        conditions.append(member(log.c.type, given["type"]))
    if given["within_days"] is not None:
        conditions.append(log.c.business_date > given["within_days"].converted("day", sa.Date(), _day_before))
    if given["since"] is not None:
        conditions.append(log.c.occurred_at >= given["since"])
    if given["until"] is not None:
        conditions.append(log.c.occurred_at < given["until"])
    if given["properties"] is not None:
        conditions.append(matches(log.c.properties, given["properties"]))
    figures = [given["count"], given["latest"], given["amount"]]
    if not any(figures):
        return sa.exists().where(*conditions)
    count, latest = sa.func.count(), sa.func.max(log.c.occurred_at, type_=log.c.occurred_at.type)
    amount = sa.func.coalesce(sa.func.sum(log.c.amount_minor).filter(log.c.currency == CURRENCY), 0)
    wanted = [operators(figure, said) for figure, said in zip((count, latest, amount), figures, strict=True) if said]
    if not given["count"]:
        wanted.append(count > 0)
    return sa.select(sa.and_(*wanted)).select_from(log).where(*conditions).scalar_subquery()


def _day_before(days: int, moment: Moment) -> date:
    if days < 1:
        said = f"withinDays is {days}; expected 1 or more, of which today is the first"
        raise ScrmError("INVALID_FILTER", said, path=("filter",))
    return moment.today - timedelta(days=min(days, 100_000))


def on_channels(event: Any, keys: Any) -> sa.ColumnElement[bool]:
    """Came over one of these channels or a child of one."""
    of_key = sa.select(channels.c.id).where(member(channels.c.key, keys))
    parents = channels.alias("parents")
    of_parent = sa.select(channels.c.id).where(
        channels.c.parent_id.in_(sa.select(parents.c.id).where(member(parents.c.key, keys)))
    )
    return sa.or_(event.c.channel_id.in_(of_key), event.c.channel_id.in_(of_parent))
