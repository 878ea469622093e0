"""Membership tiers 会员等级: levels that rise with what people do and are reviewed when a period is over."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from scrm.api import Contribution, Job, Scope, hookimpl

from . import events, graphql, handlers, models, mutations, review, rules
from .merging import erase, merge, unmerge
from .service import count, export

__all__ = ["contribute", "count", "erase", "export", "merge", "unmerge"]


@hookimpl
def contribute() -> Contribution:
    """What tiers bring."""
    return Contribution(
        name="tiers",
        version="0.1.0",
        description="Membership tiers: levels that rise with what people do and are reviewed when a period is over.",
        rules=rules.TiersRules,
        tables=models.metadata,
        migrations=Path(__file__).parent / "migrations" / "versions",
        types=[
            graphql.Tier,
            graphql.TierThreshold,
            graphql.TierBenefit,
            graphql.TierProgress,
            graphql.TierTransition,
            graphql.Membership,
        ],
        extends=[graphql.TiersUser],
        query=[graphql.TiersQuery, mutations.TiersSimulations],
        mutation=[mutations.TiersMutation],
        subscription=[mutations.TiersSubscription],
        filters=[graphql.TiersFilter],
        orderings=[graphql.TiersOrder],
        event_types=events.TYPES,
        handlers=[handlers.handler],
        decisions=mutations.DECISIONS,
        jobs=[Job("review", timedelta(seconds=10), review.due_review)],
        scopes=[
            Scope("tiers:read", "See levels, who has which, and try other schemes."),
            Scope("tiers:write", "Give levels and growth value by hand, and review."),
        ],
    )
