"""Rules about people, what merging and erasing them does, and the register."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.testing.client import drain
from scrm_risk.models import scopes
from tests.plugins.tower import Tower, opened, threshold, utc

RULES = {
    "coupons": threshold("coupons_redeemed", per="user", days=2, condition={"kind": "threshold", "at_least": 3}),
    "cost": threshold("coupon_cost", "URGENT", per="user", days=2, condition={"kind": "threshold", "above": 1_000}),
    "invites": threshold("referrals", per="user", days=1, condition={"kind": "threshold", "at_least": 2}),
}
RISK = "risk { score factors { key points explanation resolvedAt } }"


async def redeem(tower: Tower, user: str, day: str, times: int, cost: Any = 0) -> None:
    said = [tower.event("coupon.redeemed", user, None, None, f"{day}T10:00") for _ in range(times)]
    await tower.send(*(each | {"properties": {"cost": cost}} for each in said))


async def risk(tower: Tower, user: str) -> tuple[int, list[tuple[str, int]]]:
    """A person's score and its factors."""
    found = (await tower.client.data(f"query($id: ID!) {{ user(id: $id) {{ {RISK} }} }}", id=user))["user"]["risk"]
    return found["score"], [(factor["key"], factor["points"]) for factor in found["factors"]]


async def of(tower: Tower, user: str, fields: str = "rule { key } state value") -> list[dict[str, Any]]:
    """A person's alerts, the oldest first."""
    asked = f"query($id: ID!) {{ user(id: $id) {{ riskAlerts(orderBy: [{{startedAt: ASC}}]) {{ nodes {{ {fields} }} }} }} }}"
    nodes: list[dict[str, Any]] = (await tower.client.data(asked, id=user))["user"]["riskAlerts"]["nodes"]
    return nodes


async def test_what_one_person_does(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(migrated_url, "2026-03-10T12:00", rules=RULES) as tower:
        one, two, three = [await tower.member() for _ in range(3)]
        await redeem(tower, one, "2026-03-08", 5)  # not within two days any more
        await redeem(tower, one, "2026-03-09", 1)
        await redeem(tower, one, "2026-03-10", 1, 1_000)
        await redeem(tower, two, "2026-03-10", 3, 334)
        joined = [tower.event("referral.accepted", three, None, None, None) for _ in range(3)]
        await tower.send(
            *(said | {"properties": {"inviter": inviter}} for said, inviter in zip(joined, (two, two, "a friend"), strict=True))
        )
        await tower.evaluate()
        assert await of(tower, one) == []
        assert sorted((each["rule"]["key"], each["value"]) for each in await of(tower, two)) == [
            ("cost", 1_002.0),
            ("coupons", 3.0),
            ("invites", 2.0),
        ]
        score, factors = await risk(tower, two)
        assert (score, sorted(factors)) == (60, [("cost", 40), ("coupons", 10), ("invites", 10)])
        assert score == sum(points for _, points in factors)
        shown = {each["rule"]["key"]: each["explanation"] for each in await of(tower, two, "rule { key } explanation")}
        assert shown["coupons"] == "Coupons redeemed was 3 within 2 days; limit 3"
        assert shown["cost"] == "Cost of coupons was 10.02 CNY within 2 days; limit 10 CNY"
        await tower.evaluate("2026-03-12T00:00")
        assert {each["state"] for each in await of(tower, two)} == {"RESOLVED"}
        assert (await risk(tower, two))[0] == 30
        tower.set_time("2026-06-10T00:00")
        assert await risk(tower, two) == (0, [])
        sent: list[str] = []
        fetch = type(tower.client.services.db).fetch

        async def counted(self: Any, sql: str, parameters: Any) -> Any:
            sent.append(sql)
            return await fetch(self, sql, parameters)

        monkeypatch.setattr(type(tower.client.services.db), "fetch", counted)
        fields = f"id {RISK} riskAlerts(first: 3) {{ nodes {{ explanation rule {{ name }} timeline {{ to }} }} totalCount }}"
        nodes = (await tower.client.data(f"{{ users {{ nodes {{ {fields} }} }} }}"))["users"]["nodes"]
        assert [node["riskAlerts"]["totalCount"] for node in nodes] == [0, 3, 0]
        assert len(sent) == 1
        await tower.check()


async def test_merging_parting_erasing(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00", rules=RULES) as tower:
        one, two = await tower.member(), await tower.member()
        await redeem(tower, one, "2026-03-10", 3)
        await redeem(tower, two, "2026-03-10", 3, 1_000)
        await tower.evaluate()
        [first] = await of(tower, one, "id")
        counted = await tower.client.data(
            "mutation($k: ID!, $a: ID!) { mergeUsers(input: {keptId: $k, absorbedId: $a, dryRun: true})"
            " { moved { owner count } } }",
            k=one,
            a=two,
        )
        assert {"owner": "risk", "count": 2} in counted["mergeUsers"]["moved"]
        merge = await tower.merge(one, two)
        found = sorted((each["rule"]["key"], each["state"]) for each in await of(tower, one))
        assert found == [("cost", "FIRING"), ("coupons", "FIRING"), ("coupons", "RESOLVED")]
        await tower.evaluate("2026-03-10T13:00")
        assert {each["value"] for each in await of(tower, one) if each["state"] == "FIRING"} == {6.0, 3_000.0}
        await tower.unmerge(merge)
        assert [each["rule"]["key"] for each in await of(tower, one)] == ["coupons"]
        assert sorted((each["rule"]["key"], each["state"]) for each in await of(tower, two)) == [
            ("cost", "FIRING"),
            ("coupons", "RESOLVED"),
        ]
        await tower.evaluate("2026-03-10T14:00")
        assert sorted((each["rule"]["key"], each["state"], each["value"]) for each in await of(tower, two)) == [
            ("cost", "FIRING", 3_000.0),
            ("coupons", "FIRING", 3.0),
            ("coupons", "RESOLVED", 3.0),
        ]
        await tower.called("acknowledgeAlert", id=first["id"], comment="called Mrs Li")
        plugins = tower.client.services.plugins
        kept = (await tower.client.services.db.read(plugins.export, uuid.UUID(one[5:])))["risk"]
        assert {kind: len(kept_rows) for kind, kept_rows in kept.items()} == {"alerts": 1, "timeline": 2}
        erased = await tower.client.data("mutation($id: ID!) { eraseUser(input: {id: $id}) { errors { code } } }", id=one)
        assert erased["eraseUser"]["errors"] == []
        await drain(tower.client)
        gone = await tower.alerts('(filter: {state: [RESOLVED], rule: ["coupons"]})')
        assert [(each["scope"], each["user"]) for each in gone if each["id"] == first["id"]] == [({}, None)]
        assert await tower.timeline(first["id"]) == [
            (None, "FIRING", None),
            ("FIRING", "ACKNOWLEDGED", None),
            ("ACKNOWLEDGED", "RESOLVED", "the person was erased"),
        ]
        await tower.evaluate("2026-03-10T15:00")  # who was erased is watched no more
        left = sa.select(sa.func.count()).select_from(scopes).where(scopes.c.user_id == uuid.UUID(one[5:]))
        assert await tower.client.services.db.read(lambda tx: tx.scalar(left)) == 0
        assert len(await tower.alerts("(filter: {open: true})")) == 2
        await tower.check()


SAID: dict[str, Any] = {"title": "泄露", "category": "compliance", "owner": "法务"}


async def test_the_register(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00") as tower:
        for probability, impact, band in (
            (1, 4, "LOW"),
            (1, 5, "MEDIUM"),
            (3, 3, "MEDIUM"),
            (2, 5, "HIGH"),
            (4, 4, "HIGH"),
            (4, 5, "EXTREME"),
        ):
            key = f"r{probability}{impact}"
            made = (await tower.called("saveRisk", key=key, **SAID, probability=probability, impact=impact))["risk"]
            assert (made["score"], made["band"], made["status"]) == (probability * impact, band, "OPEN")
        key = made["id"]
        accepted = (await tower.called("acceptRisk", id=key, until="2026-03-12", reason="r"))["risk"]
        assert (accepted["status"], accepted["acceptance"]["until"], accepted["acceptance"]["reason"]) == (
            "ACCEPTED",
            "2026-03-12",
            "r",
        )
        shown = "{ risks(first: 1) { nodes { key status acceptance { until } } } }"
        for time, status in (("2026-03-12T23:59:59", "ACCEPTED"), ("2026-03-13T00:00", "OPEN")):
            tower.set_time(time)
            [found] = (await tower.client.data(shown))["risks"]["nodes"]
            assert (found["key"], found["status"], found["acceptance"] is None) == ("r45", status, status == "OPEN")
        await tower.called("acceptRisk", id=key, until="2026-04-01")
        same = (await tower.called("saveRisk", key="r45", **SAID, probability=4, impact=5, description="more"))["risk"]
        assert same["status"] == "ACCEPTED"
        scored = await tower.called(
            "saveRisk", key="r45", **SAID, probability=4, impact=5, residualProbability=2, residualImpact=5
        )
        assert (scored["risk"]["status"], scored["risk"]["residual"]) == ("OPEN", {"score": 10, "band": "HIGH"})
        matrix = "riskMatrix { score band count }"
        cells = await tower.client.data(f"{{ {matrix} left: {matrix.replace(' {', '(residual: true) {', 1)} }}")
        assert [(cell["score"], cell["count"]) for cell in cells["riskMatrix"] if cell["count"]] == [
            (20, 1), (16, 1), (10, 1), (9, 1), (5, 1), (4, 1)
        ]  # fmt: skip
        assert len(cells["riskMatrix"]) == 25
        assert [(cell["score"], cell["count"]) for cell in cells["left"] if cell["count"]] == [
            (16, 1),
            (10, 2),
            (9, 1),
            (5, 1),
            (4, 1),
        ]
        for wrong, code in (
            ({"probability": 0}, "INVALID_SCORE"),
            ({"impact": 6}, "INVALID_SCORE"),
            ({"residualImpact": 1}, "INVALID_SCORE"),
            ({"category": "content"}, "UNKNOWN_CATEGORY"),
            ({"key": "a b"}, "INVALID_RISK"),
            ({"key": "r" * 61}, "INVALID_RISK"),
            ({"title": "t" * 201}, "INVALID_RISK"),
            ({"owner": ""}, "INVALID_RISK"),
            ({"description": "d" * 2_001}, "INVALID_RISK"),
        ):
            said = {"key": "x", **SAID, "probability": 1, "impact": 1, **wrong}
            assert (await tower.denied("saveRisk", **said))[0] == code
        assert await tower.denied("acceptRisk", id=key, until="2026-03-12") == ("INVALID_ACCEPTANCE", {"until": "2026-03-12"})
        assert (await tower.denied("acceptRisk", id="Risk_" + "0" * 32, until="2026-04-01"))[0] == "RISK_NOT_FOUND"
        closed = await tower.called("saveRisk", key="r45", **SAID, probability=4, impact=5, closed=True)
        assert closed["risk"]["status"] == "CLOSED"
        assert (await tower.denied("acceptRisk", id=key, until="2026-04-01"))[0] == "RISK_CLOSED"
        assert utc("2026-03-13T00:00")
        await tower.check()
