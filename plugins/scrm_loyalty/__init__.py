"""Loyalty points 积分: a ledger that earns on paid orders, spends by soonest expiry and takes back on refunds."""

from __future__ import annotations

from pathlib import Path

from scrm.api import Contribution, Scope, hookimpl

from . import events, expiry, graphql, handlers, models, mutations, queries, reconcile, rules
from .merging import erase, merge, unmerge
from .service import count, export

__all__ = ["contribute", "count", "erase", "export", "merge", "unmerge"]


@hookimpl
def contribute() -> Contribution:
    """What loyalty brings."""
    return Contribution(
        name="loyalty",
        version="0.1.0",
        description="Loyalty points: earned on paid orders, spent by soonest expiry, taken back on refunds.",
        rules=rules.LoyaltyRules,
        tables=models.metadata,
        migrations=Path(__file__).parent / "migrations" / "versions",
        types=[graphql.PointsEntry, graphql.PointsHold, graphql.PointsAccount, graphql.ExpiringPoints],
        extends=[graphql.LoyaltyUser],
        query=[queries.LoyaltyQuery],
        mutation=[mutations.LoyaltyMutation],
        subscription=[queries.LoyaltySubscription],
        filters=[graphql.LoyaltyFilter],
        orderings=[graphql.LoyaltyOrder],
        event_types=events.TYPES,
        handlers=[handlers.handler],
        decisions=[*mutations.DECISIONS, reconcile.FREEZE, reconcile.UNFREEZE],
        commands=[reconcile.RECONCILE],
        jobs=[expiry.write_off, reconcile.NIGHTLY],
        scopes=[
            Scope("points:read", "See points and the ledger."),
            Scope("points:write", "Spend, hold, adjust, undo and transfer points."),
        ],
    )
