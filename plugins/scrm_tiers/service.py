"""Which level a person has and what is missing for the next, as SQL on the person's row; and the decisions on it.

Values are summed as of the request's business day. `user` has `.c.id`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from scrm.api import NOW, TODAY, Fact, Text, Tx, UserError, exported, hookimpl, instant_text, of_moment, users

from .models import accounts, benefits, bounds, days, levels, orders, scheme, transition_values, transitions
from .periods import CALENDAR, ROLLING, last_review, year_before, year_end_before
from .review import left, next_part
from .rules import METRICS, TiersRules

LARGEST_GRANT = 1_000_000_000
A_YEAR_AGO = of_moment("tiers_a_year_ago", sa.Date(), lambda moment: year_before(moment.today))
LAST_YEAR = of_moment("tiers_last_year", sa.Date(), lambda moment: year_end_before(moment.today))


def _of_scheme(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.select(column).correlate(None).scalar_subquery()


def _on_account(user: Any, column: Any) -> sa.ColumnElement[Any]:
    return sa.select(column).where(accounts.c.user_id == user.c.id).correlate(None).scalar_subquery()


def tier_key(user: Any) -> sa.ColumnElement[str]:
    """Key of the level that the person has; null for none."""
    return sa.func.coalesce(_on_account(user, accounts.c.tier), _of_scheme(scheme.c.base), type_=Text)


def tier_rank(user: Any) -> sa.ColumnElement[int]:
    """The level's place from 1, the lowest; 0 for none. One that the scheme does not have any more is as the one that everybody
    has."""
    mine, base = (
        sa.select(levels.c.rank).where(levels.c.key == key, levels.c.rank > 0).correlate(None).scalar_subquery()
        for key in (tier_key(user), _of_scheme(scheme.c.base))
    )
    return sa.func.coalesce(mine, base, 0, type_=sa.Integer())


def has_tier(user: Any, level: Any) -> sa.ColumnElement[bool]:
    """The level is the person's."""
    return sa.cast(level.c.key == tier_key(user), sa.Boolean())


def is_next(user: Any, level: Any) -> sa.ColumnElement[bool]:
    """The level is the one above the person's."""
    return sa.cast(level.c.rank == tier_rank(user) + 1, sa.Boolean())


def since(user: Any) -> sa.ColumnElement[datetime]:
    """When the person got the level."""
    return _on_account(user, accounts.c.since)


def valid_until(user: Any) -> sa.ColumnElement[datetime]:
    """The first review at which the level may fall."""
    return _on_account(user, accounts.c.valid_until)


def pinned_until(user: Any) -> sa.ColumnElement[datetime]:
    """The end of the level given by hand, if it is to come."""
    return _on_account(user, sa.case((accounts.c.pinned_until > NOW, accounts.c.pinned_until), else_=sa.null()))


def growth(user: Any) -> sa.ColumnElement[int]:
    """Growth value in the window."""
    return _summed(user, days.c.growth)


def _summed(user: Any, column: sa.Column[int]) -> sa.ColumnElement[int]:
    window = _of_scheme(scheme.c.window_kind)
    after = sa.case((window == ROLLING, A_YEAR_AGO), (window == CALENDAR, LAST_YEAR), else_=sa.literal(date(1, 1, 1), sa.Date()))
    mine = sa.select(sa.func.sum(column)).join(accounts, accounts.c.id == days.c.account_id)
    counted = (days.c.counted_on > after, days.c.counted_on <= TODAY, days.c.known_on <= TODAY)
    found = mine.where(accounts.c.holder_id == user.c.id, *counted).correlate(None).scalar_subquery()
    return sa.cast(sa.func.coalesce(found, 0), sa.BigInteger)


def _value(user: Any, metric: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
    return sa.case(*((metric == name.upper(), _summed(user, days.c[name])) for name in METRICS), else_=0)


def is_projected(user: Any, level: Any) -> sa.ColumnElement[bool]:
    """The level is the highest that today's values reach."""
    met = bounds.c.bound <= _value(user, bounds.c.metric)
    some = sa.exists().where(bounds.c.level == levels.c.key, met).correlate(levels)
    missed = sa.exists().where(bounds.c.level == levels.c.key, sa.not_(met)).correlate(levels)
    reached = sa.case((_of_scheme(scheme.c.match_kind) == "ANY", some), else_=sa.not_(missed))
    highest = sa.select(levels.c.key).where(levels.c.rank > 0, reached).order_by(levels.c.rank.desc()).limit(1)
    return sa.cast(level.c.key == highest.correlate(None).scalar_subquery(), sa.Boolean())


def progress(user: Any) -> sa.Select[Any]:
    """Each metric with the person's value and what the next level asks for: `metric`, `place`, `value`, `required`, `remaining`,
    `currency`."""
    asked, above = bounds.alias("asked"), bounds.alias("above")
    key = sa.select(levels.c.key).where(levels.c.rank == tier_rank(user) + 1).correlate(None).scalar_subquery()
    value = _value(user, asked.c.metric)
    remaining = sa.case((above.c.bound > value, above.c.bound - value), (above.c.bound.is_not(None), 0), else_=sa.null())
    return (
        sa.select(
            asked.c.metric.label("metric"),
            asked.c.place.label("place"),
            value.label("value"),
            above.c.bound.label("required"),
            sa.cast(remaining, sa.BigInteger).label("remaining"),
            _of_scheme(scheme.c.currency).label("currency"),
        )
        .select_from(asked.outerjoin(above, sa.and_(above.c.metric == asked.c.metric, above.c.level == key)))
        .where(asked.c.level == _of_scheme(scheme.c.lowest))
    )


def progress_then(transition: Any) -> sa.Select[Any]:
    """The same as it was at a transition; `required` is what the new level asked for."""
    kept = transition_values.c
    remaining = sa.case(
        (kept.required > kept.value, kept.required - kept.value), (kept.required.is_not(None), 0), else_=sa.null()
    )
    return sa.select(
        kept.metric, kept.place, kept.value, kept.required, sa.cast(remaining, sa.BigInteger).label("remaining"), kept.currency
    ).where(kept.transition_id == transition.c.id)


def thresholds(level: Any) -> sa.Select[Any]:
    """What a level asks for: `metric`, `place`, `value`."""
    asked = sa.select(bounds.c.metric, bounds.c.place, bounds.c.bound.label("value"))
    return asked.where(bounds.c.level == level.c.key)


def given(level: Any) -> sa.Select[Any]:
    """What a level gives: `place`, `key`, `name`, `names`, `value`."""
    columns = (benefits.c.place, benefits.c.key, benefits.c.name, benefits.c.names, benefits.c.value)
    return sa.select(*columns).where(benefits.c.level == level.c.key)


def member_count(level: Any) -> sa.ColumnElement[int]:
    """How many people have a level."""
    theirs = sa.func.coalesce(accounts.c.tier, _of_scheme(scheme.c.base), type_=Text)
    joined = users.outerjoin(accounts, accounts.c.user_id == users.c.id)
    there = (users.c.merged_into.is_(None), users.c.erased_at.is_(None), theirs == level.c.key)
    return sa.select(sa.func.count()).select_from(joined).where(*there).correlate(None).scalar_subquery()


def holder(transition: Any) -> sa.ColumnElement[uuid.UUID]:
    """Whose transition it is now."""
    mine = sa.select(accounts.c.holder_id).where(accounts.c.id == transition.c.account_id)
    return mine.correlate(None).scalar_subquery()


def transitions_of(user: Any, transition: Any) -> sa.ColumnElement[bool]:
    """The transition is one of this person's."""
    own = sa.select(accounts.c.id).where(accounts.c.holder_id == user.c.id).correlate(None)
    within: sa.ColumnElement[bool] = transition.c.account_id.in_(own)
    return within


def set_tier(tx: Tx, input: Mapping[str, Any], rules: TiersRules, at: datetime) -> Fact | UserError:
    """Give a level by hand.

    Refuses with UNKNOWN_TIER or INVALID_EXPIRY.
    """
    until = datetime.fromisoformat(input["until"])
    if not rules.rank(input["tier"]):
        known = ", ".join(level.key for level in rules.levels)
        message = f"tier is {input['tier']!r}; the scheme has {known}"
        return UserError("UNKNOWN_TIER", message, ("tier",), {"tier": input["tier"]})
    if until <= at:
        message = f"until is {instant_text(until)}, which has passed; say when the level ends"
        return UserError("INVALID_EXPIRY", message, ("until",), {"until": instant_text(until)})
    said = {"tier": input["tier"], "until": instant_text(until), "reason": input["reason"]}
    return Fact(uuid.UUID(input["userId"]), said)


def clear_tier(tx: Tx, input: Mapping[str, Any], rules: TiersRules, at: datetime) -> Fact | UserError:
    """Take back a level that was given by hand.

    Refuses with TIER_NOT_SET.
    """
    user = uuid.UUID(input["userId"])
    row = tx.row(sa.select(accounts.c.pinned_until).where(accounts.c.user_id == user).with_for_update())
    if row is None or row.pinned_until is None or row.pinned_until <= at:
        return UserError("TIER_NOT_SET", "the person has no level given by hand now; there is nothing to take back", ("userId",))
    return Fact(user, {"reason": input["reason"]})


def grant_growth(tx: Tx, input: Mapping[str, Any], rules: TiersRules, at: datetime) -> Fact | UserError:
    """Give growth value by hand.

    Refuses with INVALID_GROWTH.
    """
    growth = input["growth"]
    if not 1 <= growth <= LARGEST_GRANT:
        message = f"growth is {growth}; give 1 to {LARGEST_GRANT}"
        return UserError("INVALID_GROWTH", message, ("growth",), {"growth": growth})
    return Fact(uuid.UUID(input["userId"]), {"growth": growth, "reason": input["reason"]})


def review_tiers(tx: Tx, input: Mapping[str, Any], rules: TiersRules, at: datetime) -> Fact | UserError:
    """Say that the newest period is over, for those who were not reviewed yet: as many as one event reviews.

    Refuses with REVIEW_IN_THE_FUTURE.
    """
    as_of = datetime.fromisoformat(input["asOf"]) if input["asOf"] is not None else at
    if as_of > at:
        message = f"asOf is {instant_text(as_of)}, which is to come; a period is reviewed when it is over"
        return UserError("REVIEW_IN_THE_FUTURE", message, ("asOf",), {"asOf": instant_text(as_of)})
    day = last_review(rules.review, rules.day(as_of))
    part = next_part(tx, day)
    return Fact(None, {"day": day.isoformat(), "last": part[-1].hex if part else uuid.UUID(int=0).hex})


def reviewed(tx: Tx, event_id: uuid.UUID, day: date) -> tuple[int, int]:
    """How many levels a review changed, and how many are still to be reviewed."""
    return int(tx.scalar(sa.select(sa.func.count()).where(transitions.c.event_id == event_id))), left(tx, day)


@hookimpl
def count(tx: Tx, user: uuid.UUID) -> int:
    """How many days, orders and changes of level hang on a person."""
    own = sa.select(accounts.c.id).where(accounts.c.holder_id == user)
    parts = [
        sa.select(sa.func.count()).select_from(table).where(table.c.account_id.in_(own)).scalar_subquery()
        for table in (days, orders, transitions)
    ]
    return sum(tx.rows(sa.select(*parts))[0])


@hookimpl
def export(tx: Tx, user: uuid.UUID) -> dict[str, list[dict[str, Any]]]:
    """A person's level, its changes, and what was counted, oldest first."""
    own = sa.select(accounts.c.id).where(accounts.c.holder_id == user)
    asked = {
        "membership": sa.select(accounts).where(accounts.c.holder_id == user).order_by(accounts.c.id),
        "transitions": sa.select(transitions)
        .where(transitions.c.account_id.in_(own))
        .order_by(transitions.c.at, transitions.c.number, transitions.c.id),
        "days": sa.select(days).where(days.c.account_id.in_(own)).order_by(days.c.counted_on, days.c.known_on, days.c.account_id),
        "orders": sa.select(orders).where(orders.c.account_id.in_(own)).order_by(orders.c.counted_on, orders.c.id),
    }
    return exported(tx, asked)
