"""Membership tiers 会员等级: levels that rise with what people do and are reviewed when a period is over."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from scrm.api import Contribution, HandlerTx, Job, LogEvent, Scope, Tx, hookimpl

from . import events, graphql, handlers, merging, models, mutations, review, rules, service


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
        jobs=[Job("review", timedelta(minutes=1), review.due_review)],
        scopes=[
            Scope("tiers:read", "See levels, who has which, and try other schemes."),
            Scope("tiers:write", "Give levels and growth value by hand, and review."),
        ],
    )


@hookimpl
def merge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, rules: rules.TiersRules) -> int:
    """Let the survivor hold what the absorbed person held."""
    return merging.merge(tx, event, kept, absorbed, rules)


@hookimpl
def unmerge(
    tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID, rules: rules.TiersRules
) -> int:
    """Give back what the absorbed person held."""
    return merging.unmerge(tx, event, kept, absorbed, merge, rules)


@hookimpl
def count(tx: Tx, user: uuid.UUID) -> int:
    """How many rows hang on a person."""
    return service.count(tx, user)


@hookimpl
def erase(tx: HandlerTx, event: LogEvent, user: uuid.UUID, pseudonym: uuid.UUID) -> None:
    """Let what was counted go on under the pseudonym."""
    merging.erase(tx, event, user, pseudonym)


@hookimpl
def export(tx: Tx, user: uuid.UUID) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """A person's level, its changes, and what was counted."""
    return service.export(tx, user)
