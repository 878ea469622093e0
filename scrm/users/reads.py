"""What is asked about users, as SQL on a user's row."""

from __future__ import annotations

import calendar
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from scrm.channels.models import channels
from scrm.db import Text
from scrm.errors import ScrmError
from scrm.sql import ListOf, Moment, Value, member
from scrm.users.models import identities, users


class month_day(FunctionElement[str]):
    """`MM-DD` of a date."""

    type = Text
    inherit_cache = True


@compiles(month_day, "postgresql")
def _month_day_postgresql(element: month_day, compiler: Any, **kw: Any) -> str:
    return f"to_char({compiler.process(element.clauses, **kw)}, 'MM-DD')"


@compiles(month_day, "sqlite")
def _month_day_sqlite(element: month_day, compiler: Any, **kw: Any) -> str:
    return f"substr({compiler.process(element.clauses, **kw)}, 6, 5)"


def birthday_within(user: Any, days: Value) -> sa.ColumnElement[bool]:
    """The next birthday is today or within so many days; 29 February is kept on the 28th in other years."""
    return member(month_day(user.c.birthday), days.converted("days", ListOf(Text), coming_days))


def coming_days(days: int, moment: Moment) -> list[str]:
    """`MM-DD` of today and the days that follow.

    Raises:
        ScrmError: INVALID_FILTER for less than none.
    """
    if days < 0:
        said = f"birthdayWithinDays is {days}; expected 0, which is today, or more"
        raise ScrmError("INVALID_FILTER", said, path=("filter",))
    found = []
    for number in range(min(days, 366) + 1):
        day: date = moment.today + timedelta(days=number)
        found.append(day.strftime("%m-%d"))
        if (day.month, day.day) == (2, 28) and not calendar.isleap(day.year):
            found.append("02-29")
    return found


def acquired_through(user: Any, keys: Value) -> sa.ColumnElement[bool]:
    """Came through one of these channels."""
    found: sa.ColumnElement[bool] = user.c.acquisition_channel_id.in_(
        sa.select(channels.c.id).where(member(channels.c.key, keys))
    )
    return found


def on_channel(user: Any, keys: Value) -> sa.ColumnElement[bool]:
    """Has an identity on one of these channels, or on the root of one of them."""
    of_key = sa.select(channels.c.id).where(member(channels.c.key, keys))
    return sa.exists().where(identities.c.user_id == user.c.id, identities.c.channel_id.in_(of_key))


def survivor_of(key: Any) -> sa.ColumnElement[Any]:
    """The id itself, or of the user that it was merged into."""
    old = users.alias("old")
    return sa.func.coalesce(
        sa.select(old.c.merged_into).where(old.c.id == key).scalar_subquery(), sa.type_coerce(key, users.c.id.type)
    )


def owner_of_identity(channel: Any, external_id: Any) -> sa.ColumnElement[Any]:
    """The id of the user known by this identity; a child channel's identities are its root's."""
    up = sa.select(channels.c.id, channels.c.parent_id).where(channels.c.key == channel).cte("up", recursive=True, nesting=True)
    above = channels.alias("above")
    up = up.union_all(sa.select(above.c.id, above.c.parent_id).where(above.c.id == up.c.parent_id))
    known = sa.and_(identities.c.channel_id.in_(sa.select(up.c.id)), identities.c.external_id == external_id)
    return sa.select(identities.c.user_id).where(known).limit(1).scalar_subquery()


def among(user: Any, ids: Any) -> sa.ColumnElement[bool]:
    """One of these users, or who one of them was merged into."""
    old = users.alias("old")
    survivors = sa.select(old.c.merged_into).where(member(old.c.id, ids), old.c.merged_into.is_not(None))
    return sa.or_(member(user.c.id, ids), user.c.id.in_(survivors))
