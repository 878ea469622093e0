"""What another scheme would make of everybody: today's values, its bounds, one statement; nothing is written.

The question is what a review today would do under that scheme, with nobody's grace left: pins hold, and so does `downgrade`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from scrm.api import ScrmError, Text, Tx, users

from .models import accounts, scheme
from .review import held, reached, summed
from .rules import METRICS, TiersRules


@dataclass(frozen=True, slots=True)
class Move:
    """How many people have one level and would have another; None: no level."""

    before: str | None
    after: str | None
    count: int


def parse_scheme(said: Any, house: TiersRules) -> TiersRules:
    """A scheme as `[plugins.tiers]` says it.

    Raises:
        ScrmError: INVALID_SCHEME, or the code of what is wrong with its levels.
    """
    if not isinstance(said, dict):
        raise ScrmError("INVALID_SCHEME", "scheme is no object; give what [plugins.tiers] would say", path=("scheme",))
    try:
        rules = {name: value for name, value in said.items() if name != "enabled"}
        return TiersRules.model_validate({"currency": house.currency, "timezone": house.timezone, **rules})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        code = first["type"] if first["type"].isupper() else "INVALID_SCHEME"
        path = ("scheme", *map(str, first["loc"]))
        raise ScrmError(code, f"{'.'.join(path)}: {first['msg']}", path=path) from None


def moves(tx: Tx, given: TiersRules, at: datetime) -> list[Move]:
    """How many people go from which level to which, those who stay included, by level."""
    people = _people(given, at).subquery("people")
    number = sa.func.count().label("number")
    grouped = sa.select(people.c.before, people.c.after, number).group_by(people.c.before, people.c.after)
    found = [Move(row.before, row.after, row.number) for row in tx.rows(grouped)]
    return sorted(found, key=lambda move: (move.before or "", move.after or ""))


def movers(
    tx: Tx, given: TiersRules, at: datetime, before: str | None, after: str | None, behind: uuid.UUID | None, limit: int
) -> list[tuple[uuid.UUID, str | None, str | None]]:
    """People whose level would change, by id, those behind one."""
    people = _people(given, at).subquery("people")
    statement = sa.select(people.c.id, people.c.before, people.c.after).where(people.c.before.is_distinct_from(people.c.after))
    if before is not None:
        statement = statement.where(people.c.before == before)
    if after is not None:
        statement = statement.where(people.c.after == after)
    if behind is not None:
        statement = statement.where(people.c.id > behind)
    return [(row.id, row.before, row.after) for row in tx.rows(statement.order_by(people.c.id).limit(limit))]


def _people(given: TiersRules, at: datetime) -> sa.Select[Any]:
    sums = summed(given, given.day(at)).subquery("sums")
    values = [sa.func.coalesce(sums.c[metric], 0) for metric in METRICS]
    base = sa.select(scheme.c.base).scalar_subquery()
    joined = users.outerjoin(accounts, accounts.c.user_id == users.c.id).outerjoin(sums, sums.c.holder_id == users.c.id)
    rank = _reviewed(given, values, at)
    key = sa.case(*((rank == place, sa.literal(level.key, Text)) for place, level in enumerate(given.levels, 1)), else_=sa.null())
    return (
        sa.select(users.c.id, sa.func.coalesce(accounts.c.tier, base, type_=Text).label("before"), key.label("after"))
        .select_from(joined)
        .where(users.c.merged_into.is_(None), users.c.erased_at.is_(None))
    )


def _reviewed(given: TiersRules, values: list[Any], at: datetime) -> sa.ColumnElement[int]:
    has, gets = held(given), reached(given, values)
    if given.downgrade == "NEVER":
        gets = _larger(gets, has)
    elif given.downgrade == "ONE_DOWN":
        gets = _larger(gets, has - 1)
    pinned = accounts.c.pinned_until > sa.literal(at, accounts.c.pinned_until.type)
    pins = [(pinned & (accounts.c.pin == level.key), place) for place, level in enumerate(given.levels, 1)]
    return _larger(_larger(gets, sa.case(*pins, else_=0)), sa.literal(given.base))


def _larger(one: Any, other: Any) -> sa.ColumnElement[int]:
    return sa.case((one >= other, one), else_=other)
