"""When a next attempt is due: by its time, or at once where a clock that was ahead gave it one that no wait is as long as."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

LONGEST_WAIT = timedelta(hours=1)
"""Nobody waits longer between two attempts."""

_WRONG = 2 * LONGEST_WAIT


def is_due(moment: datetime | None, at: datetime) -> bool:
    """Whether what waits until `moment` is due; None waits for nothing."""
    return moment is None or moment <= at or moment > at + _WRONG


def due(moment: sa.ColumnElement[datetime | None], at: datetime) -> sa.ColumnElement[bool]:
    """The same as a condition; null is not due."""
    return sa.or_(moment <= at, moment > at + _WRONG)
