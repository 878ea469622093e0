"""What budgets and lines come to, as SQL on their rows.

A commitment keeps its money until before its deadline, and a line has what it takes over from the day on which the budget before
is closed, so every number is right without a job having run.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from scrm.api import NOW, TODAY, Tx, days_between, exported, hookimpl

from .models import budgets, commitments, entries, lines, people, revenue, sources


def whole(expression: Any) -> sa.ColumnElement[int]:
    """A sum as a whole number; 0 for nothing."""
    return sa.cast(sa.func.coalesce(expression, 0), sa.BigInteger)


# ---- of a line: `line` has the columns of `lines`


def closed(budget: Any, day: Any = TODAY) -> sa.ColumnElement[bool]:
    """Whether a budget is closed on a day."""
    early = sa.and_(budget.c.closed_on.is_not(None), budget.c.closed_on <= day)
    return sa.or_(budget.c.closes_on <= day, early)


def carried(line: Any, day: Any = TODAY) -> sa.ColumnElement[int]:
    """What a line has from the one before: nothing while that is open."""
    mine, before = budgets.alias(), budgets.alias()
    over = sa.exists().where(mine.c.id == line.c.budget_id, before.c.id == mine.c.previous_id, closed(before, day))
    return sa.cast(sa.case((over.correlate_except(mine, before), line.c.carrying), else_=0), sa.BigInteger)


def committed(line: Any, at: Any = NOW) -> sa.ColumnElement[int]:
    """What commitments keep now."""
    left = commitments.c.amount - commitments.c.spent - commitments.c.released
    over = sa.select(sa.func.sum(left)).where(
        commitments.c.line_id == line.c.id, commitments.c.state == "OPEN", commitments.c.expires_at <= at
    )
    ended: sa.ColumnElement[int] = whole(over.correlate_except(commitments).scalar_subquery())
    kept: sa.ColumnElement[int] = line.c.committed - ended
    return kept


def available(line: Any, at: Any = NOW, day: Any = TODAY) -> sa.ColumnElement[int]:
    """What can be committed or spent: allocated + carried - committed - spent."""
    left: sa.ColumnElement[int] = carried(line, day) - committed(line, at) + line.c.allocated - line.c.spent
    return left


def currency(line: Any) -> sa.ColumnElement[str]:
    """The currency of a line, or of anything else that has a budget."""
    of_budget = sa.select(budgets.c.currency).where(budgets.c.id == line.c.budget_id)
    return of_budget.correlate_except(budgets).scalar_subquery()


def currency_of_line(row: Any) -> sa.ColumnElement[str]:
    """The currency of something that has a line."""
    joined = sa.select(budgets.c.currency).join(lines, lines.c.budget_id == budgets.c.id).where(lines.c.id == row.c.line_id)
    return joined.correlate_except(budgets, lines).scalar_subquery()


def of_visible_line(row: Any, line: Any) -> sa.ColumnElement[bool]:
    """Whether a row is of a line, which the reserve is not."""
    mine: sa.ColumnElement[bool] = sa.and_(line.c.id == row.c.line_id, line.c.place > 0)
    return mine


def variance(line: Any) -> sa.ColumnElement[int]:
    """What was spent less what was planned."""
    return sa.cast(line.c.spent - line.c.planned, sa.BigInteger)


def needs_cause(line: Any) -> sa.ColumnElement[bool]:
    """Whether a variance wants a cause: none was given, it is large, and it cannot shrink any more by spending."""
    mine = budgets.alias()
    large = sa.func.abs(variance(line)) * 100 >= mine.c.cause_percent * line.c.planned
    final = sa.or_(variance(line) > 0, mine.c.ends_on <= TODAY, closed(mine))
    asks = sa.exists().where(mine.c.id == line.c.budget_id, large, final, line.c.planned > 0, line.c.cause.is_(None))
    return asks.correlate_except(mine)


# ---- of a budget: `budget` has the columns of `budgets`


def over_lines(amount: Callable[[Any], Any], *conditions: Callable[[Any], Any]) -> Callable[[Any], sa.ColumnElement[int]]:
    """A sum over the lines of a budget."""

    def build(budget: Any) -> sa.ColumnElement[int]:
        own = lines.alias()
        held = [own.c.budget_id == budget.c.id, *(condition(own) for condition in conditions)]
        return whole(sa.select(sa.func.sum(amount(own))).where(*held).correlate_except(own).scalar_subquery())

    return build


total = over_lines(lambda line: line.c.allocated)
reserve = over_lines(available, lambda line: line.c.place == 0)
budget_committed = over_lines(committed)
budget_spent = over_lines(lambda line: line.c.spent)
budget_carried = over_lines(carried)
budget_available = over_lines(available)


def status(budget: Any) -> sa.ColumnElement[str]:
    """CLOSED from the day on which it closes or somebody closed it, before its first day PLANNED, else OPEN."""
    return sa.case((closed(budget), "CLOSED"), (budget.c.opens_on > TODAY, "PLANNED"), else_="OPEN")


def active_on(budget: Any, day: Any) -> sa.ColumnElement[bool]:
    """Whether a day is one of the budget's."""
    inside: sa.ColumnElement[bool] = sa.and_(budget.c.opens_on <= day, budget.c.ends_on > day)
    return inside


def elapsed_days(budget: Any) -> sa.ColumnElement[int]:
    """How many of its days have begun; 0 before the first."""
    gone = days_between(budget.c.opens_on, TODAY) + 1
    return sa.case((gone <= 0, 0), (budget.c.ends_on <= TODAY, all_days(budget)), else_=gone)


def all_days(budget: Any) -> sa.ColumnElement[int]:
    """How many days it has."""
    return days_between(budget.c.opens_on, budget.c.ends_on)


def forecast(budget: Any) -> sa.ColumnElement[int]:
    """What is spent at its end if it goes on as so far, rounded to the nearest; null before its first day."""
    gone, spent = elapsed_days(budget), budget_spent(budget)
    told = sa.cast(spent * all_days(budget) * 2 + gone, sa.BigInteger) // (gone * 2)
    return sa.case((gone > 0, sa.cast(told, sa.BigInteger)), else_=sa.null())


def names_channel(line: Any, channel: Any) -> sa.ColumnElement[bool]:
    """Whether a line names a channel."""
    said = sa.exists().where(sources.c.line_id == line.c.id, sources.c.channel_id == channel.c.id)
    return said.correlate_except(sources)


def holder(row: Any) -> sa.ColumnElement[uuid.UUID]:
    """Whose a row with a `person_id` is now; null where it is nobody's."""
    mine = sa.select(people.c.holder_id).where(people.c.id == row.c.person_id)
    return mine.correlate_except(people).scalar_subquery()


def commitment_state(row: Any) -> sa.ColumnElement[str]:
    """What became of a commitment: EXPIRED once its deadline is over."""
    return sa.case((sa.and_(row.c.state == "OPEN", row.c.expires_at <= NOW), "EXPIRED"), else_=row.c.state)


def commitment_left(row: Any) -> sa.ColumnElement[int]:
    """What a commitment keeps now."""
    keeps = sa.and_(row.c.state == "OPEN", row.c.expires_at > NOW)
    return sa.case((keeps, row.c.amount - row.c.spent - row.c.released), else_=0)


# ---- people


def _accounts(user: uuid.UUID) -> sa.Select[Any]:
    return sa.select(people.c.id).where(people.c.holder_id == user)


@hookimpl
def count(tx: Tx, user: uuid.UUID) -> int:
    """How many entries, commitments and payments hang on a person."""
    parts = [
        sa.select(sa.func.count()).select_from(table).where(table.c.person_id.in_(_accounts(user))).scalar_subquery()
        for table in (entries, commitments, revenue)
    ]
    return sum(tx.rows(sa.select(*parts))[0])


@hookimpl
def export(tx: Tx, user: uuid.UUID) -> dict[str, list[dict[str, Any]]]:
    """What was spent on a person, what the person paid, and the last touch, oldest first."""
    own = _accounts(user)
    return exported(
        tx,
        {
            "accounts": sa.select(people).where(people.c.holder_id == user).order_by(people.c.id),
            "entries": sa.select(entries).where(entries.c.person_id.in_(own)).order_by(entries.c.occurred_at, entries.c.id),
            "commitments": sa.select(commitments)
            .where(commitments.c.person_id.in_(own))
            .order_by(commitments.c.created_at, commitments.c.id),
            "revenue": sa.select(revenue).where(revenue.c.person_id.in_(own)).order_by(revenue.c.occurred_at, revenue.c.id),
        },
    )


def then(at: datetime) -> Any:
    """An instant as a statement takes it."""
    return sa.literal(at, entries.c.occurred_at.type)


def on(day: date) -> Any:
    """A day as a statement takes it."""
    return sa.literal(day, sa.Date())
