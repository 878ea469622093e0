"""Decisions: answered at once, recorded once per key, applied by the plugin's own handler in the same transaction."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationInfo, model_validator

from scrm.db import Database, Tx
from scrm.errors import PluginFailedError, ScrmError, UserError
from scrm.events.consumers import pause
from scrm.events.decide import Decided, decide, decide_in
from scrm.events.models import events, out_of_turn
from scrm.events.replay import replay
from scrm.events.rules import Timeline, configure
from scrm.models import audit_log
from scrm.plugin import KEPT, Decision, Fact, Rules


async def spend(toy: Any, user: uuid.UUID, points: int, key: str, db: Database | None = None) -> Decided | UserError:
    said = {"user": user.hex, "points": points}
    return await decide(db or toy.db, toy.consumer, toy.spend, said, key=key, at=toy.start + timedelta(hours=1), actor="tester")


async def rich(toy: Any, amount: int = 10) -> uuid.UUID:
    user: uuid.UUID = await toy.user()
    await toy.paid(user, amount, f"salary {user.hex}")
    await toy.run()
    return user


async def test_a_decision_is_recorded_applied_and_answered(toy: Any) -> None:
    user = await rich(toy)
    answer = await spend(toy, user, 4, "k1")
    assert isinstance(answer, Decided)
    assert (answer.properties, answer.repeated, answer.user_id) == ({"points": 4, "had": 10}, False, user)
    assert await toy.amounts() == {user: 6}
    said = sa.select(events.c.id, events.c.type, events.c.external_id, events.c.properties, events.c.recorded_user_id)
    assert await toy.rows(said.where(events.c.source == "mutation:spendToy")) == [
        (answer.event_id, "toy.spent", "k1", {"points": 4, "had": 10}, user)
    ]
    assert toy.calls[-1][0].position == 0
    assert await toy.rows(sa.select(audit_log.c.actor, audit_log.c.action)) == [("tester", "decision.spendToy")]


async def test_the_cursor_passes_over_what_was_decided(toy: Any) -> None:
    user = await rich(toy)
    cursor = (await toy.place()).cursor
    await spend(toy, user, 4, "k1")
    assert await toy.rows(sa.select(out_of_turn.c.after)) == [(cursor,)]
    assert await toy.run() == 0
    assert (await toy.place()).cursor == cursor + 1
    assert await toy.parked() == []
    assert await toy.amounts() == {user: 6}


async def test_the_same_key_answers_the_same_and_other_input_is_a_conflict(toy: Any) -> None:
    user = await rich(toy)
    first = await spend(toy, user, 10, "k1")
    again = await spend(toy, user, 10, "k1")
    assert isinstance(first, Decided)
    assert isinstance(again, Decided)
    assert (again.event_id, again.properties, again.repeated) == (first.event_id, {"points": 10, "had": 10}, True)
    with pytest.raises(ScrmError) as refused:
        await spend(toy, user, 9, "k1")
    assert (refused.value.code, refused.value.path) == ("IDEMPOTENCY_CONFLICT", ("idempotencyKey",))
    assert await toy.amounts() == {user: 0}


async def test_a_refusal_is_not_remembered(toy: Any) -> None:
    user = await rich(toy)
    assert await spend(toy, user, 11, "k1") == UserError("TOO_FEW", "has 10")
    await toy.paid(user, 5, "more")
    await toy.run()
    answer = await spend(toy, user, 11, "k1")
    assert isinstance(answer, Decided)
    assert await toy.amounts() == {user: 4}


async def test_twenty_at_once_with_one_key_are_one(toy: Any) -> None:
    user = await rich(toy)
    answers = await asyncio.gather(*(spend(toy, user, 10, "k1") for _ in range(20)))
    assert all(isinstance(answer, Decided) for answer in answers)
    found = [answer for answer in answers if isinstance(answer, Decided)]
    assert {answer.event_id for answer in found} == {found[0].event_id}
    assert sorted(answer.repeated for answer in found) == [False] + [True] * 19
    assert await toy.amounts() == {user: 0}


async def test_twenty_at_once_with_a_key_each_spend_what_there_is(toy: Any) -> None:
    user = await rich(toy)
    answers = await asyncio.gather(*(spend(toy, user, 1, f"k{n}") for n in range(20)))
    assert sum(isinstance(answer, Decided) for answer in answers) == 10
    assert answers.count(UserError("TOO_FEW", "has 0")) == 10
    assert await toy.amounts() == {user: 0}


async def test_decisions_beside_a_running_consumer(toy: Any) -> None:
    user = await rich(toy, 100)
    for n in range(20):
        await toy.paid(user, 1, f"o{n}")

    async def consume() -> None:
        while (await toy.step(limit=1)).applied:
            pass

    await asyncio.gather(consume(), *(spend(toy, user, 2, f"k{n}") for n in range(10)))
    await toy.run()
    assert await toy.amounts() == {user: 100 + 20 - 20}
    assert (await replay(toy.db, toy.settings, toy.plugin)).differences == []


async def test_two_decisions_share_a_transaction(toy: Any) -> None:
    user = await rich(toy)

    def both(tx: Tx, second: int) -> Decided | UserError:
        first = decide_in(tx, toy.consumer, toy.spend, {"user": user.hex, "points": 6}, key="a", at=toy.start, actor="t")
        assert isinstance(first, Decided)
        last = decide_in(tx, toy.consumer, toy.spend, {"user": user.hex, "points": second}, key="b", at=toy.start, actor="t")
        if isinstance(last, UserError):
            raise ScrmError(last.code, last.message)
        return last

    with pytest.raises(ScrmError, match="has 4"):
        await toy.db.write(both, 5)
    assert await toy.amounts() == {user: 10}
    await toy.db.write(both, 4)
    assert await toy.amounts() == {user: 0}


async def test_rules_of_a_decision_are_those_configured_last(toy: Any) -> None:
    user = await rich(toy)
    seen: list[Any] = []

    def look(tx: Tx, input: Mapping[str, Any], rules: Any, at: Any) -> UserError:
        seen.append(rules.factor)
        return UserError("NO", "no")

    await toy.db.write(configure, "toy", {"factor": 7}, at=toy.start, zone=toy.zone)
    await decide(toy.db, toy.consumer, Decision("look", "toy.spent", look), {}, key="k", at=toy.start, actor="t")
    assert seen == [7]
    assert await toy.amounts() == {user: 10}


def test_rules_that_the_log_kept_pass_over_later_checks() -> None:
    timeline = Timeline(Strict, Strict(), [(1, {"most": 3}), (5, {"most": 99})])
    assert [rules.most for rules in (timeline.at(1), timeline.at(6), timeline.latest) if isinstance(rules, Strict)] == [3, 99, 99]
    with pytest.raises(ValueError, match="9 at most"):
        Strict(most=99)


class Strict(Rules):
    """Rules with a check that is newer than some of them."""

    most: int = 9

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> Strict:
        if info.context is not KEPT and self.most > 9:
            raise ValueError("9 at most")
        return self


async def test_a_decision_reads_and_a_failing_one_changes_nothing(toy: Any) -> None:
    user = await rich(toy)

    def write(tx: Tx, input: Mapping[str, Any], rules: Any, at: Any) -> Fact:
        tx.execute(sa.delete(toy.accounts))
        return Fact(user, {})

    with pytest.raises(PluginFailedError, match="plugin toy failed in the decision write"):
        await decide(toy.db, toy.consumer, Decision("write", "toy.spent", write), {}, key="k", at=toy.start, actor="t")
    toy.broken = {"k1"}
    with pytest.raises(PluginFailedError, match=r"the handler of toy\.spent"):
        await spend(toy, user, 1, "k1")
    assert await toy.amounts() == {user: 10}
    assert await toy.rows(sa.select(events.c.id).where(events.c.type == "toy.spent")) == []


async def test_a_paused_plugin_decides_nothing(toy: Any) -> None:
    user = await rich(toy)
    await toy.db.write(pause, "toy", "a replay", toy.start)
    with pytest.raises(ScrmError, match="paused") as refused:
        await spend(toy, user, 1, "k1")
    assert refused.value.code == "PLUGIN_PAUSED"
    assert await toy.amounts() == {user: 10}


@pytest.mark.parametrize("key", ["", "x" * 201, "a\x00b"])
async def test_keys_that_are_refused(toy: Any, key: str) -> None:
    with pytest.raises(ScrmError) as refused:
        await spend(toy, uuid.uuid4(), 1, key)
    assert refused.value.code == "INVALID_KEY"
