"""All points together: what they cost, what became of them, and who hears of it."""

from __future__ import annotations

from typing import Any

import pytest

from scrm.testing.client import drain
from scrm.testing.following import following
from tests.plugins.shop import Shop, opened


async def liability(shop: Shop, at: str | None = None) -> tuple[int, int]:
    """Outstanding points and their cost in fen."""
    asked = "query($at: DateTime) { pointsLiability(asOf: $at) { asOf points cost { amountMinor currency formatted } } }"
    found = (await shop.client.data(asked, at=at))["pointsLiability"]
    assert found["cost"]["currency"] == "CNY"
    return found["points"], found["cost"]["amountMinor"]


async def test_money_that_python_computes_is_asked_like_any_other(migrated_url: str) -> None:
    async with opened(migrated_url, unit_cost="0.05") as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        asked = """query($l: String) {
          pointsLiability { cost { amountMinor formatted chinese: formatted(locale: "zh-CN") other: formatted(locale: $l) } }
          program: pointsProgram { unitValue { __typename currency ...words } } }
        fragment words on Money { formatted(locale: $l) }"""
        data = await shop.client.data(asked, l="de")
        assert data["pointsLiability"]["cost"] == {
            "amountMinor": 500,
            "formatted": "¥5.00",
            "chinese": "¥5.00",
            "other": "5,00\xa0CN¥",
        }
        assert data["program"] == {"unitValue": {"__typename": "Money", "currency": "CNY", "formatted": "0,05\xa0CN¥"}}
    async with opened(migrated_url, unit_cost="0.005") as shop:
        await shop.configure({"unit_cost": "0.005"})
        assert await shop.client.data("{ pointsProgram { unitValue { currency } } }") == {"pointsProgram": {"unitValue": None}}


async def test_the_liability_is_what_is_outstanding_at_an_instant(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=10, pending_days=2, unit_cost="0.025") as shop:
        one, other = await shop.member(), await shop.member()
        assert await liability(shop) == (0, 0)
        await shop.pay(one, "o1", 10_000)
        assert await liability(shop) == (100, 250)
        shop.set_time("2026-03-05T12:00")
        await shop.redeem(one, 30)
        await shop.done("transferPoints", userId=one, toUserId=other, points=21)
        hold = await shop.hold(one, 9, 86_400 * 30)
        assert await liability(shop) == (70, 175)
        await shop.pay(other, "o2", 301)
        assert await liability(shop) == (73, 183)  # 182.5 fen
        shop.set_time("2026-03-11T00:00")
        assert await liability(shop) == (12, 30)
        await shop.expire()
        await shop.done("releaseHold", holdId=hold)
        assert await liability(shop) == (3, 8)
        for at, points in (
            ("2026-03-01T03:59:59Z", 0),
            ("2026-03-01T04:00:00Z", 100),
            ("2026-03-05T03:59:59Z", 100),
            ("2026-03-05T04:00:00Z", 73),
            ("2026-03-10T15:59:59Z", 73),
        ):
            assert (await liability(shop, at))[0] == points, at
        await shop.check()


async def months(shop: Shop, count: int) -> list[tuple[Any, ...]]:
    """The report's rows."""
    asked = "query($n: Int!) { pointsReport(months: $n) { month earned redeemed expired breakage } }"
    return [tuple(month.values()) for month in (await shop.client.data(asked, n=count))["pointsReport"]]


async def test_a_month_begins_in_the_business_zone(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-02-28T23:59", validity_days=31) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        shop.set_time("2026-03-01T00:00")
        await shop.pay(user, "o2", 5_000)
        entry = (await shop.redeem(user, 60))["entry"]["id"]
        shop.set_time("2026-03-20T00:00")
        await shop.refund(user, "o1", 1_000)
        assert await months(shop, 2) == [("2026-02-01", 100, 0, 0, None), ("2026-03-01", 50, 60, 0, None)]
        shop.set_time("2026-03-31T00:00")  # o1's 100 are over: 60 spent, 10 taken back
        expected = [("2026-02-01", 100, 0, 0, None), ("2026-03-01", 50, 60, 30, 30 / 90)]
        assert await months(shop, 2) == expected
        await shop.expire()
        shop.set_time("2026-03-31T01:00")
        await shop.expire()
        assert await months(shop, 2) == expected
        await shop.done("reversePointsEntry", entryId=entry)
        assert (await months(shop, 1)) == [("2026-03-01", 50, 0, 90, 1.0)]
        shop.set_time("2026-04-01T00:00")
        assert await months(shop, 1) == [("2026-04-01", 0, 0, 50, 1.0)]
        assert len(await months(shop, 120)) == 120
        await shop.check()


@pytest.mark.parametrize("count", [0, 121])
async def test_a_report_has_1_to_120_months(migrated_url: str, count: int) -> None:
    async with opened(migrated_url) as shop:
        answer = await shop.client.graphql(f"{{ pointsReport(months: {count}) {{ month }} }}")
        assert answer["data"] == {"pointsReport": None}
        assert answer["errors"][0]["extensions"]["code"] == "INVALID_MONTHS"


async def test_who_follows_points_hears_of_every_change(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user, other = await shop.member(), await shop.member()
        document = "subscription($id: ID!) { pointsChanged(userId: $id) { balance held user { id } } }"
        async with following(shop.client, document, id=user) as heard:
            await shop.pay(other, "o0", 1_000)
            await shop.pay(user, "o1", 10_000)
            await drain(shop.client)
            assert (await heard.next())["pointsChanged"] == {"balance": 100, "held": 0, "user": {"id": user}}
            await shop.hold(user, 40)
            await drain(shop.client)
            assert (await heard.next())["pointsChanged"] == {"balance": 60, "held": 40, "user": {"id": user}}
            await shop.redeem(user, 10)
            await drain(shop.client)
            assert (await heard.next())["pointsChanged"] == {"balance": 50, "held": 40, "user": {"id": user}}
