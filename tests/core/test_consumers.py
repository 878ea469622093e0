"""Consumers: effect and cursor in one transaction, in order; what fails is set aside and nobody else waits."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from scrm.db import Database
from scrm.errors import ScrmError
from scrm.events.consumers import Consumer, enable, pause, progress, resume, wait_for
from scrm.events.decide import decide
from scrm.events.log import append, core_event
from scrm.events.models import events, out_of_turn
from scrm.events.parked import retry, retry_due, skip
from scrm.events.records import Announcement, Event
from scrm.events.rules import configure
from scrm.events.sequencer import sequence
from scrm.events.steps import next_events, step
from scrm.models import outbox
from scrm.plugin import Handler, HandlerTx
from scrm.users import merging, privacy
from scrm.users.models import merges


def minutes(toy: Any, n: int) -> Any:
    return toy.start + timedelta(minutes=n)


async def test_events_are_applied_in_order_and_once(toy: Any) -> None:
    ann, ben = await toy.user(), await toy.user()
    for n in range(7):
        await toy.paid(ann if n % 2 else ben, 10 + n, f"o{n}")
    assert await toy.run(limit=3) == 7
    assert [key for batch in toy.calls for key in toy.keys(batch)] == [f"o{n}" for n in range(7)]
    assert await toy.amounts() == {ann: 11 + 13 + 15, ben: 10 + 12 + 14 + 16}
    assert await toy.run() == 0
    assert await toy.amounts() == {ann: 39, ben: 52}


async def test_a_cursor_moves_over_events_of_other_types(toy: Any) -> None:
    last = core_event("page.viewed", None, {}, toy.start, toy.zone)
    await toy.append(last)
    await toy.run()
    [(position,)] = await toy.rows(sa.select(sa.func.max(events.c.position)))
    assert (await toy.place()).cursor == position
    assert toy.calls == []


async def test_events_that_lie_far_apart_are_one_batch(toy: Any) -> None:
    user = await toy.user()
    for n in range(3):
        await toy.db.write(append, [core_event("page.viewed", None, {}, toy.start, toy.zone) for _ in range(40)])
        await toy.paid(user, 5, f"o{n}")
    await sequence(toy.db)
    assert (await toy.step(toy.start, 2)).applied == 2
    assert [toy.keys(batch) for batch in toy.calls] == [["o0", "o1"]]
    assert (await toy.step(toy.start, 2)).applied == 1


async def test_a_step_finds_events_by_their_place_not_by_all_there_are_of_their_types(toy: Any) -> None:
    def plan(tx: Any) -> str:
        timeline = toy.consumer.timeline(tx)
        asked: list[Any] = []
        sa.event.listen(tx.connection, "before_cursor_execute", lambda *said: asked.append((said[2], said[3])))
        next_events(tx, toy.consumer, timeline, 0, 1_000, 10)
        (text, parameters), *_ = asked
        explain = "explain query plan " if tx.dialect == "sqlite" else "explain "
        return " ".join(str(row) for row in tx.connection.exec_driver_sql(explain + text, parameters))

    said = await toy.db.write(plan)
    assert "ix_events_type" not in said
    assert "INTEGER PRIMARY KEY" in said or "position" in said


async def test_effect_and_cursor_are_one(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    user = await toy.user()
    await toy.paid(user, 5, "o1")
    before = (await toy.place()).cursor

    def step_that_dies(tx: Any) -> None:
        assert step(tx, toy.consumer, at=toy.start).applied == 1
        raise RuntimeError("killed between the effect and the commit")

    with pytest.raises(RuntimeError):
        await toy.db.write(step_that_dies)
    assert await toy.amounts() == {}
    assert (await toy.place()).cursor == before
    assert await toy.rows(sa.select(events.c.id).where(events.c.type == "toy.earned")) == []
    assert await toy.run() == 1
    assert await toy.amounts() == {user: 5}


async def test_two_workers_do_nothing_twice(toy: Any) -> None:
    user = await toy.user()
    for n in range(30):
        await toy.paid(user, 1, f"o{n}")

    async def work() -> int:
        other = Database(toy.db.url.render_as_string(hide_password=False), clock=toy.db.clock)
        applied = 0
        try:
            while (await toy.place()).cursor < 31:
                applied += (await other.write(step, toy.consumer, at=toy.start, limit=2)).applied
        finally:
            await other.close()
        return applied

    done = await asyncio.gather(work(), work(), work())
    assert sum(done) == 30
    assert await toy.amounts() == {user: 30}
    assert await toy.rows(sa.select(sa.func.count()).select_from(toy.entries)) == [(30,)]


@pytest.mark.parametrize(
    "raised",
    [ValueError("personal words"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()],
    ids=lambda e: type(e).__name__,
)
async def test_a_poison_event_is_parked_with_its_users_later_ones_and_others_go_on(toy: Any, raised: BaseException) -> None:
    ann, ben = await toy.user(), await toy.user()
    toy.broken, toy.raises = {"bad"}, lambda: raised
    await toy.paid(ben, 1, "b1")
    bad = await toy.paid(ann, 2, "bad")
    await toy.paid(ann, 4, "behind")
    await toy.paid(ben, 8, "b2")
    assert await toy.run() == 2
    assert await toy.amounts() == {ben: 9}
    assert await toy.parked() == [("bad", "RETRYING"), ("behind", "BEHIND")]
    await toy.paid(ann, 16, "later")
    await toy.run()
    assert await toy.parked() == [("bad", "RETRYING"), ("behind", "BEHIND"), ("later", "BEHIND")]
    toy.broken.clear()
    assert (await toy.db.write(retry_due, toy.consumer, at=toy.start)).applied == 0, "not due yet"
    assert (await toy.db.write(retry_due, toy.consumer, at=minutes(toy, 1))).applied == 3
    assert await toy.amounts() == {ben: 9, ann: 22}
    assert await toy.parked() == []
    cursor = (await toy.place()).cursor
    turned = await toy.rows(sa.select(out_of_turn.c.event_id, out_of_turn.c.after).order_by(out_of_turn.c.n))
    assert turned[0] == (bad, cursor)
    assert len(turned) == 3


async def test_what_is_kept_of_an_error_holds_no_personal_words(toy: Any) -> None:
    toy.broken = {"bad"}
    await toy.paid(await toy.user(), 2, "bad")
    await toy.run()
    failures = await toy.rows(sa.text("select error from parked_events").columns(error=sa.Text))
    assert len(failures) == 1
    assert failures[0][0].startswith("ValueError in _handle (conftest.py:")
    assert "personal" not in failures[0][0]


async def test_a_failed_event_dies_after_eight_attempts_and_lives_again_when_asked(toy: Any) -> None:
    user = await toy.user()
    toy.broken = {"bad"}
    bad = await toy.paid(user, 2, "bad")
    await toy.run()
    for n in range(1, 8):
        assert await toy.parked() == [("bad", "RETRYING")]
        assert (await toy.db.write(retry_due, toy.consumer, at=minutes(toy, 100 * n))).failed == 1
    assert await toy.parked() == [("bad", "DEAD")]
    assert (await toy.db.write(retry_due, toy.consumer, at=minutes(toy, 10_000))).failed == 0
    toy.broken.clear()
    assert await toy.db.write(retry, "toy", [uuid.uuid4()], at=toy.start) == 0
    assert await toy.db.write(retry, "toy", [bad], at=toy.start) == 1
    assert (await toy.db.write(retry_due, toy.consumer, at=toy.start)).applied == 1
    assert await toy.amounts() == {user: 2}


async def test_a_skipped_event_is_never_applied_and_those_behind_it_go_on(toy: Any) -> None:
    user = await toy.user()
    toy.broken = {"bad"}
    bad = await toy.paid(user, 2, "bad")
    await toy.paid(user, 4, "next")
    await toy.run()
    await toy.db.write(skip, "toy", bad, at=toy.start, actor="an operator")
    assert await toy.parked() == [("bad", "SKIPPED"), ("next", "RETRYING")]
    assert (await toy.db.write(retry_due, toy.consumer, at=toy.start)).applied == 1
    await toy.paid(user, 8, "free")
    await toy.run()
    assert await toy.amounts() == {user: 12}
    with pytest.raises(ScrmError, match="has not failed"):
        await toy.db.write(skip, "toy", bad, at=toy.start, actor="an operator")


async def test_a_merge_waits_behind_either_person_and_ties_their_events_together(toy: Any) -> None:
    ann, ben, eve = await toy.user(), await toy.user(), await toy.user()
    toy.broken = {"bad"}
    await toy.paid(ann, 1, "a1")
    await toy.paid(ben, 2, "bad")
    merged = core_event(
        "user.merged", ann, {"kept": ann.hex, "absorbed": ben.hex, "merge": uuid.uuid4().hex}, toy.start, toy.zone
    )
    await toy.append(merged)
    await toy.paid(ann, 4, "a2")
    await toy.paid(eve, 8, "e1")
    await toy.run()
    assert await toy.amounts() == {ann: 1, eve: 8}
    assert [state for _, state in await toy.parked()] == ["RETRYING", "BEHIND", "BEHIND"]
    toy.broken.clear()
    await toy.db.write(retry_due, toy.consumer, at=minutes(toy, 1))
    assert await toy.amounts() == {ann: 7, ben: 0, eve: 8}
    assert await toy.parked() == []


@pytest.mark.parametrize("first", ["bad a", "bad b"])
async def test_a_merge_of_two_who_wait_waits_for_both(toy: Any, first: str) -> None:
    ann, ben = await toy.user(), await toy.user()
    toy.broken = {"bad a", "bad b"}
    await toy.paid(await toy.user(), 1, "well")
    await toy.paid(ann, 1, "bad a")
    await toy.paid(ben, 2, "bad b")
    said = {"kept": ann.hex, "absorbed": ben.hex, "merge": uuid.uuid4().hex}
    await toy.append(core_event("user.merged", ann, said, toy.start, toy.zone))
    await toy.paid(ann, 4, "after")
    await toy.run()
    toy.broken.discard(first)
    assert (await toy.db.write(retry_due, toy.consumer, at=minutes(toy, 1))).applied == 1
    assert [state for _, state in await toy.parked()] == ["RETRYING", "BEHIND", "BEHIND"]
    toy.broken.clear()
    assert (await toy.db.write(retry_due, toy.consumer, at=minutes(toy, 2))).applied == 3
    assert {user: amount for user, amount in (await toy.amounts()).items() if user in (ann, ben)} == {ann: 7, ben: 0}


async def test_a_broken_plugin_is_degraded_and_its_cursor_stays(toy: Any) -> None:
    people = [await toy.user() for _ in range(25)]
    toy.broken = {f"o{n}" for n in range(25)}
    for n, user in enumerate(people):
        await toy.paid(user, 1, f"o{n}")
    before = (await toy.place()).cursor
    await toy.run()
    place = await toy.place()
    assert (place.state, place.cursor) == ("DEGRADED", before)
    assert re.fullmatch(r"20 events failed in a row; the last, [0-9a-f]{32} at 21: ValueError in _handle \(.*\)", place.reason)
    assert await toy.parked() == []
    toy.broken.clear()
    assert (await toy.step()).idle, "it rests"
    assert await toy.run(minutes(toy, 1)) == 25
    place = await toy.place()
    assert (place.state, place.reason, place.failures) == ("ACTIVE", None, 0)


async def test_one_that_fails_on_everything_of_a_few_people_is_degraded(toy: Any) -> None:
    people = [await toy.user() for _ in range(5)]
    toy.broken = {f"o{n}" for n in range(30)}
    for n in range(30):
        await toy.paid(people[n % 5], 1, f"o{n}")
    before = (await toy.place()).cursor
    await toy.run()
    place = await toy.place()
    assert (place.state, place.cursor) == ("DEGRADED", before)
    assert re.fullmatch(r"5 events failed in a row; the last, [0-9a-f]{32} at \d+: ValueError in _handle \(.*\)", place.reason)
    toy.broken.clear()
    assert await toy.run(minutes(toy, 1)) == 30


async def test_batches_that_fail_in_a_row_degrade_too(toy: Any) -> None:
    toy.broken = {f"o{n}" for n in range(5)}
    for n in range(5):
        await toy.paid(await toy.user(), 1, f"o{n}")
        await toy.run()
    assert len(await toy.parked()) == 4
    place = await toy.place()
    assert place.state == "DEGRADED"
    assert place.reason.startswith("5 events failed in a row; the last, ")


async def test_one_person_whose_events_fail_breaks_nothing(toy: Any) -> None:
    person = await toy.user()
    toy.broken = {f"o{n}" for n in range(30)}
    for n in range(30):
        await toy.paid(person, 1, f"o{n}")
        await toy.run()
    assert (await toy.place()).state == "ACTIVE"


async def test_paused_and_resumed(toy: Any) -> None:
    user = await toy.user()
    await toy.db.write(pause, "toy", "for a look", toy.start)
    await toy.paid(user, 1, "o1")
    assert (await toy.step()).idle
    assert await toy.amounts() == {}
    await toy.db.write(resume, "toy", toy.start)
    assert await toy.run() == 1


async def test_rules_count_from_their_place_in_the_log(toy: Any) -> None:
    user = await toy.user()
    await toy.paid(user, 1, "o1")
    changed = await toy.db.write(configure, "toy", {"factor": 10}, at=toy.start, zone=toy.zone)
    assert {name: (change.before, change.after) for name, change in changed.items()} == {"factor": (1, 10)}
    await toy.paid(user, 1, "o2")
    assert await toy.db.write(configure, "toy", {"factor": 10}, at=toy.start, zone=toy.zone) is None
    await toy.run()
    assert await toy.amounts() == {user: 11}
    assert [toy.keys(batch) for batch in toy.calls] == [["o1"], ["o2"]]


async def test_rules_that_the_model_does_not_take_degrade(toy: Any) -> None:
    await toy.paid(await toy.user(), 1, "o1")
    await toy.db.write(configure, "toy", {"factor": "many"}, at=toy.start, zone=toy.zone)
    await toy.paid(await toy.user(), 1, "o2")
    await toy.run()
    place = await toy.place()
    assert (place.state, place.reason) == ("DEGRADED", "its rules in the log do not fit its model: 1 problems")


def shout(name: str, handle: Any, toy: Any) -> Consumer:
    return Consumer(name, (Handler(("order.paid", "shout.heard"), handle),), toy.zone, announcement_depth=3)


async def test_announcements_are_recorded_once_follow_merges_and_end_at_a_depth(toy: Any) -> None:
    old, new = await toy.user(), await toy.user()
    cause = await toy.paid(old, 5, "o1")
    await toy.db.write(
        lambda tx: tx.execute(
            sa.text("update users set merged_into = :new where id = :old").bindparams(
                sa.bindparam("new", new, type_=sa.Uuid()), sa.bindparam("old", old, type_=sa.Uuid())
            )
        )
    )

    def echo(tx: HandlerTx, batch: Sequence[Event], rules: object) -> None:
        for event in batch:
            tx.announce(Announcement("shout.heard", event, event.user_id, {"depth": event.depth}))
            tx.announce(Announcement("shout.heard", event, event.user_id, {"depth": event.depth}))

    consumer = shout("shout", echo, toy)
    await toy.db.write(enable, consumer, toy.start)
    await toy.db.write(lambda tx: tx.execute(sa.text("update consumers set backfill_to = 0")))
    toy.consumer = consumer
    assert await toy.run() == 3
    heard = await toy.rows(
        sa.select(events.c.user_id, events.c.depth, events.c.source, events.c.backfill)
        .where(events.c.type == "shout.heard")
        .order_by(events.c.position)
    )
    assert heard == [(new, n, "plugin:shout", False) for n in (1, 2, 3)]
    [(of,)] = await toy.rows(sa.select(events.c.cause_id).where(events.c.depth == 1))
    assert of == cause
    [(error,)] = await toy.rows(sa.text("select error from parked_events").columns(error=sa.Text))
    assert error == "ANNOUNCEMENT_TOO_DEEP"


async def test_history_is_filled_in_quietly(toy: Any) -> None:
    user = await toy.user()
    await toy.paid(user, 1, "before")

    def tell(tx: HandlerTx, batch: Sequence[Event], rules: object) -> None:
        for event in batch:
            tx.send("mail", {"order": event.external_id}, cause=event)
            tx.announce(Announcement("shout.told", event, event.user_id, {}))

    consumer = shout("shout", tell, toy)
    await toy.db.write(enable, consumer, toy.start)
    toy.consumer = consumer
    await toy.paid(user, 1, "after")
    halfway = await toy.db.write(step, consumer, at=toy.start, limit=1)
    assert halfway.applied == 1
    [mine] = [one for one in await toy.db.read(progress) if one.plugin == "shout"]
    assert mine.backfill == 1.0
    await toy.run()
    assert await toy.rows(sa.select(outbox.c.payload, outbox.c.state)) == [({"order": "after"}, "PENDING")]
    told = sa.select(events.c.backfill).where(events.c.type == "shout.told").order_by(events.c.position)
    assert await toy.rows(told) == [(True,), (False,)]


async def test_a_handler_cannot_reach_the_connection_commit_or_write_what_is_not_its_own(toy: Any) -> None:
    refused: list[type[BaseException]] = []

    def naughty(tx: HandlerTx, batch: Sequence[Event], rules: object) -> None:
        kept.append(tx)
        for attempt in (
            lambda: tx.connection,
            lambda: tx.execute(sa.text("commit")),
            lambda: tx.execute(sa.delete(events)),
            lambda: tx.execute(sa.insert(toy.accounts).values(user_id=uuid.uuid4(), amount=1, chain="")),
        ):
            try:
                attempt()
            except PermissionError as error:
                refused.append(type(error))

    kept: list[HandlerTx] = []
    consumer = shout("shout", naughty, toy)
    await toy.db.write(enable, consumer, toy.start)
    await toy.paid(await toy.user(), 1, "o1")
    assert (await toy.db.write(step, consumer, at=toy.start)).applied == 1
    assert refused == [PermissionError] * 4
    with pytest.raises(PermissionError, match="has ended"):
        kept[0].execute(sa.text("select 1"))


async def test_a_swallowed_sql_error_does_not_let_half_a_batch_through(toy: Any) -> None:
    def careless(tx: HandlerTx, batch: Sequence[Event], rules: object) -> None:
        for event in batch:
            tx.announce(Announcement("shout.told", event, event.user_id, {}))
        try:
            tx.execute(sa.text("select nothing from nowhere"))
        except sa.exc.DBAPIError:
            return

    consumer = shout("shout", careless, toy)
    await toy.db.write(enable, consumer, toy.start)
    await toy.paid(await toy.user(), 1, "o1")
    await toy.db.write(step, consumer, at=toy.start)
    [(told,)] = await toy.rows(sa.select(sa.func.count()).select_from(events).where(events.c.type == "shout.told"))
    parked = await toy.parked()
    # PostgreSQL has aborted the transaction, so the event is parked; SQLite goes on as if nothing had been.
    assert (told, parked) == ((1, []) if toy.db.dialect == "sqlite" else (0, [("o1", "RETRYING")]))


async def test_a_fact_of_its_own_is_not_believed_to_anybody_else(toy: Any) -> None:
    user = await toy.user()
    await toy.paid(user, 9, "o1")
    forged = replace(
        core_event("toy.spent", user, {"points": 5}, toy.start, toy.zone), source="Mutation:spendToy", external_id="x"
    )
    await toy.append(forged)
    assert await toy.run() == 1
    assert await toy.amounts() == {user: 9}
    said = {"user": user.hex, "points": 5}
    await decide(toy.db, toy.consumer, toy.spend, said, key="k", at=toy.start, actor="t")
    assert await toy.amounts() == {user: 4}


async def test_history_as_a_handler_sees_it(toy: Any) -> None:
    ann, ben, eve = await toy.user(), await toy.user(), await toy.user()
    await toy.paid(ben, 1, "early", minute=1)
    await merge_now(toy, ann, ben, 2)
    due = replace(core_event("shout.due", None, {}, minutes(toy, 10), toy.zone), source="test")
    await toy.append(due)
    await toy.paid(ann, 2, "too late", minute=3)
    seen: list[list[tuple[Any, ...]]] = []

    def review(tx: HandlerTx, batch: Sequence[Event], rules: object) -> None:
        log = tx.history(["order.paid"], until=batch[0])
        seen.append([tuple(row) for row in tx.rows(sa.select(log.c.user_id, log.c.external_id, log.c.amount_minor))])
        only = tx.history(["order.paid"], until=batch[0], users=[ann], since=minutes(toy, 2))
        seen.append([tuple(row) for row in tx.rows(sa.select(only.c.external_id))])

    for name in ("shout", "later"):  # who reads it later, after another merge, sees the same
        consumer = Consumer(name, (Handler(("shout.due",), review),), toy.zone)
        await toy.db.write(enable, consumer, toy.start)
        assert (await toy.db.write(step, consumer, at=toy.start)).applied == 1
        assert seen == [[(ann, "early", 1)], []]
        seen.clear()
        await merge_now(toy, eve, ann, 20)


async def merge_now(toy: Any, kept: uuid.UUID, absorbed: uuid.UUID, minute: int) -> None:
    """One of two, as the core writes it down."""
    said = {"kept": kept.hex, "absorbed": absorbed.hex, "merge": uuid.uuid4().hex}
    event_id = await toy.append(core_event("user.merged", kept, said, minutes(toy, minute), toy.zone))
    row = {"id": uuid.UUID(said["merge"]), "kept_id": kept, "absorbed_id": absorbed, "reason": "", "moved": {}}
    await toy.db.write(lambda tx: tx.execute(sa.insert(merges).values({**row, "merged_at": toy.start, "event_id": event_id})))
    moved = sa.update(events).where(events.c.user_id == absorbed).values(user_id=kept)
    await toy.db.write(lambda tx: tx.execute(moved))


async def test_hooks_follow_what_core_does_to_a_person(toy: Any) -> None:
    ann, ben = await toy.user(), await toy.user()
    told: list[tuple[Any, ...]] = []
    hooks = SimpleNamespace(
        merge=lambda tx, event, kept, absorbed, rules: told.append(("merge", event.id, kept, absorbed)),
        unmerge=lambda tx, event, kept, absorbed, merge, rules: told.append(("unmerge", kept, absorbed, merge)),
        erase=lambda tx, event, user, pseudonym: told.append(("erase", user, pseudonym)),
    )
    consumer = Consumer("hooked", (), toy.zone, hooks)
    await toy.db.write(enable, consumer, toy.start)
    toy.consumer = consumer
    terms = {"at": toy.start, "actor": "t", "zone": toy.zone}
    merged = await toy.db.write(merging.merge, ann, ben, reason="", **terms)
    await toy.db.write(merging.unmerge, merged.merge_id, **terms)
    _, pseudonym = await toy.db.write(privacy.erase, ben, **terms)
    assert await toy.run() == 3
    assert told == [("merge", merged.merge_id, ann, ben), ("unmerge", ann, ben, merged.merge_id), ("erase", ben, pseudonym)]


async def test_waiting_for_a_position(toy: Any) -> None:
    await toy.paid(await toy.user(), 1, "o1")
    assert not await wait_for(toy.db, ["toy"], 2, 0)
    waiting = asyncio.create_task(wait_for(toy.db, ["toy"], 2, 30))
    await toy.run()
    assert await waiting
    assert await wait_for(toy.db, [], 99, 0)
    assert not await wait_for(toy.db, ["toy", "nobody"], 1, 0)
