"""Many evaluations at once, by callers and by the clock: one after the other, and each thing happens once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from scrm.testing.client import drain, run_jobs
from tests.plugins.tower import Tower, opened, threshold, utc

MANY = 10
EVALUATE = """mutation($input: EvaluateRisksInput!) {
  evaluateRisks(input: $input) { asOf rules fired resolved problems errors { code message } } }"""
ABUSE: dict[str, Any] = {"per": "user", "days": 7, "condition": {"kind": "threshold", "at_least": 3}}
RULES = {"many": threshold(), "index": threshold("opinion_index", for_periods=2), "people": threshold(**ABUSE)}


async def evaluate(tower: Tower, **said: Any) -> dict[str, Any]:
    """The payload of one evaluation, which nobody waits for."""
    answer: dict[str, Any] = (await tower.client.data(EVALUATE, input=said))["evaluateRisks"]
    return answer


async def lines(tower: Tower) -> list[tuple[str, list[tuple[str | None, str]]]]:
    """Alerts by rule, each with its timeline."""
    found = await tower.alerts("(orderBy: [{startedAt: ASC}])", "rule { key } timeline { from to }")
    return sorted((each["rule"]["key"], [(one["from"], one["to"]) for one in each["timeline"]]) for each in found)


async def test_many_evaluate_at_once(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-09T08:00", rules=RULES) as tower:
        await tower.complain("2026-03-08", 3)
        await tower.report("2026-03-08", 900)
        await drain(tower.client)
        for at, fired in (("2026-03-09T08:00", 2), ("2026-03-10T08:00", 0)):
            tower.set_time(at)
            done = await asyncio.gather(*(evaluate(tower) for _ in range(MANY)))
            assert [one["errors"] for one in done] == [[]] * MANY
            assert {(one["asOf"], one["rules"]) for one in done} == {(utc(at), 3)}
            assert sum(one["fired"] for one in done) == fired
            assert [one for done_ in done for one in done_["problems"]] == []
        await drain(tower.client)
        overdue = [(None, "FIRING"), ("FIRING", "FIRING")]  # which is raised once
        over = [(None, "FIRING"), ("FIRING", "RESOLVED")]
        waited = [(None, "PENDING"), ("PENDING", "RESOLVED")]  # nothing was reported for the next day
        assert await lines(tower) == [("index", waited), ("many", over), ("people", overdue)]
        await tower.check()


async def test_who_asks_for_now_is_never_too_late(migrated_url: str) -> None:
    """Servers' clocks differ, and who waits for another's evaluation has an earlier now."""
    async with opened(migrated_url, "2026-03-09T08:00:05", rules=RULES) as tower:
        await tower.complain("2026-03-08", 3)
        ahead = utc("2026-03-09T08:00:05")
        assert (await evaluate(tower))["asOf"] == ahead
        who = await tower.member()
        await tower.send(*(tower.event("complaint.filed", who, None, None, "2026-03-09T08:00:04") for _ in range(3)))
        tower.set_time("2026-03-09T08:00:00")
        assert [await evaluate(tower) for _ in range(2)] == [
            {"asOf": ahead, "rules": 3, "fired": fired, "resolved": 0, "problems": [], "errors": []} for fired in (1, 0)
        ]  # and it sees what happened up to there
        said = await tower.denied("evaluateRisks", asOf=utc("2026-03-09T08:00:00"))
        assert said == ("EVALUATION_OUT_OF_ORDER", {"asOf": utc("2026-03-09T08:00:00"), "newest": ahead})
        await tower.check()


async def test_a_job_and_callers_at_once(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-09T00:00", rules=RULES) as tower:
        await tower.complain("2026-03-08", 3)
        await run_jobs(tower.client, tower.now)
        await drain(tower.client)
        for minute in range(5, 60, 10):
            tower.set_time(f"2026-03-09T01:{minute:02}")
            by_the_clock = asyncio.gather(*(run_jobs(tower.client, tower.now + timedelta(seconds=n)) for n in range(3)))
            callers = asyncio.gather(*(evaluate(tower) for _ in range(4)))
            done, _, _ = await asyncio.gather(callers, by_the_clock, drain(tower.client))
            assert [one["errors"] for one in done] == [[]] * 4
        await drain(tower.client)
        assert await lines(tower) == [("many", [(None, "FIRING")]), ("people", [(None, "FIRING")])]
        asked = '{ events(filter: {type: ["risk.evaluation_due"]}) { nodes { source properties } } }'
        nodes = (await tower.client.data(asked))["events"]["nodes"]
        recorded = [node["properties"]["asOf"] for node in nodes if node["source"] == "job:risk"]
        assert len(recorded) == len(set(recorded))
        await tower.check()


async def test_what_people_do_at_once(migrated_url: str) -> None:
    """Acknowledging, snoozing, saving rules and evaluating: nobody waits for ever, and nothing happens twice."""
    async with opened(migrated_url, "2026-03-09T08:00", rules=RULES) as tower:
        await tower.complain("2026-03-08", 3)
        await tower.evaluate()
        ids = {each["rule"]["key"]: each["id"] for each in await tower.alerts()}
        later = utc("2026-03-09T12:00")
        document = {
            "acknowledgeAlert": "AlertActionInput",
            "snoozeAlert": "SnoozeAlertInput",
            "saveRiskRule": "SaveRiskRuleInput",
            "evaluateRisks": "EvaluateRisksInput",
        }

        async def ask(name: str, /, **said: Any) -> list[str]:
            text = f"mutation($input: {document[name]}!) {{ {name}(input: $input) {{ errors {{ code }} }} }}"
            data = await tower.client.data(text, input=said)
            return [error["code"] for error in data[name]["errors"]]

        saved = {"name": "x", "indicator": "complaints", "severity": "WATCH", "condition": {"kind": "threshold", "above": 0}}
        asked = [
            *(ask("acknowledgeAlert", id=ids["many"]) for _ in range(4)),
            *(ask("snoozeAlert", rule="index", scope={}, until=later) for _ in range(4)),
            *(ask("saveRiskRule", key="mine", **saved) for _ in range(4)),
            *(ask("evaluateRisks") for _ in range(4)),
        ]
        codes = await asyncio.gather(*asked)
        assert sorted(map(str, codes[:4])) == ["['ALERT_ACKNOWLEDGED']"] * 3 + ["[]"]
        assert codes[4:] == [[]] * 12
        await tower.evaluate()
        assert sorted(await tower.states()) == [("many", "ACKNOWLEDGED"), ("mine", "FIRING"), ("people", "FIRING")]
        await tower.check()
