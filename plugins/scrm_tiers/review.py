"""The review of everybody at the end of a period: the database finds whose level would change, and these are reviewed one by
one."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import HandlerTx, Instant, LogEvent, NewFact, Tx, update_rows

from .book import Account, Book, Person
from .events import DUE
from .models import accounts, days
from .periods import last_review, opens_after
from .rows import CHANGING, store_moves
from .rules import METRICS, TiersRules


def due_review(tx: Tx, due: Any, rules: TiersRules) -> list[NewFact]:
    """What the job records: that the newest period is over. The same day again changes nothing."""
    return [review_fact(last_review(rules.review, rules.day(due)), rules)]


def review_fact(day: date, rules: TiersRules) -> NewFact:
    """The event that says a review is due; `day` begins a period."""
    return NewFact(DUE, day.isoformat(), {"day": day.isoformat()}, rules.midnight(day))


def review_all(tx: HandlerTx, event: LogEvent, until: date, rules: TiersRules) -> None:
    """Do all reviews that are not done, period by period, each as of its own last day."""
    while True:
        oldest: date | None = tx.scalar(
            sa.select(sa.func.min(accounts.c.reviewed_on)).where(_own(), accounts.c.reviewed_on < until)
        )
        if oldest is None:
            return
        due = rules.review_after(oldest)
        if due > until:
            return
        _review(tx, event, due, rules)


def _own() -> sa.ColumnElement[bool]:
    return accounts.c.user_id == accounts.c.holder_id


def _review(tx: HandlerTx, event: LogEvent, due: date, rules: TiersRules) -> None:
    book = Book(rules)
    touched = []
    for row in tx.rows(candidates(rules, due)):
        values = tuple(row._mapping[metric] for metric in METRICS)
        main = Account(**{name: value for name, value in row._mapping.items() if name not in METRICS})
        book.review(Person(main), event, due, (values[0], values[1], values[2], values[3]))
        touched.append(asdict(main))
    update_rows(tx, accounts, CHANGING, touched)
    _pass_the_others(tx, due, rules)
    store_moves(tx, book)


def candidates(rules: TiersRules, due: date) -> sa.Select[Any]:
    """Everybody whose row a review would change by more than its date, with their values as of the day before."""
    sums = summed(rules, due - timedelta(days=1)).subquery("sums")
    values = [sa.func.coalesce(sums.c[metric], 0).label(metric) for metric in METRICS]
    other = reached(rules, values) != held(rules)
    gone = accounts.c.tier.is_not(None) & accounts.c.tier.not_in([level.key for level in rules.levels])
    changes = sa.or_(other, gone, accounts.c.failures > 0, accounts.c.pin.is_not(None))
    return (
        sa.select(accounts, *values)
        .select_from(accounts.outerjoin(sums, sums.c.holder_id == accounts.c.holder_id))
        .where(_own(), accounts.c.reviewed_on < due, changes)
        .order_by(accounts.c.id)
        .with_for_update(of=accounts)
    )


def summed(rules: TiersRules, day: date) -> sa.Select[Any]:
    """Everybody's values as of a day, by `holder_id`."""
    known = sa.and_(days.c.counted_on > opens_after(rules.window, day), days.c.counted_on <= day, days.c.known_on <= day)
    sums = [sa.cast(sa.func.sum(days.c[metric]), sa.BigInteger).label(metric) for metric in METRICS]
    joined = days.join(accounts, accounts.c.id == days.c.account_id)
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


def _pass_the_others(tx: Tx, due: date, rules: TiersRules) -> None:
    """Everybody else was reviewed too, and keeps the level."""
    sure = rules.midnight(rules.review_after(due, 1 + rules.grace))
    falling = [level.key for level in rules.levels[rules.base :]] if rules.downgrade != "NEVER" else []
    until = sa.case((accounts.c.tier.in_(falling), sa.literal(sure, Instant())), else_=sa.null())
    statement = sa.update(accounts).where(_own(), accounts.c.reviewed_on < due)
    tx.execute(statement.values(reviewed_on=due, valid_until=until))
