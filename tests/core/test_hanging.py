"""Calls that do not return: what becomes of the event, the plugin and the job, told by a clock instead of by waiting."""

from __future__ import annotations

import sys
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.bounded import HangingError, within
from scrm.config import Settings
from scrm.events.consumers import DISABLED, enable
from scrm.events.hanging import note_hang
from scrm.events.models import consumers, events
from scrm.events.parked import HUNG, retry, retry_due
from scrm.models import jobs
from scrm.plugin_set import LoadState, PluginSet, PluginStatus
from scrm.provision import note_disabled
from scrm.watch import Hang


def later(toy: Any, seconds: float) -> Any:
    return toy.start + timedelta(seconds=seconds)


async def errors(toy: Any) -> list[tuple[str, str | None]]:
    found = await toy.rows(
        sa.text("select state, error from parked_events order by position").columns(state=sa.Text, error=sa.Text)
    )
    return [(state, error) for state, error in found]


async def test_an_event_that_was_interrupted_is_left_to_people_at_once(toy: Any) -> None:
    ann, ben = await toy.user(), await toy.user()
    toy.broken, toy.raises = {"bad"}, HangingError
    await toy.paid(ann, 1, "bad")
    await toy.paid(ben, 2, "b1")
    await toy.paid(ann, 4, "behind")
    first = await toy.step()
    assert (first.applied, first.parked, first.cursor) == (0, 1, 2), "others have waited long enough for this transaction"
    assert await toy.run() == 1
    assert await toy.parked() == [("bad", "DEAD"), ("behind", "BEHIND")]
    assert (await toy.db.write(retry_due, toy.consumer, at=later(toy, 9_999))).failed == 0
    toy.broken.clear()
    await toy.db.write(retry, "toy", None, at=toy.start)
    assert (await toy.db.write(retry_due, toy.consumer, at=toy.start)).applied == 2
    assert await toy.amounts() == {ann: 5, ben: 2}


async def test_a_plugin_that_hangs_on_event_after_event_rests_longer_each_time(toy: Any) -> None:
    toy.broken, toy.raises = {f"o{n}" for n in range(6)}, HangingError
    for n in range(6):
        await toy.paid(await toy.user(), 1, f"o{n}")
    await toy.run()
    place = await toy.place()
    assert (place.state, place.cursor, place.next_attempt_at) == ("DEGRADED", 3, later(toy, 10))
    assert place.reason.startswith("it does not return from events; the last: HangingError in _handle (")
    assert [len(batch) for batch in toy.calls] == [6, 1, 5, 1]
    await toy.run(later(toy, 10))
    assert [len(batch) for batch in toy.calls][4:] == [1], "event by event, once it is known to be broken"


async def test_after_its_worker_had_to_start_again_a_plugin_is_tried_event_by_event(toy: Any) -> None:
    people = [await toy.user() for _ in range(3)]
    hung = [await toy.paid(user, 1, f"o{n}") for n, user in enumerate(people)][1]
    await toy.db.write(note_hang, Hang("toy"), toy.start)
    place = await toy.place()
    assert (place.state, place.reason) == (
        "DEGRADED",
        "it did not return from a batch of events, and its worker had to be started again",
    )
    assert (await toy.step()).idle, "it rests, and the others go on"
    await toy.db.write(note_hang, Hang("toy", event_id=hung), later(toy, 10))
    assert (await toy.place()).reason == f"it did not return from event {hung.hex}, and its worker had to be started again"
    toy.consumer.hung.add(hung)
    assert await toy.run(later(toy, 60)) == 2
    assert [toy.keys(batch) for batch in toy.calls] == [["o0"], ["o2"]], "it is not called with that event again"
    assert await errors(toy) == [("DEAD", HUNG)]
    assert (await toy.place()).state == "ACTIVE"
    await toy.db.write(retry, "toy", [hung], at=later(toy, 60))
    assert (await toy.db.write(retry_due, toy.consumer, at=later(toy, 60))).applied == 1


async def test_a_parked_event_and_a_job_that_hung_rest_too(toy: Any) -> None:
    toy.broken = {"bad"}
    bad = await toy.paid(await toy.user(), 1, "bad")
    await toy.run()
    await toy.db.write(note_hang, Hang("toy", event_id=bad), toy.start)
    assert await errors(toy) == [("DEAD", HUNG)]
    assert (await toy.place()).state == "ACTIVE", "it was that event's turn alone"
    await toy.db.write(lambda tx: tx.execute(jobs.insert().values(name="toy:nightly", next_run_at=toy.start)))
    await toy.db.write(note_hang, Hang("toy", "nightly"), toy.start)
    assert await toy.rows(sa.select(jobs.c.last_error, jobs.c.next_run_at)) == [(HUNG, later(toy, 3600))]


async def test_what_a_plugin_missed_while_it_was_disabled_is_history_to_it(toy: Any) -> None:
    user = await toy.user()
    await toy.paid(user, 1, "seen")
    await toy.run()
    off = PluginSet((), [PluginStatus("toy", LoadState.DISABLED, None, toy.start)])
    await toy.db.write(note_disabled, off, toy.start)
    assert ((await toy.place()).state, (await toy.place()).reason) == ("PAUSED", DISABLED)
    await toy.paid(user, 2, "missed")
    assert (await toy.step()).idle
    assert not await toy.db.write(enable, toy.consumer, toy.start)
    await toy.paid(user, 4, "live")
    await toy.run()
    told = sa.select(events.c.properties, events.c.backfill).where(events.c.type == "toy.earned").order_by(events.c.position)
    assert [(said["points"], backfill) for said, backfill in await toy.rows(told)] == [(1, False), (2, True), (4, False)]
    assert await toy.amounts() == {user: 7}


@pytest.mark.parametrize("state", [LoadState.LOAD_ERROR, LoadState.DISCOVERED, LoadState.MIGRATION_REQUIRED])
async def test_what_a_plugin_missed_while_it_could_not_run_is_news_to_it(toy: Any, state: LoadState) -> None:
    await toy.db.write(note_disabled, PluginSet((), [PluginStatus("toy", state, "for now", toy.start)]), toy.start)
    assert (await toy.place()).state == "ACTIVE"


async def test_one_that_was_paused_stays_so_when_it_is_enabled_again(toy: Any) -> None:
    await toy.db.write(lambda tx: tx.execute(sa.update(consumers).values(state="PAUSED", reason="for a look")))
    await toy.db.write(note_disabled, PluginSet(), toy.start)
    await toy.db.write(enable, toy.consumer, toy.start)
    assert ((await toy.place()).state, (await toy.place()).reason) == ("PAUSED", "for a look")


def test_what_is_called_while_starting_has_a_time_and_no_voice(capfd: pytest.CaptureFixture[str]) -> None:
    def speak() -> int:
        sys.stdout.write("a word")
        return 5

    assert within(30, speak) == 5
    assert capfd.readouterr().out == ""
    with pytest.raises(SystemExit):
        within(30, sys.exit)
    begun, released = time.monotonic(), threading.Event()
    with pytest.raises(TimeoutError):
        within(0.05, lambda: released.wait(60))
    released.set()
    assert time.monotonic() - begun < 30
    assert Settings().plugin_start_seconds == 30
