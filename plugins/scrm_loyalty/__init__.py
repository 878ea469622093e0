"""Loyalty points 积分: a ledger that earns on paid orders, spends by soonest expiry and takes back on refunds."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scrm.api import Contribution, HandlerTx, LogEvent, Scope, Tx, hookimpl

from . import events, expiry, graphql, handlers, merging, models, mutations, queries, reconcile, rules, service


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
        jobs=[expiry.write_off],
        scopes=[
            Scope("points:read", "See points and the ledger."),
            Scope("points:write", "Spend, hold, adjust, undo and transfer points."),
        ],
    )


@hookimpl
def merge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID) -> int:
    """Move the absorbed person's points to the survivor."""
    return merging.merge(tx, event, kept, absorbed)


@hookimpl
def unmerge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID) -> int:
    """Give back what came before the merge and is not spent."""
    return merging.unmerge(tx, event, kept, absorbed, merge)


@hookimpl
def count(tx: Tx, user: uuid.UUID) -> int:
    """How many rows hang on a person."""
    return service.count(tx, user)


@hookimpl
def erase(tx: HandlerTx, event: LogEvent, user: uuid.UUID, pseudonym: uuid.UUID) -> None:
    """Let the ledger go on under the pseudonym."""
    merging.erase(tx, event, user, pseudonym)


@hookimpl
def export(tx: Tx, user: uuid.UUID) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """A person's entries and lots."""
    return service.export(tx, user)
