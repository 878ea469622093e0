"""Which part of the log a transaction sees, for series that are read from it."""

from __future__ import annotations

import sqlalchemy as sa

from scrm.db import Tx
from scrm.events.models import events


def log_of(tx: Tx) -> sa.FromClause:
    """The log as this transaction sees it: all of it; or for a series that a handler reads, up to the place of its event, each
    event with its owner as of there. Columns as of `events`."""
    seen: sa.FromClause | None = getattr(tx, "log", None)
    return events if seen is None else seen


def is_settled(tx: Tx) -> bool:
    """Whether in that log everybody's events are whose they are now, so that a person's are found by their index."""
    return log_of(tx) is events or bool(getattr(tx, "log_is_settled", False))
