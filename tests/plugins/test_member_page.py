"""Points and levels together: they learn of each other by events alone, and a member's page is one request and one statement."""

from __future__ import annotations

from typing import Any

import pytest

from tests.plugins.club import THREE, bounds, opened

PAGE = """query($id: ID!) { user(id: $id) {
  points { balance pending debt expiring(withinDays: 30) { date points }
           entries(first: 20) { nodes { kind points reason rule occurredAt expiresAt } } }
  membership { tier { key name benefits { key value } } validUntil nextTier { key } projectedTier { key }
               progress { metric value required remaining money { amountMinor } }
               history(first: 5) { nodes { cause from { key } to { key } at } } }
} }"""
GOLD = {**THREE[2], "benefits": [{"key": "birthday_gift", "name": "生日礼", "value": True}]}


async def test_a_members_page_is_one_statement(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(migrated_url, loyalty=True, levels=[*THREE[:2], GOLD]) as club:
        user = await club.member()
        await club.pay(user, "o1", 2_500)
        await club.pay(user, "o2", 10_000)
        spent = await club.done("redeemPoints", userId=user, points=30, reason="coffee")
        assert spent["entry"]["points"] == -30
        club.set_time("2027-02-20T12:00")
        sent: list[str] = []
        db = club.client.services.db
        fetch = type(db).fetch

        async def counted(self: Any, sql: str, parameters: Any) -> Any:
            sent.append(sql)
            return await fetch(self, sql, parameters)

        monkeypatch.setattr(type(db), "fetch", counted)
        found = (await club.client.data(PAGE, id=user))["user"]
        assert len(sent) == 1
        assert found["points"]["balance"] == 25 + 150 - 30  # o1 made silver, whose 1.5 counts from the next order on
        assert found["points"]["expiring"] == [{"date": "2027-03-01", "points": 145}]
        entries = [(node["kind"], node["points"], node["reason"]) for node in found["points"]["entries"]["nodes"]]
        assert sorted(entries) == [("EARN", 25, None), ("EARN", 150, None), ("REDEEM", -30, "coffee")]
        membership = found["membership"]
        benefits = [{"key": "multiplier", "value": "2"}, {"key": "birthday_gift", "value": True}]
        assert membership["tier"] == {"key": "gold", "name": "金", "benefits": benefits}
        assert (membership["nextTier"], membership["projectedTier"]) == (None, {"key": "gold"})
        assert membership["progress"][0]["money"] == {"amountMinor": 12_500}
        assert [(node["cause"], node["to"]["key"]) for node in membership["history"]["nodes"]] == [
            ("UPGRADE", "gold"),
            ("UPGRADE", "silver"),
        ]


async def test_a_level_that_falls_multiplies_less_from_then_on(migrated_url: str) -> None:
    async with opened(migrated_url, at="2026-03-01T12:00", loyalty=True) as club:
        user = await club.member()
        await club.pay(user, "o1", 3_000)
        await club.pay(user, "o2", 1_000)
        assert await club.balance(user) == 30 + 20
        await club.pass_to("2027-04-01T00:30")
        assert await club.tier(user) == "bronze"
        before = await club.balance(user)
        await club.pay(user, "o3", 700)
        assert await club.balance(user) - before == 7
        await club.check()


async def test_what_another_scheme_would_have_meant_is_told_and_changes_nothing(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        users = [await club.member() for _ in range(4)]
        for user, amount in zip(users, (3_000, 1_000, 1_500, 10), strict=True):
            await club.pay(user, "o", amount)
        await club.set_tier(users[3], "gold", "2026-06-01T00:00")
        await club.pass_to("2026-04-01T00:30")
        strict = bounds("spend", 0, 1_500)
        report = await club.suppose({"levels": strict, "review": "YEAR"})
        assert report.tables["tiers_accounts"].moves["tier"] == [("gold", "silver", 1), ("silver", None, 1), ("gold", None, 1)]
        assert (report.equal, report.left_out) == (False, 1)  # nobody could have been given a level that there is not
        assert [await club.tier(user) for user in users] == ["gold", "silver", "silver", "gold"]
        assert (await club.suppose({"levels": THREE})).equal
        await club.check()
