"""What is written down of a call that did not return, when its process had to end for it."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from scrm.db import Tx
from scrm.events.consumers import hold
from scrm.events.models import parked_events
from scrm.events.parked import DEAD, HUNG
from scrm.events.steps import degrade
from scrm.models import jobs
from scrm.watch import Hang

_JOB_RESTS = timedelta(hours=1)


def note_hang(tx: Tx, hang: Hang, at: datetime) -> None:
    """Let the one who hung rest, so that others go on: a job for an hour, a parked event until somebody asks, a plugin for a
    time that grows."""
    if hang.job is not None:
        resting = {"last_error": HUNG, "next_run_at": at + _JOB_RESTS}
        tx.execute(sa.update(jobs).where(jobs.c.name == f"{hang.owner}:{hang.job}").values(resting))
        return
    place = hold(tx, hang.owner, wait=True)
    parked = (parked_events.c.plugin == hang.owner, parked_events.c.event_id == hang.event_id)
    dead = {"state": DEAD, "attempts": parked_events.c.attempts + 1, "error": HUNG, "next_attempt_at": None}
    if tx.execute(sa.update(parked_events).where(*parked).values(dead)).rowcount or place is None:
        return
    where = f" from event {hang.event_id.hex}" if hang.event_id is not None else " from a batch of events"
    degrade(tx, place, f"it did not return{where}, and its worker had to be started again", at)
