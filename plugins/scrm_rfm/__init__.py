"""RFM layering: customers scored by recency, frequency and money, put in segments and layers, run by run."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from scrm.api import Contribution, HandlerTx, Job, LogEvent, Scope, Tx, hookimpl

from . import events, graphql, handlers, merging, models, mutations, rules, runs, service, waking


@hookimpl
def contribute() -> Contribution:
    """What rfm brings."""
    return Contribution(
        name="rfm",
        version="0.1.0",
        description="RFM layering: customers scored by recency, frequency and money, put in segments and layers, run by run.",
        rules=rules.RfmRules,
        tables=models.metadata,
        migrations=Path(__file__).parent / "migrations" / "versions",
        types=[graphql.RfmScore, graphql.UserLayers, graphql.RfmRun, graphql.RfmSegment],
        extends=[graphql.RfmUser],
        query=[graphql.RfmQuery],
        mutation=[mutations.RfmMutation],
        subscription=[mutations.RfmSubscription],
        filters=[graphql.RfmFilter],
        event_types=events.TYPES,
        handlers=[handlers.handler],
        decisions=mutations.DECISIONS,
        jobs=[Job("run", timedelta(minutes=1), runs.due_run)],
        indicators=[waking.WAKE_RATE],
        scopes=[
            Scope("rfm:read", "See scores, segments, layers and runs."),
            Scope("rfm:write", "Make runs."),
        ],
    )


@hookimpl
def merge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID) -> int:
    """Show the survivor with what only the absorbed person has."""
    return merging.merge(tx, event, kept, absorbed)


@hookimpl
def unmerge(tx: HandlerTx, event: LogEvent, kept: uuid.UUID, absorbed: uuid.UUID, merge: uuid.UUID) -> int:
    """Give back what came from the absorbed person."""
    return merging.unmerge(tx, event, kept, absorbed, merge)


@hookimpl
def count(tx: Tx, user: uuid.UUID) -> int:
    """How many rows hang on a person."""
    return service.count(tx, user)


@hookimpl
def erase(tx: HandlerTx, user: uuid.UUID) -> None:
    """Forget the person's scores."""
    merging.erase(tx, user)


@hookimpl
def export(tx: Tx, user: uuid.UUID) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """A person's scores and layers, run by run."""
    return service.export(tx, user)
