"""Earn rules are data: what earns, how much, on which days, and how often."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

import scrm_loyalty
from scrm.testing.client import plugin_status, replayed
from scrm_loyalty import earn_rules, earning, facts, ledger, limits, rules
from tests.plugins import levels
from tests.plugins.shop import Shop, opened

LIKE = {"key": "like", "event": "content.liked", "fixed": 10, "once_per": "contentId", "cap_per_day": 25}
ORDER = {"key": "order", "event": "order.paid", "per_unit": 1}


def like(shop: Shop, user: str, content: str | None, at: str | None = None) -> Any:
    return shop.event("content.liked", user, None, None, at, properties={"contentId": content} if content else {})


async def codes(shop: Shop, event: Any) -> list[tuple[str, str | None]]:
    """Why an event would not earn more."""
    asked = "query($i: EventInput!) { previewPoints(input: $i) { points why { code rule message } } }"
    said = (await shop.client.data(asked, i=event))["previewPoints"]
    assert all(one["message"] for one in said["why"])
    return [(one["code"], one["rule"]) for one in said["why"]]


async def test_once_per_content_and_at_most_so_many_a_day(migrated_url: str) -> None:
    async with opened(migrated_url, at="2026-03-02T12:00", earn=[LIKE]) as shop:
        user = await shop.member()
        await shop.send(like(shop, user, "a"), like(shop, user, "a"), like(shop, user, None))
        assert await shop.balance(user) == 10
        assert await codes(shop, like(shop, user, "a")) == [("EARNED_BEFORE", "like")]
        assert await codes(shop, like(shop, user, None)) == [("NOTHING_TO_TELL_APART", "like")]
        await shop.send(like(shop, user, "b"))
        assert await codes(shop, like(shop, user, "c")) == [("DAY_CAP", "like")]
        await shop.send(like(shop, user, "c"), like(shop, user, "d"))
        assert await shop.balance(user) == 25
        await shop.send(like(shop, user, "e", "2026-03-01T23:59"))
        assert await shop.balance(user) == 35
        await shop.send(like(shop, user, "c", "2026-03-01T23:59"), like(shop, user, "d", "2026-03-01T23:59"))
        assert await shop.balance(user) == 45  # c has earned, if only 5; d came when the cap was full, and has not
        await shop.pay(user, "o1", 10_000)
        assert await shop.balance(user) == 45  # no rule is for orders
        said = await shop.account(user, "entries { nodes { rule reference points } }")
        assert {"rule": "like", "reference": "d", "points": 10} in said["entries"]["nodes"]
        await shop.check()


async def test_caps_of_a_period_and_for_ever(migrated_url: str) -> None:
    rule = {"key": "visit", "event": "page.viewed", "fixed": 4, "cap_per_period": 10, "period": "week", "cap_lifetime": 14}
    async with opened(migrated_url, earn=[rule]) as shop:
        user = await shop.member()

        async def view(at: str) -> int:
            await shop.send(shop.event("page.viewed", user, None, None, at, properties={"page": "/"}))
            return await shop.balance(user)

        assert [await view(f"2026-02-2{day}T12:00") for day in (3, 4, 5)] == [4, 8, 10]  # Monday to Wednesday
        assert await view("2026-02-22T23:59") == 14  # the Sunday before is another week, and it is all there ever is
        assert await view("2026-02-28T12:00") == 14
        event = shop.event("page.viewed", user, None, None, None, properties={"page": "/"})
        assert await codes(shop, event) == [("LIFETIME_CAP", "visit")]
        await shop.check()


async def test_a_cap_counts_what_one_request_brings(migrated_url: str) -> None:
    async with opened(migrated_url, earn=[{**LIKE, "cap_per_day": 35}]) as shop:
        users = [await shop.member() for _ in range(2)]
        await shop.send(*(like(shop, user, str(n)) for n in range(20) for user in users))
        assert [await shop.balance(user) for user in users] == [35, 35]
        await shop.check()


async def test_days_and_dates_on_which_a_rule_counts(migrated_url: str) -> None:
    days = {"key": "member-day", "event": "order.paid", "per_unit": 1, "days_of_month": [8], "weekdays": ["sun"]}
    summer = {"key": "summer", "event": "order.paid", "fixed": 5, "from_date": "2026-03-02", "until_date": "2026-03-03"}
    async with opened(migrated_url, at="2026-03-20T12:00", earn=[ORDER, days, summer]) as shop:
        user = await shop.member()

        async def pay(order: str, at: str) -> int:
            before = await shop.balance(user)
            await shop.pay(user, order, 10_000, at)
            return await shop.balance(user) - before

        assert await pay("o1", "2026-03-01T23:59") == 100
        assert await pay("o2", "2026-03-02T00:00") == 105
        assert await pay("o3", "2026-03-03T23:59") == 105
        assert await pay("o4", "2026-03-04T00:00") == 100
        assert await pay("o5", "2026-03-08T12:00") == 200  # a Sunday, and the 8th
        assert await codes(shop, shop.event("order.paid", user, "o6", 10_000, "2026-02-08T12:00")) == [("NOT_THIS_DAY", "summer")]
        assert await codes(shop, shop.event("order.paid", user, "o6", 10_000, "2026-02-09T12:00")) == [
            ("NOT_THIS_DAY", "member-day"),
            ("NOT_THIS_DAY", "summer"),
        ]
        await shop.refund(user, "o5", 5_000)
        assert await shop.balance(user) == 510  # half of what both rules gave
        await shop.check()


async def test_a_filter_chooses_events(migrated_url: str) -> None:
    rule = {"key": "shoes", "event": "order.paid", "fixed": 7, "filter": [{"key": "store", "in": ["Bund", "Jing'an"]}]}
    async with opened(migrated_url, earn=[ORDER, rule]) as shop:
        user = await shop.member()

        def order(name: str, store: Any) -> Any:
            return shop.event("order.paid", user, None, 150, None, properties={"orderId": name, "store": store})

        await shop.send(order("o1", "Bund"), order("o2", "Pudong"))
        assert await shop.balance(user) == 9
        assert await codes(shop, order("o3", "Pudong")) == [("ROUNDED_DOWN", "order"), ("NOT_SUCH_EVENTS", "shoes")]
        await shop.check()


async def test_points_that_an_event_says(migrated_url: str) -> None:
    rule = {"key": "quiz", "event": "quiz.won", "points_property": "prize", "cap_lifetime": 50}
    async with opened(migrated_url, earn=[rule]) as shop:
        user = await shop.member()
        for prize in (20, "30", True, -4, 0, 1.5, None, 2**60, 40):
            await shop.send(shop.event("quiz.won", user, None, None, None, properties={"prize": prize}))
        assert await shop.entries(user) == [("EARN", 30), ("EARN", 20)]
        lacking = shop.event("quiz.won", user, None, None, None, properties={})
        assert await codes(shop, lacking) == [("NO_POINTS", "quiz")]
        await shop.check()


async def test_a_value_that_earns_once_is_itself_and_no_other(migrated_url: str) -> None:
    async with opened(migrated_url, earn=[{"key": "once", "event": "quiz.won", "fixed": 1, "once_per": "quiz"}]) as shop:
        user = await shop.member()
        for quiz in (1, "1", 1.0, 1.5, "1", True, "true", "q" * 300, "q" * 300, ["a"], None):
            await shop.send(shop.event("quiz.won", user, None, None, None, properties={"quiz": quiz}))
        assert await shop.balance(user) == 7
        await shop.check()


async def test_no_event_earns_more_than_can_be_summed(migrated_url: str) -> None:
    rules = [{"key": "prize", "event": "quiz.won", "points_property": "prize"}, {**ORDER, "per_unit": 100}]
    async with opened(migrated_url, beside={"levels": levels}, earn=rules) as shop:
        user = await shop.member()
        await shop.level(user, "100")
        large = shop.event("quiz.won", user, None, None, None, properties={"prize": 10**9})
        assert await codes(shop, large) == []
        await shop.send(large, shop.event("quiz.won", user, None, None, None, properties={"prize": 10**9 + 1}))
        assert await shop.balance(user) == 10**11
        order = shop.event("order.paid", user, "o1", 10**15, None)
        assert await codes(shop, order) == [("TOO_MANY", "order")]
        await shop.send(order)
        assert await shop.balance(user) == 10**11
        await shop.check()


async def test_a_changed_rule_counts_from_then_on_and_a_refund_takes_back_what_was_given(migrated_url: str) -> None:
    async with opened(migrated_url, earn=[ORDER]) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        rules = {"earn": [{**ORDER, "per_unit": 3}, LIKE]}
        await shop.configure(rules)
        await shop.pay(user, "o2", 10_000)
        await shop.send(like(shop, user, "a"))
        assert await shop.balance(user) == 410
        await shop.refund(user, "o1", 5_000)
        assert await shop.balance(user) == 360
        await shop.configure({"earn": [{**ORDER, "per_unit": 2}]})
        await shop.send(like(shop, user, "b"))
        assert await shop.balance(user) == 360
        report = await replayed(shop.client, "loyalty")
        assert report.equal, report.differences


async def test_what_other_rules_would_have_meant_is_told_and_changes_nothing(migrated_url: str) -> None:
    async with opened(migrated_url, earn=[ORDER], hold_seconds=86_400) as shop:
        user, other = await shop.member(), await shop.member()
        await shop.pay(user, "o1", 10_000)
        spent = await shop.done("redeemPoints", userId=user, points=60)
        hold, kept = await shop.hold(user, 10), await shop.hold(user, 5)
        await shop.done("captureHold", holdId=hold, points=8)
        await shop.done("releaseHold", holdId=kept)
        await shop.done("transferPoints", userId=user, toUserId=other, points=20)
        await shop.done("reversePointsEntry", entryId=spent["entry"]["id"])
        given = await shop.done("adjustPoints", userId=user, points=4, reason="sorry")
        await shop.done("reversePointsEntry", entryId=given["entry"]["id"])
        await shop.done("adjustPoints", userId=user, points=-3, reason="taken")
        await shop.refund(user, "o1", 9_900)
        before = await shop.account(user), await shop.account(other)

        async def suppose(per_unit: float, **more: Any) -> Any:
            return await shop.suppose({"earn": [{**ORDER, "per_unit": per_unit, **more}]})

        same = await suppose(1)
        assert (same.equal, same.left_out) == (True, 0)
        double = await suppose(2)
        assert double.left_out == 0
        assert double.tables["loyalty_lots"].sums["original"] == (120 + 4, 220 + 4)
        half = await suppose(0.5)  # 50 points: the redemption of 60 is not made, and so not undone
        assert half.left_out == 2
        assert half.tables["loyalty_orders"].sums["points"] == (100, 50)
        none = await suppose(1, from_date="2099-01-01")
        assert none.left_out == 8  # all but what was given by hand, and taken back
        assert none.tables["loyalty_entries"].replayed == 2
        assert (await shop.account(user), await shop.account(other)) == before
        await shop.check()


async def test_what_two_profiles_earned_counts_together_once_they_are_one(migrated_url: str) -> None:
    async with opened(migrated_url, earn=[LIKE]) as shop:
        kept, absorbed = await shop.member(), await shop.member()
        await shop.send(like(shop, kept, "a"), like(shop, absorbed, "b"))
        merge = await shop.merge(kept, absorbed)
        await shop.send(like(shop, kept, "b"), like(shop, kept, "c"))
        assert await shop.balance(kept) == 25
        await shop.unmerge(merge)
        await shop.send(like(shop, absorbed, "c"))
        assert (await shop.balance(kept), await shop.balance(absorbed)) == (15, 20)
        await shop.check()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({}, "EARN_AMOUNT"),
        ({"fixed": 1, "per_unit": 1}, "EARN_AMOUNT"),
        ({"fixed": 0}, "greater than or equal to 1"),
        ({"fixed": 1, "event": "order.refunded"}, "EVENT_CANNOT_EARN"),
        ({"fixed": 1, "event": "points.earned"}, "EVENT_CANNOT_EARN"),
        ({"fixed": 1, "weekdays": ["sunday"]}, "'sun'"),
        ({"fixed": 1, "days_of_month": [32]}, "less than or equal to 31"),
        ({"fixed": 1, "filter": [{"key": "a", "like": "b"}]}, "filter.0.like has no known operator"),
        ({"fixed": 1, "capp": 3}, "capp"),
        ({"fixed": 1, "key": "order"}, "EARN_KEY_TWICE"),
        ({"fixed": 1, "event": "user.updated", "filter": [{"key": "phone", "exists": True}]}, ""),
    ],
)
def test_rules_that_are_wrong_are_refused_at_start(rule: dict[str, Any], said: str) -> None:
    status = loaded([ORDER, {"key": "wrong", "event": "page.viewed", **rule}])
    if said:
        assert said in (status.reason or ""), status
    else:
        assert status.reason is None


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"per_unit": 0}, "per_unit is 0"),
        ({"fixed": 1, "until_date": "2020-01-01"}, "until_date 2020-01-01 is over"),
        ({"fixed": 1, "from_date": "2099-02-01", "until_date": "2099-01-31"}, "is before from_date"),
        ({"fixed": 1, "from_date": "2099-02-01", "until_date": "2099-02-28", "days_of_month": [29, 30, 31]}, "no day is one of"),
        ({"fixed": 1, "from_date": "2099-02-01", "until_date": "2099-02-02", "weekdays": ["sat"]}, "no day is one of"),
        ({"fixed": 1, "filter": [{"key": "a", "eq": 1}, {"key": "a", "eq": 2}]}, "a cannot be eq 1 and eq 2"),
        ({"fixed": 1, "filter": [{"key": "a", "gt": 5, "lte": 5}]}, "a cannot be gt 5 and lte 5"),
        ({"points_property": "prize", "filter": [{"key": "prize", "lte": 0}]}, "prize cannot be"),
        ({"points_property": "prize", "filter": {"prize": "many"}}, "prize cannot be"),
        ({"fixed": 1, "once_per": "contentId", "filter": [{"key": "contentId", "exists": False}]}, "contentId cannot be"),
        ({"fixed": 1, "filter": [{"key": "a", "exists": False, "ne": "x"}]}, "a cannot be exists False and ne 'x'"),
        ({"fixed": 1, "event": "page.veiwed"}, "name the event type page.veiwed, which nobody registers"),
    ],
)
def test_a_rule_that_can_never_fire_is_a_warning_that_names_it(rule: dict[str, Any], said: str) -> None:
    status = loaded([ORDER, {"key": "idle", "event": "page.viewed", **rule}])
    assert status.reason is None
    [warning] = status.warnings
    assert said in warning
    assert ("earn rule idle" in warning) == ("nobody registers" not in warning)


def test_rules_that_can_fire_warn_of_nothing() -> None:
    rules = [
        {
            "key": "leap",
            "event": "page.viewed",
            "fixed": 1,
            "days_of_month": [29],
            "weekdays": ["thu"],
            "from_date": "2096-03-01",
        },
        {
            "key": "both",
            "event": "page.viewed",
            "fixed": 1,
            "filter": [{"key": "a", "gte": 5, "lte": 5}, {"key": "b", "in": [1]}],
        },
        {"key": "last", "event": "page.viewed", "fixed": 1, "until_date": "2999-12-31"},
    ]
    assert loaded(rules).warnings == ()


def loaded(rules: list[dict[str, Any]]) -> Any:
    """How loyalty comes up with these earn rules."""
    return plugin_status("loyalty", scrm_loyalty, {"earn": rules})


async def test_a_level_multiplies_points(migrated_url: str) -> None:
    async with opened(migrated_url, beside={"levels": levels}, earn=[ORDER, {**LIKE, "tier_multiplier": False}]) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        await shop.level(user, "1.5")
        await shop.pay(user, "o2", 10_033)
        await shop.send(like(shop, user, "a"))
        assert await shop.entries(user) == [("EARN", 10), ("EARN", 150), ("EARN", 100)]
        await shop.level(user, "junk")
        await shop.level(user, "101")
        await shop.pay(user, "o2", 34)
        assert await shop.balance(user) == 261  # 1.5 × 100.67 is 151, rounded once
        await shop.level(user, "1.000")
        await shop.pay(user, "o3", 10_000)
        assert await shop.balance(user) == 361
        await shop.check()


README = Path(scrm_loyalty.__file__).with_name("README.md").read_text(encoding="utf-8")


async def test_the_earn_rules_of_the_readme_give_what_it_says(migrated_url: str) -> None:
    [block] = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    section = tomllib.loads(block)["plugins"]["loyalty"]
    rows = re.findall(r"^\| `([a-z.]+)` \| (\w+) (\w+) \| ([\d-]{10}) \| ([\d.]+) \| (.*) \|$", README, re.MULTILINE)
    assert len(rows) == 10
    async with opened(migrated_url, at="2026-04-02T00:00", beside={"levels": levels}, earn=section["earn"]) as shop:
        user, level = await shop.member(), "1"
        for number, (type_, name, value, day, multiplier, _) in enumerate(rows):
            if multiplier != level:
                await shop.level(user, level := multiplier)
            money = int(value) if name == "amount" else None
            said = {"orderId": f"o{number}"} if money else {name: int(value) if value.isdigit() else value}
            await shop.send(shop.event(type_, user, None, money, f"{day}T12:00", properties=said))
            found = (await shop.account(user, "entries(first: 50) { nodes { rule points } }"))["entries"]["nodes"]
            assert sorted((node["rule"], node["points"]) for node in found) == sorted(given(rows[: number + 1]))
        await shop.check()


def given(rows: list[tuple[str, ...]]) -> list[tuple[str, int]]:
    """What the rows say is earned, by rule."""
    return [(rule, int(points)) for row in rows for rule, points in re.findall(r"`([a-z-]+)` (\d+)", row[-1])]


# ---- seeded faults


def a_cap_counts_one_request(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(limits, "_load_earned", lambda *_: None)


def a_cap_counts_every_member_alike(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(earning, "cap", lambda book, account, rule, day, points: capped_for_all(book, rule, day, points))


def capped_for_all(book: Any, rule: Any, day: Any, points: int) -> int:
    days = book.earned.setdefault((None, rule.key), {})
    points = min(points, max((rule.cap_per_day or rule.cap_lifetime or 10**9) - days.get(day, 0), 0))
    days[day] = days.get(day, 0) + points
    return points


def once_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(limits, "_load_used", lambda *_: None)


def refunds_make_new_room(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(limits, "CREDITS", ("EARN", "DEBT_REPAID", "REVERSE"))
    patch.setattr(ledger, "settle", noted(ledger.settle))


def noted(settle: Any) -> Any:
    """What a refund takes back is written as if the earn rule had."""

    def wrapped(book: Any, event: Any, account: Any, order: Any, program: Any) -> None:
        before = len(book.journal.lines)
        settle(book, event, account, order, program)
        for line in book.journal.lines[before:]:
            line["rule"] = "order"

    return wrapped


def levels_multiply_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(facts, "multiply", lambda *_: None)


def levels_multiply_what_was_paid_before(patch: pytest.MonkeyPatch) -> None:
    points = earn_rules.EarnRule.points

    def forgetful(self: Any, said: Any, currency: str, multiplier: str, _before: int, amount: int) -> int:
        return points(self, said, currency, multiplier, 0, amount)

    patch.setattr(earn_rules.EarnRule, "points", forgetful)


def days_are_those_of_the_server(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules.LoyaltyRules, "day_of", lambda self, at: at.astimezone(UTC).date())


FAULTS = [
    a_cap_counts_one_request,
    a_cap_counts_every_member_alike,
    once_is_forgotten,
    refunds_make_new_room,
    levels_multiply_nothing,
    levels_multiply_what_was_paid_before,
    days_are_those_of_the_server,
]


async def earn_a_little(shop: Shop) -> None:
    """A short history that every fault shows in."""
    one, other = await shop.member(), await shop.member()
    for n in range(3):
        await shop.send(like(shop, one, str(n), "2026-03-01T00:30"), like(shop, other, "0", "2026-03-01T00:30"))
    await shop.send(like(shop, one, "3", "2026-02-28T23:59"))
    assert (await shop.balance(one), await shop.balance(other)) == (35, 10)
    await shop.pay(other, "o1", 4_000)
    await shop.refund(other, "o1", 4_000)
    await shop.pay(other, "o2", 4_000)
    assert await shop.balance(other) == 20
    await shop.level(one, "2")
    await shop.pay(one, "o1", 133)
    await shop.pay(one, "o1", 133)
    assert await shop.balance(one) == 40


EARN = [LIKE | {"tier_multiplier": False}, ORDER | {"cap_lifetime": 50}]


async def test_a_little_is_earned(migrated_url: str) -> None:
    async with opened(migrated_url, beside={"levels": levels}, earn=EARN) as shop:
        await earn_a_little(shop)
        await shop.check()


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_a_seeded_fault_is_noticed(migrated_url: str, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    async with opened(migrated_url, beside={"levels": levels}, earn=EARN) as shop:
        with pytest.raises(AssertionError):
            await earn_a_little(shop)
