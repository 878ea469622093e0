"""Risk alerts 风险预警: rules on indicators and on people, alerts with a due time and a timeline, and a register of risks."""

from __future__ import annotations

from pathlib import Path

from scrm.api import Contribution, Scope, hookimpl

from . import backtest, events, graphql, handlers, jobs, measures, models, mutations, notices, rules
from .merging import count, erase, export, merge, unmerge

__all__ = ["contribute", "count", "erase", "export", "merge", "unmerge"]


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
