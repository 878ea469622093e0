"""Budgets 预算: money for a time, split into lines, committed and spent, and moved to where it earns more."""

from __future__ import annotations

from pathlib import Path

from scrm.api import Contribution, Scope, hookimpl

from . import events, graphql, handlers, indicators, models, mutations, queries, reconcile, rules
from .merging import erase, merge, unmerge
from .service import count, export

__all__ = ["contribute", "count", "erase", "export", "merge", "unmerge"]


@hookimpl
def contribute() -> Contribution:
    """What budgets bring."""
    return Contribution(
        name="budget",
        version="0.1.0",
        description="Budgets: money for a time, split into lines, committed and spent, and moved to where it earns more.",
        rules=rules.BudgetRules,
        tables=models.metadata,
        migrations=Path(__file__).parent / "migrations" / "versions",
        types=[graphql.Budget, graphql.BudgetLine, graphql.BudgetEntry, graphql.BudgetCommitment, graphql.BudgetThreshold],
        query=[graphql.BudgetQuery, queries.BudgetQueries],
        mutation=[mutations.BudgetMutation],
        subscription=[queries.BudgetSubscription],
        event_types=events.TYPES,
        handlers=[handlers.handler],
        decisions=mutations.DECISIONS,
        indicators=indicators.INDICATORS,
        commands=[reconcile.RECONCILE],
        scopes=[
            Scope("budget:read", "See budgets, what became of them, and what a reallocation would do."),
            Scope("budget:write", "Make, change and close budgets; commit, spend, refund, transfer and reallocate their money."),
        ],
    )
