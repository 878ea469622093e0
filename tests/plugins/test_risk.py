"""Alerts as an operations dashboard sees them; after every test the log must give the same rows again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.plugins.tower import opened, threshold, utc


@pytest.mark.parametrize(("times", "states"), [(1, []), (2, []), (3, [("many", "FIRING")])])
async def test_a_strict_limit_is_not_met_when_it_is_equalled(migrated_url: str, times: int, states: list[Any]) -> None:
    async with opened(migrated_url, rules={"many": threshold()}) as tower:
        await tower.complain("2026-03-09", times)
        await tower.evaluate("2026-03-10T00:00")
        assert await tower.states() == states
        await tower.check()


async def test_an_alert_says_all(migrated_url: str) -> None:
    async with opened(migrated_url, rules={"many": threshold(assignee="小李", playbook="call")}) as tower:
        await tower.complain("2026-03-09", 5)
        done = await tower.evaluate("2026-03-10T01:00")
        assert done == {"asOf": utc("2026-03-10T01:00"), "rules": 1, "fired": 1, "resolved": 0, "problems": [], "errors": []}
        [alert] = await tower.alerts()
        assert {**alert, "id": None} == {
            "id": None,
            "state": "FIRING",
            "severity": "GENERAL",
            "scope": {},
            "value": 5.0,
            "threshold": 2.0,
            "explanation": "Complaints was 5 on 2026-03-09; limit 2",
            "startedAt": utc("2026-03-10T01:00"),
            "firedAt": utc("2026-03-10T01:00"),
            "dueAt": utc("2026-03-10T09:00"),
            "breached": False,
            "escalations": 0,
            "assignee": "小李",
            "acknowledgedAt": None,
            "acknowledgedBy": None,
            "resolvedAt": None,
            "snoozedUntil": None,
            "phase": "DETECT",
            "rule": {"key": "many"},
            "user": None,
        }
        assert await tower.timeline(alert["id"]) == [(None, "FIRING", None)]
        await tower.check()
