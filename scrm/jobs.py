"""Scheduled jobs: each due time runs once, however many workers there are; what a job says is recorded as events."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from croniter import croniter
from msgspec.structs import replace

from scrm.db import Database, Tx
from scrm.events.consumers import Consumer
from scrm.events.handling import describe, is_trouble, reading
from scrm.events.log import append, core_event, digest_of, owners, refuse_core_types, share_owners
from scrm.models import jobs
from scrm.plugin import Job, NewFact
from scrm.rowset import upsert
from scrm.watch import Hang, Watch

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AFTER_FAILURE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A plugin's job and the consumer whose rules it runs with."""

    consumer: Consumer
    job: Job
    watch: Watch | None = None

    @property
    def name(self) -> str:
        """Its name in the table: `<plugin>:<job>`."""
        return f"{self.consumer.name}:{self.job.name}"


def latest_due(every: timedelta | str, at: datetime, zone: ZoneInfo) -> datetime:
    """The newest due time that is not after `at`: a cron line counts in the zone, an interval from 1970 in UTC."""
    if isinstance(every, timedelta):
        return _EPOCH + (at - _EPOCH) // every * every
    # croniter answers with the time before the one it is given.
    before: datetime = croniter(every, (at + timedelta(seconds=1)).astimezone(zone).replace(microsecond=0)).get_prev(datetime)
    return before.astimezone(UTC)


def next_due(every: timedelta | str, at: datetime, zone: ZoneInfo) -> datetime:
    """The first due time after `at`."""
    if isinstance(every, timedelta):
        return latest_due(every, at, zone) + every
    after: datetime = croniter(every, at.astimezone(zone)).get_next(datetime)
    return after.astimezone(UTC)


def run_job(tx: Tx, scheduled: Scheduled, *, at: datetime) -> int | None:
    """Run the job if it is due and nobody else is at it; returns how many events it recorded, None where it did not run.

    Due times that were missed run once, as the newest of them. A job is not run for times before it was first seen.
    """
    consumer, job = scheduled.consumer, scheduled.job
    share_owners(tx)
    row = tx.row(sa.select(jobs).where(jobs.c.name == scheduled.name).with_for_update(skip_locked=True))
    if row is None:
        _first_seen(tx, scheduled, at)
        return None
    if row.next_run_at > at:
        return None
    if scheduled.watch is not None:
        tx.limit_statements(scheduled.watch.after * 0.8)
    due = latest_due(job.every, at, consumer.zone)
    changed: dict[str, object] = {"last_error": None, "last_run_at": at, "next_run_at": next_due(job.every, at, consumer.zone)}
    count = 0
    try:
        with tx.connection.begin_nested():
            rules = consumer.timeline(tx).latest
            with _watched(scheduled, tx):
                facts = job.run(reading(tx, consumer.indicators), due, rules)
            count = _record(tx, scheduled, facts, at)
    except BaseException as error:
        if is_trouble(error):
            raise
        changed = {"last_error": describe(error), "next_run_at": at + _AFTER_FAILURE}
    tx.execute(sa.update(jobs).where(jobs.c.name == scheduled.name).values(changed))
    return count


def _watched(scheduled: Scheduled, tx: Tx) -> AbstractContextManager[None]:
    if scheduled.watch is None:
        return nullcontext()
    return scheduled.watch.calling(Hang(scheduled.consumer.name, scheduled.job.name), tx.end_statement)


def _first_seen(tx: Tx, scheduled: Scheduled, at: datetime) -> None:
    if tx.scalar(sa.select(jobs.c.name).where(jobs.c.name == scheduled.name)) is not None:
        return  # somebody holds it
    due = next_due(scheduled.job.every, at, scheduled.consumer.zone)
    tx.execute(upsert(tx, jobs).values(name=scheduled.name, next_run_at=due).on_conflict_do_nothing(index_elements=["name"]))


def _record(tx: Tx, scheduled: Scheduled, facts: Sequence[NewFact], at: datetime) -> int:
    now = owners(tx, {fact.user_id for fact in facts if fact.user_id is not None})
    entries = []
    for fact in facts:
        refuse_core_types(fact.type)
        owner = now.get(fact.user_id, fact.user_id) if fact.user_id is not None else None
        entry = core_event(fact.type, owner, dict(fact.properties), fact.occurred_at, scheduled.consumer.zone)
        entries.append(
            replace(
                entry,
                received_at=at,
                source=f"job:{scheduled.consumer.name}",
                external_id=f"{scheduled.job.name}:{fact.key}",
                digest=digest_of(dict(fact.properties)),
            )
        )
    return sum(appended.inserted for appended in append(tx, entries))


async def run_due_jobs(db: Database, scheduled: Sequence[Scheduled], *, at: datetime) -> int:
    """Run every job that is due; returns how many ran. One that fails is noted in its row and tried again a minute later."""
    due = set(await db.read(_due_names, [one.name for one in scheduled], at))
    ran = 0
    for one in scheduled:
        if one.name in due:
            ran += await db.write(run_job, one, at=at) is not None
    return ran


def _due_names(tx: Tx, names: Sequence[str], at: datetime) -> list[str]:
    """Those that are due or have never been seen."""
    waiting = {row.name for row in tx.rows(sa.select(jobs.c.name).where(jobs.c.name.in_(names), jobs.c.next_run_at > at))}
    return [name for name in names if name not in waiting]
