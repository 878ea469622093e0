"""Late data: what becomes of alerts that stood on it; periods that pass while nobody looks; figures that are none."""

from __future__ import annotations

from typing import Any

import pytest

from scrm_risk import people
from tests.plugins.test_risk_people import of, redeem
from tests.plugins.tower import Tower, opened, threshold, utc

NOBODY = {"kind": "threshold", "below": 1}
REDEEMED = threshold("coupons_redeemed", per="user", days=2, condition={"kind": "threshold", "at_least": 3})


async def new_on(tower: Tower, day: str) -> None:
    """Somebody is new on a day."""
    await tower.pay(await tower.member(), "o", 100, f"{day}T10:00")


async def test_an_alert_goes_on_while_there_is_a_reason(migrated_url: str) -> None:
    """Three days without anybody new; then they come to light one after the other, the first of them last acknowledged."""
    async with opened(migrated_url, "2026-03-10T12:00", rules={"nobody": threshold("new_users", condition=NOBODY)}) as tower:
        await new_on(tower, "2026-03-08")
        await tower.evaluate("2026-03-10T13:00")
        [alert] = await tower.alerts()
        await tower.called("acknowledgeAlert", id=alert["id"])
        await tower.evaluate("2026-03-11T13:00")
        await tower.evaluate("2026-03-12T13:00")
        for day, time in (("2026-03-09", "14:00"), ("2026-03-10", "15:00")):
            await new_on(tower, day)
            assert (await tower.evaluate(f"2026-03-12T{time}"))["resolved"] == 0
        [still] = await tower.alerts()
        assert {name: still[name] for name in ("id", "state", "firedAt", "dueAt", "explanation")} == {
            "id": alert["id"],
            "state": "ACKNOWLEDGED",
            "firedAt": alert["firedAt"],
            "dueAt": alert["dueAt"],
            "explanation": "New users was 0 on 2026-03-11; limit 1",
        }
        await tower.evaluate("2026-03-13T13:00")  # nobody on the 12th, either
        await new_on(tower, "2026-03-12")
        await tower.evaluate("2026-03-13T14:00")
        assert await tower.states() == [("nobody", "RESOLVED")]
        await tower.check()


async def test_an_alert_is_withdrawn_when_its_last_reason_goes(migrated_url: str) -> None:
    """It is kept firing for a week; the only day on which it held turns out to be well."""
    rules = {"nobody": threshold("new_users", condition=NOBODY, keep_firing_hours=168)}
    async with opened(migrated_url, "2026-03-10T12:00", rules=rules) as tower:
        await new_on(tower, "2026-03-08")
        await new_on(tower, "2026-03-10")
        await tower.evaluate("2026-03-10T13:00")
        await tower.evaluate("2026-03-11T13:00")
        assert await tower.states() == [("nobody", "FIRING")]
        await new_on(tower, "2026-03-09")
        await tower.evaluate("2026-03-11T14:00")
        [alert] = await tower.alerts("", "id")
        assert await tower.timeline(alert["id"]) == [
            (None, "FIRING", None),
            ("FIRING", "FIRING", "overdue, GENERAL → IMPORTANT"),
            ("FIRING", "RESOLVED", "late data for 2026-03-09"),
        ]
        await tower.check()


async def test_a_period_that_passed_between_two_evaluations(migrated_url: str) -> None:
    """The 10th is over the limit, and the next evaluation is on the 12th: it is judged then, as of its end."""
    rules = {"many": threshold(), "kept": threshold(keep_firing_hours=24), "held": threshold(for_periods=2)}
    async with opened(migrated_url, "2026-03-10T12:00", rules=rules) as tower:
        await tower.evaluate("2026-03-10T13:00")
        await tower.complain("2026-03-10", 5)
        done = await tower.evaluate("2026-03-12T13:00")
        assert (done["fired"], done["resolved"]) == (2, 3)
        assert sorted(await tower.states()) == [("held", "RESOLVED"), ("kept", "RESOLVED"), ("many", "RESOLVED")]
        [many] = await tower.alerts('(filter: {rule: ["many"]})')
        assert many["explanation"] == "Complaints was 5 on 2026-03-10; limit 2. Over: 0 on 2026-03-11, no longer above 2"
        assert (many["firedAt"], many["resolvedAt"]) == (utc("2026-03-12T13:00"), utc("2026-03-12T13:00"))
        await tower.complain("2026-03-10", 5)
        assert (await tower.evaluate("2026-03-12T14:00"))["fired"] == 0
        await tower.check()


async def test_people_with_alerts_leave_room_for_others(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "MOST", 2)
    said = ["redeemed: more than 2 people are over the limit; alerts were opened for those with the most"]
    async with opened(migrated_url, "2026-03-10T12:00", rules={"redeemed": REDEEMED}) as tower:
        users = [await tower.member() for _ in range(5)]
        for user, times in zip(users[:3], (6, 5, 4), strict=True):
            await redeem(tower, user, "2026-03-10", times)
        assert (await tower.evaluate("2026-03-10T13:00"))["problems"] == said
        assert [len(await of(tower, user)) for user in users] == [1, 1, 0, 0, 0]
        await redeem(tower, users[3], "2026-03-10", 3)
        done = await tower.evaluate("2026-03-10T14:00")
        assert (done["fired"], done["problems"]) == (2, [])
        await redeem(tower, users[4], "2026-03-10", 3)
        done = await tower.evaluate("2026-03-10T15:00")
        assert (done["fired"], done["problems"]) == (1, [])
        assert [len(await of(tower, user)) for user in users] == [1, 1, 1, 1, 1]
        await tower.check()


async def test_an_absurd_figure_is_none(migrated_url: str) -> None:
    """What is out of range counts for nothing, on both engines alike; an earlier figure of the day holds."""
    rules: dict[str, Any] = {
        "index": threshold("opinion_index", condition={"kind": "threshold", "above": 800}),
        "cost": threshold("coupon_cost", per="user", days=2, condition={"kind": "threshold", "at_least": 3}),
        "all": threshold("coupon_cost", condition={"kind": "threshold", "at_least": 3}),
    }
    async with opened(migrated_url, "2026-03-10T12:00", rules=rules) as tower:
        who = await tower.member()
        await tower.report("2026-03-09", 1_000.0005)
        await redeem(tower, who, "2026-03-09", 1, 3)
        for absurd in (2**63 - 1, 1e18, -1e25, 1e40, 1.5e308):
            await tower.report("2026-03-09", absurd)
            await redeem(tower, who, "2026-03-09", 1, absurd)
        await tower.report("2026-03-09", 9_000_000_000_001)
        await redeem(tower, who, "2026-03-09", 1, 2**53)
        done = await tower.evaluate("2026-03-10T13:00")
        assert (done["fired"], done["problems"]) == (3, [])
        found = {each["rule"]["key"]: each["value"] for each in await tower.alerts("", "rule { key } value")}
        assert found == {"index": 1_000.001, "cost": 3.0, "all": 3.0}
        await tower.check()


async def test_what_is_over_before_anybody_heard_of_it(migrated_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is told as an alert that is over, and not as the end of one that nobody knows."""
    caplog.set_level("INFO", "scrm.risk")
    said: dict[str, Any] = {"notify": [{"to": "ops"}, {"to": "boss", "resolved": False}], "dry_run": True, "language": "en"}
    async with opened(migrated_url, "2026-03-10T12:00", rules={"many": threshold()}, **said) as tower:
        await tower.evaluate("2026-03-10T13:00")
        await tower.complain("2026-03-08", 5)
        done = await tower.evaluate("2026-03-10T14:00")
        assert (done["fired"], done["resolved"]) == (1, 1)
        await tower.run_jobs()
        words = "Complaints was 5 on 2026-03-08; limit 2. Over: 0 on 2026-03-09, no longer above 2"
        message = f"[GENERAL] 1 risk alert\nAlert, over by now GENERAL Rule\n{words}"
        told = sorted(each.getMessage() for each in caplog.records if each.name == "scrm.risk")
        assert told == [f"dry run: to boss: {message}", f"dry run: to ops: {message}"]
        await tower.check()
