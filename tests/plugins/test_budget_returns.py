"""What costs something by itself, what lines bring in, and where their money should go."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrm_budget.splits import PRESETS, Share, reallocate, split
from tests.plugins.treasury import Treasury, money, opened

COST = [
    {"event": "coupon.redeemed", "category": "campaigns"},
    {"event": "parcel.sent", "cost": "postage", "category": "campaigns"},
]
CHANNEL = """mutation($input: CreateChannelInput!) { createChannel(input: $input) { channel { id } errors { code message } } }"""


async def channel(brand: Treasury, key: str, parent: str | None = None) -> None:
    said: dict[str, Any] = {"key": key, "name": key, "kind": "OTHER"}
    made = await brand.client.data(CHANNEL, input={**said, **({"parent": parent} if parent else {})})
    assert made["createChannel"]["errors"] == []


def touch(brand: Treasury, user: str, at: str, key: str | None = None, **properties: Any) -> Any:
    event = brand.event("page.viewed", user, None, None, at, properties=properties)
    return {**event, **({"channel": key} if key else {})}


async def test_an_event_that_costs_something_is_spent(migrated_url: str) -> None:
    async with opened(migrated_url, costs=COST) as brand:
        await channel(brand, "shop")
        lines = [
            {"category": "campaigns", "amount": money(50)},
            {"category": "spring", "amount": money(50), "campaigns": ["spring"]},
            {"category": "store", "amount": money(50), "channels": ["shop"]},
        ]
        user = await brand.member()
        before = brand.event("coupon.redeemed", user, None, None, "2026-03-09T10:00", properties={"couponId": "c", "cost": 3})
        await brand.send(before)  # before there are any budgets nobody misses one
        _, own = await brand.budget(150, lines)
        for said in (
            {"properties": {"couponId": "c1", "cost": 30}},
            {"properties": {"couponId": "c2", "cost": 30}},
            {"properties": {"couponId": "c3", "cost": 7, "campaign": "spring"}, "channel": "shop"},
            {"properties": {"couponId": "c4", "cost": 9, "campaign": "other"}, "channel": "shop"},
        ):
            await brand.send(brand.event("coupon.redeemed", user, None, None, "2026-03-09T10:00", **said))
        for postage in (0, -5, 1.5, "9", None, True, 11):
            await brand.send(brand.event("parcel.sent", user, None, None, "2026-03-09T10:00", properties={"postage": postage}))
        spent = [await brand.line(own[name], "spent") for name in ("campaigns", "spring", "store")]
        assert spent == [71, 7, 9]
        assert await brand.line(own["campaigns"], "available") == -21
        await brand.send(
            brand.event("coupon.redeemed", user, None, None, "2026-02-28T10:00", properties={"couponId": "c", "cost": 5})
        )
        asked = '{ events(filter: {type: ["budget.cost_unassigned"]}) { nodes { properties } } }'
        [node] = (await brand.client.data(asked))["events"]["nodes"]
        assert node["properties"] == {"amount": 5, "currency": "CNY", "type": "coupon.redeemed"}
        await brand.check()


async def test_revenue_is_the_last_touchs(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-20T12:00", attribution_days=7) as brand:
        for key, parent in (("wecom", None), ("wecom-a", "wecom"), ("ads", None)):
            await channel(brand, key, parent)
        lines = [
            {"category": "social", "amount": money(500), "channels": ["wecom"]},
            {"category": "ads", "amount": money(500), "channels": ["ads"], "campaigns": ["spring"]},
        ]
        _, own = await brand.budget(1_000, lines)
        ann, bob, eve = [await brand.member() for _ in range(3)]
        await brand.send(
            touch(brand, ann, "2026-03-05T10:00", "ads"),
            touch(brand, ann, "2026-03-06T10:00", "wecom-a"),
            touch(brand, bob, "2026-03-01T10:00", "ads"),
            touch(brand, eve, "2026-03-10T10:00", "wecom", campaign="spring"),
        )
        await brand.refund(bob, "o9", 100, "2026-03-08T10:00")  # comes before its order
        await brand.pay(ann, "o1", 1_000, "2026-03-07T10:00")
        await brand.pay(ann, "o2", 2_000, "2026-03-07T11:00", properties={"orderId": "o2", "campaign": "spring"})
        await brand.pay(bob, "o3", 4_000, "2026-03-08T10:00:01")  # the touch is more than seven days ago
        await brand.pay(bob, "o9", 300, "2026-03-08T09:00")
        await brand.pay(eve, "o4", 500, "2026-03-10T10:00")
        await brand.pay(eve, "o5", 700, "2026-03-10T10:00", currency="USD")
        await brand.refund(ann, "o1", 250, "2026-03-15T10:00")
        await brand.spend(own["social"], 500)
        await brand.spend(own["ads"], 400)
        fields = "attributedRevenue { amountMinor } roi netRoi recommendation"
        social, ads = [await brand.of_node("BudgetLine", own[name], fields) for name in ("social", "ads")]
        assert social == {"attributedRevenue": {"amountMinor": 750}, "roi": 1.5, "netRoi": 0.5, "recommendation": "KEEP"}
        assert ads == {"attributedRevenue": {"amountMinor": 2_700}, "roi": 6.75, "netRoi": 5.75, "recommendation": "PRIORITIZE"}
        week = "attributedRevenue(days: 10) { amountMinor } roi(days: 1)"
        assert await brand.of_node("BudgetLine", own["social"], week) == {"attributedRevenue": {"amountMinor": -250}, "roi": 0.0}
        await brand.check()


@pytest.mark.parametrize("at_once", [False, True])
async def test_an_order_that_comes_late_finds_the_touch_before_it(migrated_url: str, at_once: bool) -> None:
    async with opened(migrated_url, "2026-03-20T12:00", attribution_days=7) as brand:
        for key in ("wecom", "ads"):
            await channel(brand, key)
        _, own = await brand.budget(
            1_000, [{"category": key, "amount": money(500), "channels": [key]} for key in ("wecom", "ads")]
        )
        ann, bob, eve = [await brand.member() for _ in range(3)]
        sent = [
            touch(brand, ann, "2026-03-05T10:00", "ads"),
            touch(brand, ann, "2026-03-09T10:00", "wecom"),
            brand.event("order.paid", ann, "o1", 1_000, "2026-03-07T10:00"),
            touch(brand, ann, "2026-03-06T10:00", "wecom"),  # nobody knew it when the order came
            touch(brand, bob, "2026-02-28T09:59", "ads"),
            touch(brand, bob, "2026-03-09T10:00", "ads"),
            brand.event("order.paid", bob, "o2", 500, "2026-03-07T10:00"),  # its last touch is more than seven days ago
            touch(brand, eve, "2026-03-09T10:00", "ads"),
            brand.event("order.paid", eve, "o3", 70, "2026-03-09T10:00"),
        ]
        for batch in [sent] if at_once else [[one] for one in sent]:
            await brand.send(*batch)
        assert [await brand.line(own[key], "attributedRevenue") for key in ("wecom", "ads")] == [0, 1_070]
        await brand.check()


async def test_revenue_is_counted_in_the_budgets_own_currency(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        await channel(brand, "ads")
        lines = [{"category": "ads", "share": 100, "channels": ["ads"]}]
        _, own = await brand.budget(lines=lines, currency="USD")
        ann = await brand.member()
        await brand.send(touch(brand, ann, "2026-03-05T10:00", "ads"))
        await brand.pay(ann, "o1", 700, "2026-03-07T10:00", currency="USD")
        await brand.pay(ann, "o2", 5_000, "2026-03-07T10:00")
        await brand.sure("spendBudget", lineId=own["ads"], amount=money(350, "USD"))
        found = await brand.of_node("BudgetLine", own["ads"], "attributedRevenue { amountMinor currency } roi")
        assert found == {"attributedRevenue": {"amountMinor": 700, "currency": "USD"}, "roi": 2.0}
        await brand.check()


async def test_what_is_said_without_measure_harms_nobody(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-20T12:00", costs=COST) as brand:
        await channel(brand, "ads")
        _, own = await brand.budget(1_000, [{"category": "campaigns", "share": 100, "channels": ["ads"]}])
        ann = await brand.member()
        endless = "x" * 9_000
        await brand.send(touch(brand, ann, "2026-03-05T10:00", "ads", campaign=endless))
        await brand.pay(ann, endless, 500, "2026-03-05T11:00", properties={"orderId": endless, "campaign": endless})
        await brand.pay(ann, "o1", 10**15, "2026-03-05T11:00")
        said = {"couponId": "c", "cost": 2**53 - 1, "campaign": endless}
        await brand.send(brand.event("coupon.redeemed", ann, None, None, "2026-03-05T10:00", properties=said))
        assert await brand.line(own["campaigns"], "attributedRevenue", "spent") == [10**15 + 500, 0]
        document = '{ events(filter: {type: ["budget.cost_unassigned"]}) { nodes { properties } } }'
        [node] = (await brand.client.data(document))["events"]["nodes"]
        assert node["properties"]["amount"] == 2**53 - 1
        await brand.check()


async def test_a_source_is_one_lines(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        for key, parent in (("wecom", None), ("wecom-a", "wecom")):
            await channel(brand, key, parent)
        await brand.budget(100, [{"category": "a", "share": 100, "channels": ["wecom"], "campaigns": ["spring"]}])

        async def why(start: str, end: str, **names: Any) -> Any:
            said: dict[str, Any] = {
                "name": "x",
                "start": start,
                "end": end,
                "total": money(1),
                "lines": [{"category": "a", "share": 100, **names}],
            }
            errors = (await brand.ask("createBudget", **said))["errors"]
            return [(error["code"], error["params"]) for error in errors]

        march = ("2026-03-31", "2026-05-01")
        assert await why(*march, channels=["wecom-a"]) == [("SOURCE_TAKEN", {"source": "wecom-a"})]
        assert await why(*march, campaigns=["spring"]) == [("SOURCE_TAKEN", {"source": "spring"})]
        assert await why(*march, channels=["nowhere"]) == [("UNKNOWN_CHANNEL", {"channel": "nowhere"})]
        assert await why("2026-04-01", "2026-05-01", channels=["wecom-a"], campaigns=["spring"]) == []


def test_the_sources_example_of_a_reallocation() -> None:
    amounts, rois = (500_000_000, 300_000_000, 100_000_000, 100_000_000), (165, 120, 80, 250)
    shares = [Share(amount, Fraction(roi, 100)) for amount, roi in zip(amounts, rois, strict=True)]
    assert reallocate(shares, 10) == [530_000_000, 270_000_000, 90_000_000, 110_000_000]


async def test_money_goes_to_where_it_earns_more(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        asked = (("a", 5_000_000, 1.65), ("b", 3_000_000, 1.2), ("c", 1_000_000, 0.8), ("d", 1_000_000, 2.5))
        lines = [{"category": name, "amount": money(amount), "expectedRoi": roi} for name, amount, roi in asked]
        budget, own = await brand.budget(10_000_000, lines)
        document = """query($id: ID!) { budgetReallocation(budgetId: $id) { currency totalMinor
          moves { category currentMinor targetMinor changeMinor roi recommendation line { id } } } }"""
        tried = (await brand.client.data(document, id=budget))["budgetReallocation"]
        assert (tried["currency"], tried["totalMinor"]) == ("CNY", 10_000_000)
        assert [move["targetMinor"] for move in tried["moves"]] == [5_300_000, 2_700_000, 900_000, 1_100_000]
        assert [move["recommendation"] for move in tried["moves"]] == ["PRIORITIZE", "KEEP", "PILOT", "PRIORITIZE"]
        assert tried["moves"][0] == {
            "category": "a",
            "currentMinor": 5_000_000,
            "targetMinor": 5_300_000,
            "changeMinor": 300_000,
            "roi": 1.65,
            "recommendation": "PRIORITIZE",
            "line": {"id": own["a"]},
        }
        assert [await brand.line(line, "allocated") for line in own.values()] == [amount for _, amount, _ in asked]
        await brand.sure("reallocateBudget", budgetId=budget)
        assert [await brand.line(line, "allocated") for line in own.values()] == [5_300_000, 2_700_000, 900_000, 1_100_000]
        assert await brand.line(own["a"], "planned") == 5_000_000
        kinds = [kind for kind, _ in await brand.journal(own["a"])]
        assert kinds == ["ALLOCATE", "TRANSFER_IN"]
        lonely, _ = await brand.budget(100, start="2026-05-01", end="2026-06-01")
        assert (await brand.why("reallocateBudget", budgetId=lonely))[0] == "NOTHING_TO_MOVE"
        await brand.check()


async def test_a_line_that_gave_away_more_than_it_was_given_is_left_alone(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-31T12:00") as brand:
        lines = [
            {"category": name, "amount": money(500), "expectedRoi": roi} for name, roi in (("a", 1.2), ("b", 2.0), ("c", 1.0))
        ]
        first, _ = await brand.budget(1_500, lines)
        april = {"start": "2026-04-01", "end": "2026-05-01", "previousId": first, "rollover": "REMAINING"}
        budget, own = await brand.budget(1_500, lines, **april)
        brand.set_time("2026-04-10T12:00")
        move = {"fromLineId": own["a"], "toLineId": own["b"], "amount": money(800)}
        await brand.sure("transferBudget", **move)  # 500 of its own and 300 of the 500 that it took over
        await brand.sure("reallocateBudget", budgetId=budget)
        found = [await brand.line(own[name], "allocated") for name in "abc"]
        assert (found[0], sum(found)) == (-300, 1_500)
        await brand.check()


async def test_nothing_is_moved_where_one_line_has_a_return(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        lonely, _ = await brand.budget(100, start="2026-05-01", end="2026-06-01")
        assert (await brand.why("reallocateBudget", budgetId=lonely))[0] == "NOTHING_TO_MOVE"
        await brand.check()


async def test_indicators_of_budgets(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00") as brand:
        await channel(brand, "ads")
        await channel(brand, "street")
        _, own = await brand.budget(3_100, [{"category": "ads", "share": 100, "channels": ["ads"]}])
        people = [{"channel": key, "externalId": f"p{n}"} for n, key in enumerate(["ads", "ads", "street", "street"])]
        for person in people:
            said = {
                **brand.event("page.viewed", "", None, None, "2026-03-09T10:00"),
                "identity": person,
                "channel": person["channel"],
            }
            said.pop("userId")
            await brand.send(said)
        await brand.spend(own["ads"], 500)
        paid = {**brand.event("order.paid", "", "o1", 900, "2026-03-10T11:00"), "identity": people[0]}
        paid.pop("userId")
        await brand.send(paid)
        document = """query($key: [String!], $channel: String) { indicators(keys: $key) {
          series(from: "2026-03-09", to: "2026-03-11", channel: $channel) { value numerator denominator } } }"""

        async def series(key: str, name: str | None = None) -> list[tuple[Any, Any]]:
            data = await brand.client.data(document, key=[key], channel=name)
            return [(point["numerator"], point["denominator"]) for point in data["indicators"][0]["series"]]

        _, dollars = await brand.budget(1_000_000, [{"category": "a", "share": 100, "campaigns": ["abroad"]}], currency="USD")
        await brand.sure("spendBudget", lineId=dollars["a"], amount=money(70_000, "USD"))
        abroad = {**brand.event("order.paid", "", "o2", 900, "2026-03-10T11:00", currency="USD"), "identity": people[2]}
        abroad["properties"] = {"orderId": "o2", "campaign": "abroad"}
        abroad.pop("userId")
        await brand.send(abroad)
        assert await series("budget_use") == [(0, 0), (500, 3_100)]
        assert await series("budget_pace") == [(0, 0), (500, 1_000)]
        assert await series("budget_roi") == [(0, 0), (900, 500)]
        assert await series("budget_roi", "street") == [(0, 0), (0, 0)]
        assert await series("acquisition_cost", "ads") == [(0, 2), (500, 0)]
        assert await series("acquisition_cost") == [(0, 4), (500, 0)]
        assert await series("organic_share") == [(2, 4), (0, 0)]
        assert await series("organic_share", "ads") == [(0, 2), (0, 0)]


def test_splits_sum_to_the_whole() -> None:
    for total in (0, 1, 7, 100, 999, 10**14):
        for preset in PRESETS.values():
            shares = [share for _, share in preset]
            parts = split(total, shares)
            assert sum(parts) == total
            assert all(abs(part - share * total / sum(shares)) < 1 for part, share in zip(parts, shares, strict=True))


amounts = st.integers(0, 10**12)
shares = st.lists(st.builds(Share, amounts, st.fractions(0, 10), amounts), min_size=1, max_size=8)


@given(shares=shares, percent=st.integers(1, 100))
def test_a_reallocation_keeps_the_total_and_its_bounds(shares: list[Share], percent: int) -> None:
    targets = reallocate(shares, percent)
    assert sum(targets) == sum(one.amount for one in shares)
    for one, target in zip(shares, targets, strict=True):
        assert 100 * abs(target - one.amount) <= percent * one.amount
        assert target >= min(one.amount, one.used)
        for other, less in zip(shares, targets, strict=True):
            if (one.amount, one.used) == (other.amount, other.used) and one.roi > other.roi:
                assert target >= less


@given(total=st.integers(0, 10**14), parts=st.lists(st.fractions(0, 100), min_size=1, max_size=9))
def test_a_split_is_exact_and_fair(total: int, parts: list[Fraction]) -> None:
    found = split(total, parts)
    whole = sum(parts)
    assert sum(found) == (total if whole else 0)
    assert all(abs(got * whole - part * total) < whole for got, part in zip(found, parts, strict=True) if whole)
