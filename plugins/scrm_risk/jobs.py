"""When rules are evaluated: so often, and when an alert is overdue or a snooze is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from scrm.api import Job, NewFact, Tx, instant_text

from .book import read_rules
from .evaluation import last_evaluation, samples_of, take_turn
from .events import DUE
from .machine import State
from .models import alerts
from .rules import RiskRules

EVERY = timedelta(minutes=5)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def due_evaluation(tx: Tx, due: datetime, rules: RiskRules) -> list[NewFact]:
    """What the job records: that rules are evaluated as of the newest time that is due. The same time again changes nothing."""
    take_turn(tx)
    slot = EPOCH + (due - EPOCH) // (step := timedelta(minutes=rules.evaluate_minutes)) * step
    newest = last_evaluation(tx)
    at = slot if newest is None or newest < slot else due if _waits(tx, newest, due) else None
    if at is None:
        return []
    samples = samples_of(tx, read_rules(tx) or rules.effective, at, rules)
    return [NewFact(DUE, instant_text(at), {"asOf": instant_text(at), "samples": samples}, at)]


def _waits(tx: Tx, newest: datetime, due: datetime) -> bool:
    """Whether somebody has to be told something that time alone has made so."""
    overdue = sa.and_(alerts.c.state == State.FIRING.value, alerts.c.due_at >= newest, alerts.c.due_at < due)
    woken = sa.and_(alerts.c.snoozed_until > newest, alerts.c.snoozed_until <= due)
    open_ = sa.and_(alerts.c.resolved_at.is_(None), sa.or_(overdue, woken))
    return newest < due and tx.scalar(sa.select(alerts.c.id).where(open_).limit(1)) is not None


JOBS = (Job("evaluation", EVERY, due_evaluation),)
