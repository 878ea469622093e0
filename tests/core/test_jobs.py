"""Jobs: each due time once, however many workers; what they say is in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from scrm.db import Database, Tx
from scrm.events.models import events
from scrm.events.rules import configure
from scrm.jobs import Scheduled, latest_due, next_due, run_due_jobs
from scrm.models import jobs
from scrm.plugin import Job, NewFact

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOON = datetime(2026, 3, 1, 4, 0, tzinfo=UTC)


def review(toy: Any, run: Callable[..., Sequence[NewFact]] | None = None, every: timedelta | str = "0 3 * * *") -> Scheduled:
    def say(tx: Tx, due: datetime, rules: Any) -> Sequence[NewFact]:
        return [NewFact("toy.review_due", due.date().isoformat(), {"asOf": due.isoformat(), "factor": rules.factor}, due)]

    return Scheduled(toy.consumer, Job("review", every, run or say))


async def facts(toy: Any) -> list[tuple[Any, ...]]:
    said = sa.select(events.c.source, events.c.external_id, events.c.properties["asOf"].as_string())
    found: list[tuple[Any, ...]] = await toy.rows(
        said.where(events.c.type == "toy.review_due").order_by(events.c.received_at, events.c.id)
    )
    return found


@pytest.mark.parametrize(
    ("every", "at", "latest", "following"),
    [
        ("0 3 * * *", "2026-01-01T19:00:00", "2026-01-01T19:00:00", "2026-01-02T19:00:00"),
        ("0 3 * * *", "2026-01-01T18:59:59.999999", "2025-12-31T19:00:00", "2026-01-01T19:00:00"),
        ("0 0 1 * *", "2026-01-31T16:00:00", "2026-01-31T16:00:00", "2026-02-28T16:00:00"),
        (timedelta(minutes=5), "2026-01-01T00:04:59", "2026-01-01T00:00:00", "2026-01-01T00:05:00"),
        (timedelta(minutes=5), "2026-01-01T00:05:00", "2026-01-01T00:05:00", "2026-01-01T00:10:00"),
    ],
)
def test_due_times_are_those_of_the_business_zone(every: timedelta | str, at: str, latest: str, following: str) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert latest_due(every, moment, SHANGHAI) == datetime.fromisoformat(latest).replace(tzinfo=UTC)
    assert next_due(every, moment, SHANGHAI) == datetime.fromisoformat(following).replace(tzinfo=UTC)


async def test_a_job_runs_once_per_due_time_and_not_when_first_seen(toy: Any) -> None:
    job = review(toy)
    assert await run_due_jobs(toy.db, [job], at=NOON) == 0
    assert await run_due_jobs(toy.db, [job], at=NOON + timedelta(hours=1)) == 0
    later = datetime(2026, 3, 1, 19, 0, tzinfo=UTC)
    assert await run_due_jobs(toy.db, [job], at=later) == 1
    assert await run_due_jobs(toy.db, [job], at=later + timedelta(minutes=1)) == 0
    assert await facts(toy) == [("job:toy", "review:2026-03-01", "2026-03-01T19:00:00+00:00")]


async def test_missed_due_times_run_once_as_the_newest(toy: Any) -> None:
    job = review(toy)
    await run_due_jobs(toy.db, [job], at=NOON)
    assert await run_due_jobs(toy.db, [job], at=NOON + timedelta(days=5)) == 1
    assert await facts(toy) == [("job:toy", "review:2026-03-05", "2026-03-05T19:00:00+00:00")]


async def test_several_workers_run_it_once(toy: Any) -> None:
    counted = review(toy, every=timedelta(hours=1))
    await run_due_jobs(toy.db, [counted], at=NOON)
    url = toy.db.url.render_as_string(hide_password=False)
    others = [Database(url) for _ in range(3)]
    try:
        ran = await asyncio.gather(*(run_due_jobs(one, [counted], at=NOON + timedelta(hours=1)) for one in [*others, *others]))
    finally:
        for one in others:
            await one.close()
    assert sum(ran) == 1
    assert len(await facts(toy)) == 1


async def test_a_job_that_fails_is_noted_and_tried_again_for_the_same_due_time(toy: Any) -> None:
    fails = [True]

    def run(tx: Tx, due: datetime, rules: Any) -> Sequence[NewFact]:
        if fails[0]:
            raise SystemExit("personal words")
        return [NewFact("toy.review_due", "k", {"asOf": due.isoformat()}, due)]

    job = review(toy, run)
    await run_due_jobs(toy.db, [job], at=NOON)
    due = datetime(2026, 3, 1, 19, 0, tzinfo=UTC)
    await run_due_jobs(toy.db, [job], at=due)
    [(error,)] = await toy.rows(sa.select(jobs.c.last_error))
    assert error.startswith("SystemExit in run (test_jobs.py:")
    fails[0] = False
    assert await run_due_jobs(toy.db, [job], at=due + timedelta(seconds=59)) == 0
    assert await run_due_jobs(toy.db, [job], at=due + timedelta(seconds=60)) == 1
    assert await facts(toy) == [("job:toy", "review:k", "2026-03-01T19:00:00+00:00")]
    assert await toy.rows(sa.select(jobs.c.last_error, jobs.c.next_run_at)) == [(None, due + timedelta(days=1))]


async def test_a_key_said_twice_is_recorded_once_and_a_job_only_reads(toy: Any) -> None:
    def again(tx: Tx, due: datetime, rules: Any) -> Sequence[NewFact]:
        with pytest.raises(PermissionError):
            tx.execute(sa.delete(events))
        with pytest.raises(PermissionError):
            tx.execute(sa.text("DELETE from events"))
        return [NewFact("toy.review_due", "same", {"asOf": "x"}, due)] * 2

    job = review(toy, again, timedelta(hours=1))
    for hour in range(3):
        await run_due_jobs(toy.db, [job], at=NOON + timedelta(hours=hour))
    assert await facts(toy) == [("job:toy", "review:same", "x")]


async def test_a_job_runs_with_the_rules_configured_last(toy: Any) -> None:
    job = review(toy)
    await toy.db.write(configure, "toy", {"factor": 9}, at=NOON, zone=toy.zone)
    await run_due_jobs(toy.db, [job], at=NOON)
    await run_due_jobs(toy.db, [job], at=NOON + timedelta(days=1))
    factors = sa.select(events.c.properties["factor"].as_integer()).where(events.c.type == "toy.review_due")
    assert await toy.rows(factors) == [(9,)]
