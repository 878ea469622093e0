"""RFM layering: customers scored by recency, frequency and money, put in segments and layers, run by run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from scrm.api import Contribution, Job, Scope, hookimpl

from . import events, graphql, handlers, models, mutations, rules, runs, waking
from .merging import erase, merge, unmerge
from .service import count, export

__all__ = ["contribute", "count", "erase", "export", "merge", "unmerge"]


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
