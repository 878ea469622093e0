"""Reviews at the ends of periods: when they are due, what they see, and what they do."""

from __future__ import annotations

from typing import Any

import pytest

from scrm.testing.client import run_jobs
from scrm_tiers import review
from tests.plugins.club import bounds, opened


async def test_a_level_falls_at_the_review_and_not_before(migrated_url: str) -> None:
    async with opened(migrated_url, "2025-03-15T12:00") as club:
        user = await club.member()
        await club.pay(user, "o1", 3_000)
        assert await club.tier(user) == "gold"
        await club.pass_to("2026-03-15T23:59")
        found = await club.membership(user, "tier { key } projectedTier { key } progress { value remaining } validUntil")
        assert found == {
            "tier": {"key": "gold"},
            "projectedTier": {"key": "bronze"},
            "progress": [{"value": 0, "remaining": None}],
            "validUntil": "2026-03-31T16:00:00.000000Z",
        }
        await club.pass_to("2026-03-31T23:59")
        assert await club.tier(user) == "gold"
        await club.pass_to("2026-04-01T00:15")
        assert await club.history(user) == [("UPGRADE", "bronze", "gold"), ("REVIEW", "gold", "bronze")]
        [last, _] = (
            await club.membership(user, "history { nodes { at countedFrom countedTo progress { metric value required } } }")
        )["history"]["nodes"]
        assert last == {
            "at": "2026-03-31T16:00:00.000000Z",
            "countedFrom": "2025-04-01",
            "countedTo": "2026-03-31",
            "progress": [{"metric": "SPEND", "value": 0, "required": 0}],
        }
        assert await club.membership(user, "tier { key } since validUntil") == {
            "tier": {"key": "bronze"},
            "since": "2026-03-31T16:00:00.000000Z",
            "validUntil": None,
        }
        await club.check()


@pytest.mark.parametrize(
    ("paid", "still", "gone"),
    [  # the last day on which it counts, and the next
        ("2025-03-31T23:59:59", "2026-03-30T12:00", "2026-03-31T00:00"),
        ("2025-04-01T00:00:00", "2026-03-31T23:59", "2026-04-01T00:00"),
        ("2023-02-28T12:00:00", "2024-02-27T12:00", "2024-02-28T00:00"),
        ("2023-03-01T12:00:00", "2024-02-29T12:00", "2024-03-01T00:00"),
        ("2024-02-28T12:00:00", "2025-02-27T12:00", "2025-02-28T00:00"),
        ("2024-02-29T12:00:00", "2025-02-28T12:00", "2025-03-01T00:00"),
    ],
)
async def test_a_rolling_year_by_the_day(migrated_url: str, paid: str, still: str, gone: str) -> None:
    async with opened(migrated_url, paid) as club:
        user = await club.member()
        await club.pay(user, "o1", 1_000)
        assert await club.value(user) == 1_000
        club.set_time(still)
        assert await club.value(user) == 1_000
        club.set_time(gone)
        assert await club.value(user) == 0
        await club.check()


async def test_the_29th_of_february_looks_back_to_the_28th(migrated_url: str) -> None:
    async with opened(migrated_url, "2027-02-28T12:00") as club:
        user = await club.member()
        await club.pay(user, "o1", 1_000)
        club.set_time("2028-02-27T12:00")
        assert await club.value(user) == 1_000
        for gone in ("2028-02-28T12:00", "2028-02-29T12:00"):
            club.set_time(gone)
            assert await club.value(user) == 0
        await club.check()


@pytest.mark.parametrize(
    ("paid", "at", "tier"),
    [  # the review on the 1st is as of the last day of the month: what the window loses on the 1st itself is still seen
        ("2025-03-01T00:00:00", "2026-03-01T00:15", "silver"),
        ("2025-02-28T23:59:59", "2026-03-01T00:15", "bronze"),
        ("2025-01-31T12:00:00", "2026-02-01T00:15", "bronze"),
        ("2025-02-01T00:00:00", "2026-02-01T00:15", "silver"),
        ("2023-03-01T00:00:00", "2024-03-01T00:15", "silver"),
        ("2023-02-28T23:59:59", "2024-03-01T00:15", "bronze"),
        ("2024-02-29T23:59:59", "2025-03-01T00:15", "silver"),
        ("2024-02-28T23:59:59", "2025-03-01T00:15", "bronze"),
    ],
)
async def test_a_review_is_as_of_the_last_day_of_the_period(migrated_url: str, paid: str, at: str, tier: str) -> None:
    async with opened(migrated_url, paid) as club:
        user = await club.member()
        await club.pay(user, "o1", 1_000)
        await club.pass_to(at)
        assert await club.tier(user) == tier
        await club.check()


@pytest.mark.parametrize(("window", "last"), [("CALENDAR_YEAR", "2026-12-31T23:59:59"), ("LIFETIME", None)])
async def test_a_calendar_year_begins_anew_and_a_life_does_not(migrated_url: str, window: str, last: str | None) -> None:
    async with opened(migrated_url, "2026-01-01T00:00", window=window) as club:
        user = await club.member()
        await club.pay(user, "o1", 400)
        await club.pay(user, "o2", 600, "2025-12-31T23:59:59")  # late, and in the year before
        assert await club.value(user) == (400 if last else 1_000)
        await club.pay(user, "o3", 600)
        assert await club.tier(user) == "silver"
        await club.pass_to("2026-12-31T23:59:59")
        assert await club.value(user) == (1_000 if last else 1_600)
        await club.pass_to("2027-01-01T00:15")
        assert (await club.value(user), await club.tier(user)) == ((0, "silver") if last else (1_600, "silver"))
        await club.pass_to("2028-01-01T00:15")
        assert await club.tier(user) == ("bronze" if last else "silver")
        first = (await club.membership(user, "history(last: 1) { nodes { countedFrom countedTo } }"))["history"]["nodes"]
        assert first == [{"countedFrom": "2026-01-01" if last else None, "countedTo": "2026-01-01"}]
        await club.check()


async def test_days_end_at_midnight_in_the_business_zone(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-31T23:59:59") as club:
        early, late = await club.member(), await club.member()
        await club.pay(early, "o1", 1_000, "2025-03-31T23:59:59")  # 15:59:59 in UTC
        await club.pay(late, "o2", 1_000, "2025-04-01T00:00:00")
        assert [await club.tier(user) for user in (early, late)] == ["silver", "silver"]
        assert [await club.value(user) for user in (early, late)] == [0, 1_000]
        await club.pass_to("2026-04-01T00:15")
        assert [await club.tier(user) for user in (early, late)] == ["bronze", "silver"]
        await club.check()


async def test_a_refund_waits_for_the_review(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        await club.pay(user, "o1", 1_000)
        await club.refund(user, "o1", 1)
        assert await club.membership(user, "tier { key } projectedTier { key } progress { value }") == {
            "tier": {"key": "silver"},
            "projectedTier": {"key": "bronze"},
            "progress": [{"value": 999}],
        }
        await club.pay(user, "o2", 1)
        await club.pass_to("2026-04-01T00:15")
        assert await club.history(user) == [("UPGRADE", "bronze", "silver")]
        club.set_time("2026-04-30T23:59")
        await club.refund(user, "o2", 1)
        await club.pass_to("2026-05-01T00:15")
        assert await club.history(user) == [("UPGRADE", "bronze", "silver"), ("REVIEW", "silver", "bronze")]
        await club.check()


async def test_a_refund_after_the_period_is_not_seen_by_its_review(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        await club.pay(user, "o1", 1_000)
        club.set_time("2026-04-01T00:05")
        await club.refund(user, "o1", 1_000)
        await club.pass_to("2026-04-02T00:20")  # the job comes late
        assert await club.tier(user) == "silver"
        await club.pass_to("2026-05-01T00:15")
        assert await club.tier(user) == "bronze"
        await club.check()


async def test_a_refund_counts_on_the_day_of_its_order(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-01-10T12:00", levels=bounds("spend", 0, 1_000, orders=(0, 2)), match="ANY") as club:
        user = await club.member()
        club.set_time("2026-01-12T12:00")
        await club.refund(user, "o1", 300, "2026-01-11T12:00")  # it comes before its order
        await club.pay(user, "o1", 900, "2026-01-10T12:00")
        await club.pay(user, "o2", 400, "2026-01-11T12:00")
        assert [await club.value(user, metric) for metric in ("SPEND", "ORDERS")] == [1_000, 2]
        await club.refund(user, "o2", 500, "2026-01-12T12:00")  # more than it was
        assert [await club.value(user, metric) for metric in ("SPEND", "ORDERS")] == [600, 1]
        club.set_time("2027-01-10T12:00")  # o1 is out of the window, with its refund
        assert [await club.value(user, metric) for metric in ("SPEND", "ORDERS")] == [0, 0]
        await club.check()


async def twice_late_or_lazy(url: str, how: str) -> list[tuple[str, str | None, str | None]]:
    """A year of one member, reviewed on time, late, twice, or with the first event after the period."""
    async with opened(url, "2025-01-10T12:00") as club:
        user = await club.member()
        await club.pay(user, "o1", 3_000)
        club.set_time("2025-06-10T12:00")
        await club.pay(user, "o2", 1_000)
        if how in ("on time", "twice"):
            await club.pass_to("2026-02-01T00:15")
        if how == "twice":
            assert (await club.review())["changed"] == 0
            await club.run_jobs()
        club.set_time("2026-02-10T12:00")
        await club.pay(user, "o3", 2_000)  # with o2 gold again
        await club.refund(user, "o3", 2_000)
        if how == "late":
            await club.pass_to("2026-02-20T00:15")
        assert (await club.review())["errors"] == []
        assert (await club.review())["changed"] == 0
        assert await club.tier(user) == "gold"
        await club.check()
        return await club.history(user)


@pytest.mark.parametrize("how", ["on time", "twice", "late", "lazy"])
async def test_a_review_is_the_same_whenever_it_is_done(migrated_url: str, how: str) -> None:
    assert await twice_late_or_lazy(migrated_url, how) == [
        ("UPGRADE", "bronze", "gold"),
        ("REVIEW", "gold", "silver"),
        ("UPGRADE", "silver", "gold"),
    ]


async def test_reviews_that_were_missed_are_done_one_by_one(migrated_url: str) -> None:
    async with opened(migrated_url, "2025-01-10T12:00", downgrade="ONE_DOWN") as club:
        user = await club.member()
        await club.pay(user, "o1", 3_000)
        await club.pass_to("2026-01-31T12:00")
        club.set_time("2026-03-20T12:00")
        await club.run_jobs()
        nodes = (await club.membership(user, "history { nodes { at to { key } } }"))["history"]["nodes"]
        assert [(node["at"], node["to"]["key"]) for node in nodes] == [
            ("2026-02-28T16:00:00.000000Z", "bronze"),
            ("2026-01-31T16:00:00.000000Z", "silver"),
            ("2025-01-10T04:00:00.000000Z", "gold"),
        ]
        await club.check()


@pytest.mark.parametrize(
    ("rules", "tiers"),
    [
        ({"downgrade": "TO_LEVEL"}, ["bronze", "bronze", "bronze", "bronze"]),
        ({"downgrade": "ONE_DOWN"}, ["silver", "bronze", "bronze", "bronze"]),
        ({"downgrade": "NEVER"}, ["gold", "gold", "gold", "gold"]),
        ({"grace": 1}, ["gold", "bronze", "bronze", "bronze"]),
        ({"grace": 2}, ["gold", "gold", "bronze", "bronze"]),
        ({"grace": 1, "downgrade": "ONE_DOWN"}, ["gold", "silver", "silver", "bronze"]),
    ],
)
async def test_grace_and_how_far_a_level_falls(migrated_url: str, rules: dict[str, Any], tiers: list[str]) -> None:
    async with opened(migrated_url, "2025-03-15T12:00", **rules) as club:
        user = await club.member()
        await club.pay(user, "o1", 3_000)
        found = []
        for month in (4, 5, 6, 7):
            await club.pass_to(f"2026-0{month}-01T00:15")
            found.append(await club.tier(user))
        assert found == tiers
        await club.check()


async def test_grace_begins_anew_after_a_review_that_is_passed(migrated_url: str) -> None:
    async with opened(migrated_url, "2025-03-15T12:00", grace=1) as club:
        user = await club.member()
        await club.pay(user, "o1", 1_000)
        assert (await club.membership(user, "validUntil"))["validUntil"] == "2025-04-30T16:00:00.000000Z"
        await club.pass_to("2026-04-01T00:15")  # failed, and let pass
        assert (await club.membership(user, "validUntil"))["validUntil"] == "2026-04-30T16:00:00.000000Z"
        await club.pay(user, "o2", 1_000)
        await club.pass_to("2026-05-01T00:15")  # passed
        assert (await club.membership(user, "validUntil"))["validUntil"] == "2026-06-30T16:00:00.000000Z"
        await club.refund(user, "o2", 1_000)
        await club.pass_to("2026-06-01T00:15")
        assert await club.tier(user) == "silver"
        await club.pass_to("2026-07-01T00:15")
        assert await club.tier(user) == "bronze"
        await club.check()


@pytest.mark.parametrize(
    ("review", "before", "after"),
    [
        ("MONTH", "2026-03-31T23:59", "2026-04-01T00:15"),
        ("QUARTER", "2026-03-31T23:59", "2026-04-01T00:15"),
        ("YEAR", "2026-12-31T23:59", "2027-01-01T00:15"),
    ],
)
async def test_periods(migrated_url: str, review: str, before: str, after: str) -> None:
    async with opened(migrated_url, "2025-03-15T12:00", review=review) as club:
        user = await club.member()
        await club.pay(user, "o1", 1_000)
        await club.pass_to(before)
        assert await club.tier(user) == "silver"
        await club.pass_to(after)
        assert await club.tier(user) == "bronze"
        await club.check()


async def test_a_review_to_come_is_refused(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        refused = await club.review(asOf="2026-03-01T04:00:00.000001Z")
        assert [(error["code"], error["path"]) for error in refused["errors"]] == [("REVIEW_IN_THE_FUTURE", ["asOf"])]
        done = await club.review(asOf="2026-02-28T15:59:59Z", idempotencyKey="k")
        assert done == {"day": "2026-02-01", "changed": 0, "left": 0, "errors": []}
        assert await club.review(asOf="2026-02-28T15:59:59Z", idempotencyKey="k") == done
        await club.check()


async def test_a_review_and_an_event_of_its_very_instant(migrated_url: str) -> None:
    async with opened(migrated_url, "2025-03-15T12:00") as club:
        user = await club.member()
        await club.pay(user, "o1", 1_000)
        club.set_time("2026-04-01T00:00:00")
        await club.pay(user, "o2", 3_000)
        nodes = (await club.membership(user, "history { nodes { at } }"))["history"]["nodes"]
        assert nodes[0] == nodes[1]
        assert await club.history(user) == [
            ("UPGRADE", "bronze", "silver"),
            ("REVIEW", "silver", "bronze"),
            ("UPGRADE", "bronze", "gold"),
        ]
        await club.check()


@pytest.mark.parametrize("how", ["by the job", "by the next event"])
@pytest.mark.parametrize(
    ("amount", "after", "history"),
    [
        (1_000, "silver", [("UPGRADE", "bronze", "silver")]),
        (999, "bronze", [("UPGRADE", "bronze", "silver"), ("REVIEW", "silver", "bronze")]),
        (3_000, "gold", [("UPGRADE", "bronze", "silver"), ("UPGRADE", "silver", "gold")]),
    ],
)
async def test_an_event_of_tomorrow_makes_no_review_early(
    migrated_url: str, how: str, amount: int, after: str, history: list[Any]
) -> None:
    async with opened(migrated_url, "2025-03-15T12:00") as club:
        user = await club.member()
        await club.pay(user, "o1", 1_000)
        await club.pass_to("2026-03-31T12:00")
        await club.pay(user, "o2", amount, "2026-04-01T10:00")
        assert await club.tier(user) == ("gold" if amount == 3_000 else "silver")
        assert await club.history(user) == history[: 1 + (amount == 3_000)]
        assert (await club.membership(user, "validUntil"))["validUntil"] == "2026-03-31T16:00:00.000000Z"
        if how == "by the job":
            await club.pass_to("2026-04-01T12:00")
        else:
            club.set_time("2026-04-01T12:00")
            await club.refund(user, "unheard of", 1)
        assert (await club.tier(user), await club.history(user)) == (after, history)
        await club.check()


async def test_what_comes_after_an_event_of_tomorrow_counts_for_the_old_period(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-12-31T12:00", window="CALENDAR_YEAR") as club:
        user, new = await club.member(), await club.member()
        await club.pay(user, "o0", 1)
        for each in (user, new):
            await club.pay(each, "o1", 10, "2027-01-01T10:00")
            await club.pay(each, "o2", 1_000)
            assert await club.tier(each) == "silver"
        await club.set_tier(user, "gold", "2027-06-01T00:00")
        await club.clear_tier(user)
        assert await club.tier(user) == "silver"
        await club.pass_to("2027-01-01T12:00")
        assert [await club.tier(each) for each in (user, new)] == ["silver", "silver"]
        await club.pass_to("2028-01-01T12:00")
        assert [await club.tier(each) for each in (user, new)] == ["bronze", "bronze"]
        await club.check()


DUE = '{ events(filter: {type: ["tier.review_due"]}) { totalCount } }'


async def test_many_are_reviewed_a_part_at_a_time(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(migrated_url, "2025-03-15T12:00") as club:
        users = [await club.member() for _ in range(5)]
        for user in users:
            await club.pay(user, "o", 1_000)
        await club.pass_to("2026-03-31T12:00")
        before = (await club.client.data(DUE))["events"]["totalCount"]
        monkeypatch.setattr(review, "PART", 2)

        async def still(at: str) -> int:
            club.set_time(at)
            await club.run_jobs()
            return [await club.tier(user) for user in users].count("silver")

        assert await still("2026-04-01T00:14:59") == 5  # until 00:15 the last minutes before midnight may come
        club.set_time("2026-04-01T00:15:00")
        assert await run_jobs(club.client, club.now) == 1
        assert await still("2026-04-01T00:16:00") == 3  # it said the same part again, because nobody had read the first
        assert await still("2026-04-01T00:17:00") == 1
        assert await club.review() == {"day": "2026-04-01", "changed": 1, "left": 0, "errors": []}
        assert await still("2026-04-01T00:18:00") == 0
        assert (await club.client.data(DUE))["events"]["totalCount"] == before + 3
        assert [len(await club.history(user)) for user in users] == [2] * 5
        await club.check()
