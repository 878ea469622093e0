"""The job that writes off what has expired changes no number, whenever it runs."""

from __future__ import annotations

import pytest

from scrm.testing.client import drain
from tests.plugins.shop import NUMBERS, Shop, opened


async def lapsing(shop: Shop) -> str:
    """Somebody whose 100 points are over on 11 March, 10 of them spent and 20 held for two weeks."""
    user = await shop.member()
    await shop.pay(user, "o1", 10_000)
    await shop.redeem(user, 10)
    await shop.hold(user, 20, 14 * 86_400)
    await shop.expire()  # sees the job for the first time
    return user


async def test_it_writes_what_has_lapsed_and_changes_no_number(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=10) as shop:
        user = await lapsing(shop)
        shop.set_time("2026-03-10T23:59")
        await shop.expire()
        assert await shop.entries(user, "(filter: {kind: [EXPIRE]})") == []
        shop.set_time("2026-03-11T00:00")
        before = await shop.account(user, f"{NUMBERS} held")
        assert (before["balance"], before["expired"], before["held"]) == (0, 70, 20)
        for _ in range(2):
            await shop.expire()
            assert await shop.account(user, f"{NUMBERS} held") == before
            found = await shop.account(user, "entries(filter: {kind: [EXPIRE]}) { nodes { points occurredAt } }")
            assert found["entries"]["nodes"] == [{"points": -70, "occurredAt": "2026-03-10T16:00:00.000000Z"}]
        shop.set_time("2026-03-15T12:00")
        assert await shop.account(user, "expired held") == {"expired": 90, "held": 0}
        await shop.expire()
        assert await shop.entries(user, "(filter: {kind: [EXPIRE]})") == [("EXPIRE", -20), ("EXPIRE", -70)]
        assert await shop.account(user, "expired held") == {"expired": 90, "held": 0}
        await shop.check()


async def test_late_it_says_the_same(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=10) as shop:
        user = await lapsing(shop)
        shop.set_time("2026-04-20T13:40")
        await shop.expire()
        found = await shop.account(user, "expired entries(filter: {kind: [EXPIRE]}) { nodes { points occurredAt } }")
        assert found == {"expired": 90, "entries": {"nodes": [{"points": -90, "occurredAt": "2026-03-10T16:00:00.000000Z"}]}}
        await shop.refund(user, "o1", 10_000)
        assert await shop.account(user, "debt expired") == {"debt": 10, "expired": 90}
        await shop.check()


async def test_what_was_undone_between_is_written_off_later(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=10) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        entry = (await shop.redeem(user, 30))["entry"]["id"]
        await shop.expire()
        shop.set_time("2026-03-12T12:00")
        await shop.expire()
        await shop.done("reversePointsEntry", entryId=entry)
        assert await shop.account(user, "balance expired") == {"balance": 0, "expired": 100}
        shop.set_time("2026-03-12T13:00")
        await shop.expire()
        assert await shop.entries(user, "(filter: {kind: [EXPIRE]})") == [("EXPIRE", -30), ("EXPIRE", -70)]
        assert await shop.account(user, "balance expired") == {"balance": 0, "expired": 100}
        await shop.check()


@pytest.mark.parametrize("change", ["merge", "erase"])
async def test_whoever_has_them_then(migrated_url: str, change: str) -> None:
    async with opened(migrated_url, validity_days=10) as shop:
        kept, user = await shop.member(), await lapsing(shop)
        shop.set_time("2026-03-09T12:00")
        if change == "merge":
            await shop.merge(kept, user)
        else:
            await shop.client.data("mutation($u: ID!) { eraseUser(input: {id: $u}) { errors { code } } }", u=user)
            await drain(shop.client)
        shop.set_time("2026-03-11T12:00")
        await shop.expire()
        if change == "merge":
            assert await shop.entries(kept, "(filter: {kind: [EXPIRE]})") == [("EXPIRE", -70)]
        await shop.check()


@pytest.mark.parametrize(
    ("until", "earned", "day"),
    [
        ("day", "2026-03-01T23:59", "2026-03-11"),
        ("week", "2026-03-01T23:59", "2026-03-16"),
        ("week", "2026-12-25T12:00", "2027-01-04"),
        ("month", "2026-03-01T23:59", "2026-04-01"),
        ("month", "2026-02-19T00:00", "2026-03-01"),
        ("month", "2026-02-18T23:59", "2026-03-01"),
        ("quarter", "2026-03-22T12:00", "2026-04-01"),
        ("quarter", "2026-03-23T12:00", "2026-07-01"),
        ("year", "2026-12-22T23:59", "2027-01-01"),
        ("year", "2026-12-23T00:00", "2028-01-01"),
    ],
)
async def test_points_last_until_the_end_of_a_period(migrated_url: str, until: str, earned: str, day: str) -> None:
    async with opened(migrated_url, earned, validity_days=10, validity_until=until) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        listed = await shop.account(user, "expiring(withinDays: null) { date points }")
        assert listed["expiring"] == [{"date": day, "points": 100}]
        shop.set_time(f"{day}T00:00")
        assert await shop.account(user, "balance expired") == {"balance": 0, "expired": 100}
        await shop.check()
