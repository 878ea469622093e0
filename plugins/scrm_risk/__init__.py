"""Risk alerts 风险预警: rules on indicators and on people, alerts with a due time and a timeline, and a register of risks."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scrm.api import Contribution, HandlerTx, LogEvent, Scope, Tx, hookimpl

from . import backtest, events, graphql, handlers, jobs, measures, merging, models, mutations, notices, rules


@hookimpl
def contribute() -> Contribution:
    """What risk brings."""
    return Contribution(
        name="risk",
        version="0.1.0",
        description="Risk alerts: rules on indicators and people, alerts with due times and timelines, a register of risks.",
        rules=rules.RiskRules,
        wiring=notices.RiskWiring,
        tables=models.metadata,
        migrations=Path(__file__).parent / "migrations" / "versions",
        types=[graphql.RiskRule, graphql.RiskAlert, graphql.Risk],
        extends=[graphql.RiskUser],
        query=[graphql.RiskQuery, mutations.RiskMatrixQuery],
        mutation=[mutations.RiskMutation],
        subscription=[mutations.RiskSubscription],
        event_types=events.TYPES,
        handlers=[handlers.handler],
        decisions=mutations.DECISIONS,
        jobs=jobs.JOBS,
        scopes=[
            Scope("risk:read", "See rules, alerts, people's risk and the register."),
            Scope("risk:write", "Evaluate, answer alerts, write rules and the register."),
        ],
        indicators=measures.indicators(),
        commands=backtest.COMMANDS,
        deliverers=notices.DELIVERERS,
    )


@hookimpl
def merge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, rules: rules.RiskRules) -> int:
    """Let the survivor have the absorbed person's alerts."""
    return merging.merge(tx, event, kept, absorbed, rules)


@hookimpl
def unmerge(
    tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID, rules: rules.RiskRules
) -> int:
    """Give the absorbed person's alerts back."""
    return merging.unmerge(tx, event, kept, absorbed, merge, rules)


@hookimpl
def count(tx: Tx, user: uuid.UUID) -> int:
    """How many alerts hang on a person."""
    return merging.count(tx, user)


@hookimpl
def erase(tx: HandlerTx, event: LogEvent, user: uuid.UUID, pseudonym: uuid.UUID) -> None:
    """End what is open, and let the rest go on under the pseudonym."""
    merging.erase(tx, event, user, pseudonym)


@hookimpl
def export(tx: Tx, user: uuid.UUID) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """A person's alerts and what happened to them."""
    return merging.export(tx, user)
