"""Budgets, their lines and what became of them, in GraphQL."""

from __future__ import annotations

import datetime as dt
from enum import Enum
from typing import Any

import sqlalchemy as sa
import strawberry

from scrm.api import (
    Channel,
    Connection,
    DateTimeFilter,
    Event,
    Id,
    Money,
    Node,
    Query,
    StringFilter,
    User,
    Value,
    arg,
    as_node_id,
    batch,
    channels,
    column,
    enum,
    expression,
    extend,
    filter,
    filter_input,
    many,
    money,
    one,
    rows,
    same_row,
    where,
)

from . import figures, returns, service
from .models import budgets, commitments, crossings, entries, lines

READ, WRITE = "budget:read", "budget:write"
DAYS = arg(int | None, "Over so many days, today included, or a closed budget's last; 1 to 366.", returns.WINDOW)


def _attributed(line: Any, days: Value | None) -> dict[str, Any]:
    asked: Any = returns.WINDOW
    if days is not None:
        asked = days.converted("days", sa.Integer(), lambda said, _: figures.within(said))
    return {"amount_minor": returns.attributed(line, asked), "currency": service.currency(line)}


def nobodys(row: Any) -> sa.ColumnElement[Any]:
    """Rows that no person may see by being the person."""
    return sa.cast(sa.null(), Id)


@enum(
    "Whether a budget takes what is spent.",
    PLANNED="Its first day is to come: money can be committed, not spent.",
    OPEN="It takes what is committed and spent.",
    CLOSED="It takes refunds of what was spent, and nothing else.",
)
class BudgetStatus(Enum):
    PLANNED = "PLANNED"
    OPEN = "OPEN"
    CLOSED = "CLOSED"


@enum(
    "What becomes of a request for more than a line has.",
    BLOCK="It is refused.",
    WARN="It is done, with a warning.",
    ALLOW="It is done.",
)
class BudgetPolicy(Enum):
    BLOCK = "BLOCK"
    WARN = "WARN"
    ALLOW = "ALLOW"


@enum(
    "What a budget's lines take over from those of the budget before, once that is closed.",
    NONE="Nothing.",
    REMAINING="What is left.",
    CAPPED="What is left, up to a cap for each line.",
    NEGATIVE="What is left, or what is missing.",
)
class BudgetRollover(Enum):
    NONE = "NONE"
    REMAINING = "REMAINING"
    CAPPED = "CAPPED"
    NEGATIVE = "NEGATIVE"


@enum(
    "Why spending differs from the plan.",
    MARKET="The market changed 市场变化.",
    CAMPAIGN="Campaigns did better or worse 活动效果.",
    OVERRUN="It cost more than thought 成本超支.",
)
class VarianceCause(Enum):
    MARKET = "MARKET"
    CAMPAIGN = "CAMPAIGN"
    OVERRUN = "OVERRUN"


@enum(
    "What to do with a line, by its return.",
    PRIORITIZE="Put it first: above 1.5.",
    KEEP="Keep it: from 1.0 to 1.5.",
    PILOT="Try it small: below 1.0.",
)
class BudgetRecommendation(Enum):
    PRIORITIZE = "PRIORITIZE"
    KEEP = "KEEP"
    PILOT = "PILOT"


@enum(
    "What an entry is.",
    ALLOCATE="What a line was given by the plan.",
    COMMIT="Money kept for something.",
    RELEASE="Money that is kept no more.",
    SPEND="Money spent.",
    REFUND="Spent money that came back.",
    TRANSFER_IN="Money that came from another line.",
    TRANSFER_OUT="Money that went to another line.",
    ADJUST="A change of what a line has.",
)
class BudgetEntryKind(Enum):
    ALLOCATE = "ALLOCATE"
    COMMIT = "COMMIT"
    RELEASE = "RELEASE"
    SPEND = "SPEND"
    REFUND = "REFUND"
    TRANSFER_IN = "TRANSFER_IN"
    TRANSFER_OUT = "TRANSFER_OUT"
    ADJUST = "ADJUST"


@enum(
    "What became of a commitment.",
    OPEN="It keeps its money.",
    SPENT="It was spent; a rest is free again.",
    RELEASED="What was not spent of it is free again.",
    EXPIRED="Its deadline is over: what was not spent of it is free again.",
)
class BudgetCommitmentState(Enum):
    OPEN = "OPEN"
    SPENT = "SPENT"
    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


@filter_input
class BudgetFilter:
    """Which budgets; every field that is given must hold."""

    active_on: dt.date | None = where("With this day among theirs.", service.active_on, scope=READ)
    status: list[BudgetStatus] | None = where(
        "Of these.", lambda budget, said: service.status(budget).in_([one.value for one in said]), scope=READ
    )
    name: StringFilter | None = filter("By name.", lambda budget: budget.c.name, scope=READ)


@filter_input
class BudgetEntryFilter:
    """Which entries; every field that is given must hold."""

    kind: list[BudgetEntryKind] | None = where(
        "Of these kinds.", lambda entry, kinds: entry.c.kind.in_([kind.value for kind in kinds]), scope=READ
    )
    occurred_at: DateTimeFilter | None = filter("By when they happened.", lambda entry: entry.c.occurred_at, scope=READ)
    reference: StringFilter | None = filter("By what they refer to.", lambda entry: entry.c.reference, scope=READ)


@rows(commitments, scope=READ, owner=service.holder)
class BudgetCommitment(Node):
    """Money that is kept for something until a deadline."""

    line: BudgetLine = one("Of which line.", lambda kept, line: line.c.id == kept.c.line_id)
    user: User | None = one("For whom, if for one person.", lambda kept, user: user.c.id == service.holder(kept))
    state: BudgetCommitmentState = expression("What became of it.", service.commitment_state)
    amount: Money = money("How much was asked for.", lambda kept: kept.c.amount, service.currency_of_line)
    spent: Money = money("How much of it was spent.", lambda kept: kept.c.spent, service.currency_of_line)
    remaining: Money = money("How much it keeps now.", service.commitment_left, service.currency_of_line)
    reference: str | None = column("What it is for, such as an order to a supplier.")
    created_at: dt.datetime = column("Since when.")
    expires_at: dt.datetime = column("From when on it keeps nothing.")
    resolved_at: dt.datetime | None = column("When it was spent whole or released.")


@rows(entries, scope=READ, owner=service.holder)
class BudgetEntry(Node):
    """One line of the journal; never changed."""

    kind: BudgetEntryKind = column("What it is.")
    amount: Money = money("How much; below 0 what a line lost by a transfer or a change.", lambda e: e.c.amount, service.currency)
    occurred_at: dt.datetime = column("When it happened.")
    recorded_at: dt.datetime = column("When it was recorded.")
    reference: str | None = column("What it refers to.")
    line: BudgetLine | None = one("Of which line; null: the reserve.", service.of_visible_line)
    commitment: BudgetCommitment | None = one("The commitment that it is of.", lambda e, kept: kept.c.id == e.c.commitment_id)
    user: User | None = one("For whom, if for one person.", lambda e, user: user.c.id == service.holder(e))
    event: Event | None = one("The event it follows from.", lambda e, event: event.c.id == e.c.event_id)
    reverses: BudgetEntry | None = one("The spending that it takes back.", lambda e, other: other.c.id == e.c.reverses)
    pair: BudgetEntry | None = one("The other half of a transfer.", lambda e, other: other.c.id == e.c.pair_id)


@rows(crossings, scope=READ, owner=nobodys)
class BudgetThreshold(Node):
    """A threshold that was crossed, once in a budget's time."""

    budget: Budget = one("Of which budget.", lambda crossing, budget: budget.c.id == crossing.c.budget_id)
    line: BudgetLine | None = one("Of which line; null: of the whole budget.", service.of_visible_line)
    percent: int = column("So many percent were spent.")
    at: dt.datetime = column("When.")
    spent: Money = money("What was spent by then.", lambda crossing: crossing.c.spent, service.currency)
    funds: Money = money("What there was to spend.", lambda crossing: crossing.c.funds, service.currency)


@rows(lines, scope=READ, owner=nobodys, visible=lambda line: line.c.place > 0)
class BudgetLine(Node):
    """A part of a budget."""

    category: str = column("What it is for, the same from budget to budget.")
    budget: Budget = one("Of which budget.", lambda line, budget: budget.c.id == line.c.budget_id)
    planned: Money = money("What the plan gave it.", lambda line: line.c.planned, service.currency)
    allocated: Money = money("What it has by now: the plan, changed and moved.", lambda line: line.c.allocated, service.currency)
    carried: Money = money("What it took over from the budget before.", service.carried, service.currency)
    committed: Money = money("What open commitments keep.", service.committed, service.currency)
    spent: Money = money("What was spent, less refunds.", lambda line: line.c.spent, service.currency)
    available: Money = money(
        "What can be committed or spent: allocated + carried - committed - spent.", service.available, service.currency
    )
    share: float = batch("Percent of the budget's lines.", figures.line_share, needs=["id"])
    variance: Money = money("Spent less planned; above 0 is too much.", service.variance, service.currency)
    variance_pct: float | None = batch(
        "The variance in percent of the plan; null without a plan.", figures.variance_percent, needs=["spent", "planned"]
    )
    cause: VarianceCause | None = column("Why it varies.")
    note: str | None = column("Why it varies, in words.")
    needs_cause: bool = expression(
        "Whether a cause is asked for: the variance is large and lasting, and nobody gave one.", service.needs_cause
    )
    pace: float | None = batch("Spent share ÷ elapsed share; 1 is even.", figures.line_pace, needs=["id"])
    roi: float | None = batch(
        "Attributed revenue ÷ what was spent; where nothing was, what is expected.", figures.roi, needs=["id"], days=DAYS
    )
    net_roi: float | None = batch("The same less 1: what is left of each unit spent.", figures.net_roi, needs=["id"], days=DAYS)
    attributed_revenue: Money = same_row(
        "Revenue of orders whose last touch was a channel or campaign of the line's.",
        _attributed,
        days=DAYS,
    )
    expected_roi: float | None = batch("The return that is expected.", figures.expected, needs=["expected_roi"])
    recommendation: BudgetRecommendation | None = batch(
        "What to do with it, by its return over 30 days; null without one.", figures.recommendation, needs=["id"]
    )
    policy: BudgetPolicy = column("What becomes of a request for more than it has.")
    cap_per_day: Money | None = money("At most so much a day.", lambda line: line.c.cap_per_day, service.currency)
    cap_per_user: Money | None = money("At most so much for one person.", lambda line: line.c.cap_per_user, service.currency)
    channels: list[Channel] = many("Channels whose revenue is its.", service.names_channel, order=[channels.c.key])
    campaigns: list[str] = batch("Campaigns whose revenue is its.", figures.campaigns, needs=["id"])
    previous: BudgetLine | None = one(
        "The line of the budget before whose rest it takes over.", lambda line, other: other.c.id == line.c.previous_id
    )
    commitments: Connection[BudgetCommitment] = many(
        "What is or was committed of it, newest first.",
        lambda line, kept: kept.c.line_id == line.c.id,
        order=[commitments.c.created_at.desc(), commitments.c.id.desc()],
    )
    entries: Connection[BudgetEntry] = many(
        "Its journal, newest first.",
        lambda line, entry: entry.c.line_id == line.c.id,
        order=[entries.c.occurred_at.desc(), entries.c.id.desc()],
        filter=BudgetEntryFilter,
    )


def _currency(budget: Any) -> Any:
    return budget.c.currency


@rows(budgets, scope=READ, owner=nobodys)
class Budget(Node):
    """Money for a time, split into lines."""

    name: str = column("Its name.")
    start: dt.date = column("Its first day.", name="opens_on")
    end: dt.date = column("The day after its last.", name="ends_on")
    currency: str = column("ISO 4217 code of all its money.")
    total: Money = money("All of it, the reserve included.", service.total, _currency)
    reserve: Money = money("What is left of the reserve 弹性预算.", service.reserve, _currency)
    lines: list[BudgetLine] = many("Its lines.", lambda budget, line: line.c.budget_id == budget.c.id, order=[lines.c.place])
    carried: Money = money("What its lines took over from the budget before.", service.budget_carried, _currency)
    committed: Money = money("What open commitments keep.", service.budget_committed, _currency)
    spent: Money = money("What was spent, less refunds.", service.budget_spent, _currency)
    available: Money = money("What can be committed or spent, the reserve included.", service.budget_available, _currency)
    pace: float | None = batch("Spent share ÷ elapsed share; 1 is even.", figures.budget_pace, needs=["id"])
    forecast: Money | None = money(
        "What will have been spent at its end if it goes on as so far; null before its first day.", service.forecast, _currency
    )
    status: BudgetStatus = expression("Whether it takes what is spent.", service.status)
    rollover: BudgetRollover = column("What its lines take over from the budget before.")
    rollover_cap: Money | None = money("At most so much for each line.", lambda budget: budget.c.rollover_cap, _currency)
    range_breaches: list[str] = batch(
        "Lines whose share is outside the range of their category, in words.", figures.range_breaches, needs=["id"]
    )
    entries: Connection[BudgetEntry] = many(
        "The journal, newest first.",
        lambda budget, entry: entry.c.budget_id == budget.c.id,
        order=[entries.c.occurred_at.desc(), entries.c.id.desc()],
        filter=BudgetEntryFilter,
    )
    thresholds: list[BudgetThreshold] = many(
        "Thresholds that were crossed, newest first.",
        lambda budget, crossing: crossing.c.budget_id == budget.c.id,
        order=[crossings.c.at.desc(), crossings.c.percent.desc(), crossings.c.id.desc()],
    )
    previous: Budget | None = one("The budget before.", lambda budget, other: other.c.id == budget.c.previous_id)
    history: list[Budget] = many(
        "The budgets before, newest first.",
        lambda budget, other: sa.and_(other.c.chain_id == budget.c.chain_id, other.c.opens_on < budget.c.opens_on),
        order=[budgets.c.opens_on.desc(), budgets.c.id.desc()],
    )


@extend(Query)
class BudgetQuery:
    """Budgets to read."""

    budget: Budget | None = one(
        "A budget.",
        lambda budget, id: budget.c.id == as_node_id(id, "Budget"),
        scope=READ,
        id=arg(strawberry.ID, "Its global id."),
    )
    budgets: Connection[Budget] | None = many(
        "Budgets by their first day, newest first.",
        order=[budgets.c.opens_on.desc(), budgets.c.id.desc()],
        filter=BudgetFilter,
        scope=READ,
    )
