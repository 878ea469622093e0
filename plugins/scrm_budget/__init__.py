"""Budgets 预算: money for a time, split into lines, committed and spent, and moved to where it earns more."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scrm.api import Contribution, HandlerTx, LogEvent, Scope, Tx, hookimpl

from . import events, graphql, handlers, indicators, merging, models, mutations, queries, reconcile, rules, service


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


@hookimpl
def merge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, rules: rules.BudgetRules) -> int:
    """Let caps and last touches of two people count together."""
    return merging.merge(tx, event, kept, absorbed, rules)


@hookimpl
def unmerge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID) -> int:
    """Give back what came before the merge."""
    return merging.unmerge(tx, event, kept, absorbed, merge)


@hookimpl
def count(tx: Tx, user: uuid.UUID) -> int:
    """How many rows hang on a person."""
    return service.count(tx, user)


@hookimpl
def erase(tx: HandlerTx, event: LogEvent, user: uuid.UUID, pseudonym: uuid.UUID) -> None:
    """Let amounts go on under the pseudonym."""
    merging.erase(tx, event, user, pseudonym)


@hookimpl
def export(tx: Tx, user: uuid.UUID) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """What was spent on a person, and what the person paid."""
    return service.export(tx, user)
