"""What can be tried and followed of budgets, in GraphQL."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated

import sqlalchemy as sa
import strawberry

from scrm.api import (
    BigInt,
    Info,
    Query,
    ScrmError,
    Subscription,
    Tx,
    UserError,
    events,
    extend,
    follow,
    node_id,
    query,
    ref,
    subscription,
)

from .deciding import lock_budget
from .events import CROSSED
from .figures import shown
from .graphql import READ, Budget, BudgetLine, BudgetRecommendation, BudgetThreshold
from .planning import reallocation
from .rules import BudgetRules


@strawberry.type(description="What a reallocation would make of a line.")
class BudgetMove:
    line: BudgetLine | None = strawberry.field(description="Which line.")
    category: str = strawberry.field(description="What it is for.")
    current_minor: BigInt = strawberry.field(description="What it has, in minor units.")
    target_minor: BigInt = strawberry.field(description="What it would have, in minor units.")
    change_minor: BigInt = strawberry.field(description="The difference, in minor units.")
    roi: float | None = strawberry.field(description="Its return over 30 days, or the expected one.")
    recommendation: BudgetRecommendation | None = strawberry.field(description="What to do with it, by this return.")


@strawberry.type(description="What a reallocation would do: the same total, to where it earns more. Nothing has changed.")
class BudgetReallocation:
    budget: Budget | None = strawberry.field(description="Of which budget.")
    currency: str = strawberry.field(description="ISO 4217 code of the amounts.")
    moves: list[BudgetMove] = strawberry.field(description="Every line that has a return, in the budget's order.")
    total_minor: BigInt = strawberry.field(description="What these lines have together, before and after, in minor units.")


@extend(Query)
class BudgetQueries:
    """Budgets to try."""

    @query(
        "What reallocateBudget would do: by what lines have and bring in, each within the setting reallocation_percent.",
        scope=READ,
        weight=50,
    )
    async def budget_reallocation(
        self, info: Info, budget_id: Annotated[strawberry.ID, strawberry.argument(description="Of which budget.")]
    ) -> BudgetReallocation | None:
        rules = await info.context.rules("budget")
        assert isinstance(rules, BudgetRules)
        key = node_id("Budget", budget_id, ("budgetId",))
        currency, moves = await info.context.read(_tried, key, rules, info.context.now)
        return BudgetReallocation(
            budget=ref(Budget, key),
            currency=currency,
            moves=moves,
            total_minor=BigInt(sum(move.current_minor for move in moves)),
        )


def _tried(tx: Tx, key: uuid.UUID, rules: BudgetRules, at: datetime) -> tuple[str, list[BudgetMove]]:
    found = lock_budget(tx, key.hex, rules, at, lock=False)
    if isinstance(found, UserError):
        raise ScrmError(found.code, found.message, path=found.path, params=found.params)
    budget, rows = found
    moves = [
        BudgetMove(
            line=ref(BudgetLine, row.id),
            category=row.category,
            current_minor=BigInt(row.allocated),
            target_minor=BigInt(target),
            change_minor=BigInt(target - row.allocated),
            roi=shown(back.roi),
            recommendation=BudgetRecommendation(back.recommendation) if back.recommendation is not None else None,
        )
        for row, back, target in reallocation(tx, rows, rules, at)
    ]
    return budget.currency, moves


@extend(Subscription)
class BudgetSubscription:
    """Budgets to follow."""

    @subscription("Thresholds of spending, as they are crossed, each once in a budget's time.", scope=READ)
    async def budget_threshold_crossed(
        self,
        info: Info,
        budget_id: Annotated[strawberry.ID | None, strawberry.argument(description="Only of this budget and its lines.")] = None,
    ) -> AsyncIterator[BudgetThreshold]:
        wanted = node_id("Budget", budget_id, ("budgetId",)).hex if budget_id is not None else None
        async for event_id in follow(info.context, events.c.type == CROSSED, plugin="budget"):
            said = await info.context.read(_said, event_id)
            if wanted in (None, said["budget"]):
                yield ref(BudgetThreshold, uuid.UUID(said["crossing"]))


def _said(tx: Tx, event_id: uuid.UUID) -> dict[str, str]:
    found: dict[str, str] = tx.scalar(sa.select(events.c.properties).where(events.c.id == event_id))
    return found
