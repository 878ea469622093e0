"""The review of everybody at the end of a period: the database finds whose level would change, and these are reviewed one by
one."""

from __future__ import annotations

import uuid
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import HandlerTx, Instant, LogEvent, NewFact, Text, Tx, as_row, update_rows

from .book import NOTHING, Account, Book, Person
from .events import DUE
from .models import accounts, days
from .periods import last_review, opens_after
from .rows import CHANGING, store_moves
from .rules import METRICS, TiersRules, Values

PART = 20_000
"""How many people one event reviews; the others are reviewed with the next."""
AFTER_MIDNIGHT = timedelta(minutes=15)
"""When the job finds that a period is over, so that what its last minutes brought is there."""


def due_review(tx: Tx, due: datetime, rules: TiersRules) -> list[NewFact]:
    """What the job records: whose reviews are due now, a part at a time. The same part again changes nothing."""
    day = last_review(rules.review, rules.day(due - AFTER_MIDNIGHT))
    part = next_part(tx, day)
    if not part:
        return []
    key = f"{day.isoformat()}:{part[0].hex}:{part[-1].hex}"
    return [NewFact(DUE, key, {"day": day.isoformat(), "last": part[-1].hex}, rules.midnight(day))]


def next_part(tx: Tx, day: date) -> list[uuid.UUID]:
    """The first of the accounts that were not reviewed on a day, by id."""
    waiting = sa.select(accounts.c.id).where(*_waiting(day)).order_by(accounts.c.id).limit(PART)
    return [row.id for row in tx.rows(waiting)]


def left(tx: Tx, day: date) -> int:
    """How many accounts were not reviewed on a day."""
    return int(tx.scalar(sa.select(sa.func.count()).select_from(accounts).where(*_waiting(day))))


def _waiting(day: date, last: uuid.UUID | None = None) -> list[sa.ColumnElement[bool]]:
    up_to = [accounts.c.id <= last] if last is not None else []
    return [accounts.c.user_id == accounts.c.holder_id, accounts.c.reviewed_on < day, *up_to]


def review_part(tx: HandlerTx, event: LogEvent, rules: TiersRules) -> None:
    """Do the reviews up to a day that a part of the accounts lacks, period by period, each as of its own last day."""
    until, last = date.fromisoformat(event.properties["day"]), uuid.UUID(event.properties["last"])
    while True:
        oldest: date | None = tx.scalar(sa.select(sa.func.min(accounts.c.reviewed_on)).where(*_waiting(until, last)))
        if oldest is None or (due := rules.review_after(oldest)) > until:
            return
        _review(tx, event, due, last, rules)


def _review(tx: HandlerTx, event: LogEvent, due: date, last: uuid.UUID, rules: TiersRules) -> None:
    book = Book(rules)
    touched = []
    found = tx.rows(candidates(rules, due, last))
    ahead = _ahead(tx, rules, due, last) if any(row.seen_on >= due for row in found) else {}
    for row in found:
        main = Account(**{name: value for name, value in row._mapping.items() if name not in METRICS})
        book.review(Person(main), event, due, _values(row), ahead.get(main.holder_id, NOTHING))
        touched.append(as_row(main))
    update_rows(tx, accounts, CHANGING, touched)
    _pass_the_others(tx, due, last, rules)
    store_moves(tx, book)


def _ahead(tx: Tx, rules: TiersRules, due: date, last: uuid.UUID) -> dict[uuid.UUID, Values]:
    """The values as of the day of the review, by `holder_id`, of those of whom something that is dated then is known already."""
    among = sa.select(accounts.c.holder_id).where(*_waiting(due, last), accounts.c.seen_on >= due)
    return {row.holder_id: _values(row) for row in tx.rows(summed(rules, due, among))}


def _values(row: Any) -> Values:
    return row.spend, row.orders, row.points_earned, row.growth


def candidates(rules: TiersRules, due: date, last: uuid.UUID) -> sa.Select[Any]:
    """Everybody whose row a review would change by more than its date, with their values as of the day before."""
    waiting = _waiting(due, last)
    sums = summed(rules, due - timedelta(days=1), sa.select(accounts.c.holder_id).where(*waiting)).subquery("sums")
    values = [sa.func.coalesce(sums.c[metric], 0).label(metric) for metric in METRICS]
    other = reached(rules, values) != held(rules)
    gone = accounts.c.tier.is_not(None) & accounts.c.tier.not_in([level.key for level in rules.levels])
    unsaid = accounts.c.announced.is_distinct_from(given(rules))
    changes = sa.or_(other, gone, unsaid, accounts.c.failures > 0, accounts.c.pin.is_not(None))
    return (
        sa.select(accounts, *values)
        .select_from(accounts.outerjoin(sums, sums.c.holder_id == accounts.c.holder_id))
        .where(*waiting, changes)
        .order_by(accounts.c.id)
        .with_for_update(of=accounts)
    )


def summed(rules: TiersRules, day: date, among: sa.Select[Any] | None = None) -> sa.Select[Any]:
    """People's values as of a day, by `holder_id`: everybody's, or of those `among` whom they are."""
    known = sa.and_(days.c.counted_on > opens_after(rules.window, day), days.c.counted_on <= day, days.c.known_on <= day)
    sums = [sa.cast(sa.func.sum(days.c[metric]), sa.BigInteger).label(metric) for metric in METRICS]
    joined = days.join(accounts, accounts.c.id == days.c.account_id)
    if among is not None:
        known &= accounts.c.holder_id.in_(among.correlate(None))
    return sa.select(accounts.c.holder_id, *sums).select_from(joined).where(known).group_by(accounts.c.holder_id)


def reached(rules: TiersRules, values: list[Any]) -> sa.ColumnElement[int]:
    """The rank that these values reach, as `TiersRules.reached` says it."""
    join = sa.and_ if rules.match == "ALL" else sa.or_
    whens = []
    for rank in range(len(rules.levels), 0, -1):
        asked = rules.levels[rank - 1].bounds
        met = [value >= asked[metric] for metric, value in zip(METRICS, values, strict=True) if metric in asked]
        whens.append((join(*met), rank))
    return sa.case(*whens, else_=0)


def held(rules: TiersRules) -> sa.ColumnElement[int]:
    """The rank of the level that an account was given, as `TiersRules.held` says it."""
    given = [(accounts.c.tier == level.key, rank) for rank, level in enumerate(rules.levels, 1)]
    return sa.case(*given, else_=rules.base)


def given(rules: TiersRules) -> sa.ColumnElement[str]:
    """What the level of an account gives, as `TiersRules.gives` says it."""
    given = [(accounts.c.tier == level.key, sa.literal(rules.gives(rank), Text)) for rank, level in enumerate(rules.levels, 1)]
    return sa.case(*given, else_=sa.literal(rules.gives(rules.base), Text))


def _pass_the_others(tx: Tx, due: date, last: uuid.UUID, rules: TiersRules) -> None:
    """Everybody else was reviewed too, and keeps the level."""
    sure = rules.midnight(rules.review_after(due, 1 + rules.grace))
    falling = [level.key for level in rules.levels[rules.base :]] if rules.downgrade != "NEVER" else []
    until = sa.case((accounts.c.tier.in_(falling), sa.literal(sure, Instant())), else_=sa.null())
    statement = sa.update(accounts).where(*_waiting(due, last))
    tx.execute(statement.values(reviewed_on=due, valid_until=until))
