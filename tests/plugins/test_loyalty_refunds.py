"""Refunds: what was not spent goes back, what was spent becomes debt, and n parts sum to the whole."""

from __future__ import annotations

import pytest

from tests.plugins.shop import Shop, opened


async def test_a_refund_takes_back_what_is_unspent_and_the_rest_becomes_debt(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        await shop.pay(user, "o2", 5_000, "2026-02-01T12:00")
        await shop.redeem(user, 110)  # o2's 50 expire sooner, then 60 of o1
        await shop.refund(user, "o1", 10_000)
        assert await shop.account(user) == {"balance": 0, "pending": 0, "debt": 60, "earned": 150, "redeemed": 110, "expired": 0}
        assert (await shop.entries(user))[0] == ("REVERSE", -100)
        reverses = await shop.account(user, "entries(first: 1) { nodes { reference reverses { kind points reference } } }")
        assert reverses["entries"]["nodes"] == [
            {"reference": "o1", "reverses": {"kind": "EARN", "points": 100, "reference": "o1"}}
        ]
        await shop.check()


async def test_debt_is_paid_first_by_the_next_credit(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await in_debt(shop)
        await shop.pay(user, "o2", 4_000)
        assert await shop.account(user, "balance debt") == {"balance": 0, "debt": 20}
        await shop.pay(user, "o3", 3_000)
        assert await shop.account(user, "balance debt earned") == {"balance": 10, "debt": 0, "earned": 170}
        assert sorted(await shop.entries(user, "(filter: {kind: [EARN, DEBT_REPAID]})")) == [
            ("DEBT_REPAID", 20),
            ("DEBT_REPAID", 40),
            ("EARN", 10),
            ("EARN", 100),
        ]
        await shop.check()


async def in_debt(shop: Shop) -> str:
    """Somebody who owes 60 points."""
    user = await shop.member()
    await shop.pay(user, "o1", 10_000)
    await shop.redeem(user, 60)
    await shop.refund(user, "o1", 10_000)
    assert await shop.account(user, "balance debt") == {"balance": 0, "debt": 60}
    return user


async def test_a_refund_of_an_order_that_paid_a_debt_brings_it_back(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await in_debt(shop)
        await shop.pay(user, "o2", 10_000)
        assert await shop.account(user, "balance debt") == {"balance": 40, "debt": 0}
        await shop.refund(user, "o2", 10_000)
        assert await shop.account(user, "balance debt") == {"balance": 0, "debt": 60}
        await shop.check()


async def test_other_orders_are_not_touched_by_a_debt(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=0) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000, "2026-01-01T12:00")
        await shop.pay(user, "o2", 3_000, "2026-01-02T12:00")
        await shop.redeem(user, 100)
        await shop.refund(user, "o1", 10_000)
        assert await shop.account(user, "balance debt") == {"balance": 30, "debt": 100}
        await shop.check()


async def test_the_policy_floor_zero_lets_go_what_was_spent(migrated_url: str) -> None:
    async with opened(migrated_url, debt_policy="floor_zero") as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        await shop.redeem(user, 60)
        await shop.refund(user, "o1", 5_000)
        assert await shop.account(user, "balance debt") == {"balance": 0, "debt": 0}
        await shop.refund(user, "o1", 5_000)
        assert await shop.account(user, "balance debt") == {"balance": 0, "debt": 0}
        assert await shop.entries(user, "(filter: {kind: [REVERSE]})") == [("REVERSE", -40)]
        await shop.check()


async def test_the_policy_block_takes_nothing_back_of_what_was_spent_in_part(migrated_url: str) -> None:
    async with opened(migrated_url, debt_policy="block") as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        await shop.pay(user, "o2", 5_000)
        spent = await shop.redeem(user, 60)  # of o1, which is older
        await shop.refund(user, "o1", 4_000)
        assert await shop.account(user, "balance debt") == {"balance": 50, "debt": 0}
        await shop.refund(user, "o1", 4_000)
        await shop.refund(user, "o2", 5_000)
        assert await shop.account(user, "balance debt") == {"balance": 0, "debt": 0}
        assert await shop.entries(user, "(filter: {kind: [REVERSE]})") == [("REVERSE", -50), ("REVERSE", -40)]
        document = '{ events(filter: {type: ["points.reversal_refused"]}) { nodes { properties amount { amountMinor } } } }'
        [refused] = (await shop.client.data(document))["events"]["nodes"]
        assert refused["properties"] == {"points": 40, "short": 40, "orderId": "o1"}
        await shop.do("reversePointsEntry", entryId=spent["entry"]["id"])
        await shop.refund(user, "o1", 2_000)
        assert await shop.account(user, "balance debt") == {"balance": 0, "debt": 0}
        await shop.check()


@pytest.mark.parametrize(
    ("paid", "parts", "balances"),
    [
        (10_000, (3_333, 3_333, 3_334), (67, 34, 0)),
        (1_000, (1, 1, 998), (10, 10, 0)),
        (1_000, (99, 1, 99, 1, 800), (10, 9, 9, 8, 0)),
        (999, (333, 333, 333), (6, 3, 0)),
        (10_000, (6_000, 6_000), (40, 0)),
        (199, (199,), (0,)),
    ],
)
async def test_partial_refunds_are_rounded_on_their_sum(
    migrated_url: str, paid: int, parts: tuple[int, ...], balances: tuple[int, ...]
) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", paid)
        found = []
        for part in parts:
            await shop.refund(user, "o1", part)
            found.append(await shop.balance(user))
        assert tuple(found) == balances
        await shop.check()


async def test_all_parts_in_one_batch_give_the_same(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        one, other = await shop.member(), await shop.member()
        await shop.send(
            *(shop.event("order.paid", user, "o1", 10_000, None) for user in (one, other)),
            *(shop.event("order.refunded", one, "o1", part, None) for part in (3_333, 3_333)),
        )
        assert (await shop.balance(one), await shop.balance(other)) == (34, 100)
        await shop.check()


async def test_a_refund_of_an_unknown_order_changes_nothing_until_the_order_comes(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.refund(user, "o1", 4_000, "2026-02-20T12:00")
        assert set((await shop.account(user)).values()) == {0}
        assert await shop.entries(user) == []
        await shop.pay(user, "o1", 10_000, "2026-02-10T12:00")
        assert await shop.account(user, "balance debt earned") == {"balance": 60, "debt": 0, "earned": 100}
        assert await shop.entries(user) == [("REVERSE", -40), ("EARN", 100)]
        await shop.refund(user, "o1", 6_000)
        assert await shop.balance(user) == 0
        await shop.check()


async def test_whose_order_it_is_matters(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        one, other = await shop.member(), await shop.member()
        await shop.pay(one, "o1", 10_000)
        await shop.refund(other, "o1", 10_000)
        assert (await shop.balance(one), await shop.account(other, "balance debt")) == (100, {"balance": 0, "debt": 0})
        await shop.check()


async def test_several_payments_of_one_order_are_rounded_once(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 150)
        await shop.pay(user, "o1", 150)
        assert await shop.balance(user) == 3
        await shop.refund(user, "o1", 299)
        assert await shop.balance(user) == 1
        await shop.refund(user, "o1", 1)
        assert await shop.account(user, "balance debt") == {"balance": 0, "debt": 0}
        await shop.check()


async def test_the_id_of_an_order_may_be_of_any_length(migrated_url: str) -> None:
    long = "x" * 9_000
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, long, 10_000)
        await shop.pay(user, f"{long}y", 5_000)
        await shop.refund(user, long, 4_000)
        assert await shop.account(user, "balance") == {"balance": 110}
        await shop.check()


async def test_a_refund_in_another_currency_changes_nothing(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        await shop.refund(user, "o1", 10_000, currency="USD")
        assert await shop.balance(user) == 100
        await shop.check()


async def test_after_expiry_a_refund_leaves_what_expired_and_owes_what_was_spent(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=10) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        await shop.redeem(user, 60)
        shop.set_time("2026-03-20T12:00")
        assert await shop.account(user, "balance expired") == {"balance": 0, "expired": 40}
        await shop.refund(user, "o1", 5_000)
        assert await shop.account(user, "balance expired debt") == {"balance": 0, "expired": 40, "debt": 10}
        await shop.refund(user, "o1", 5_000)
        assert await shop.account(user, "balance expired debt") == {"balance": 0, "expired": 40, "debt": 60}
        await shop.check()


@pytest.mark.parametrize("job", [False, True])
async def test_a_refund_from_before_expiry_that_comes_late_finds_what_expired(migrated_url: str, job: bool) -> None:
    async with opened(migrated_url, validity_days=10) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        await shop.expire()
        shop.set_time("2026-03-20T12:00")
        if job:
            await shop.expire()
        await shop.refund(user, "o1", 5_000, "2026-03-05T12:00")
        assert await shop.account(user, "balance expired debt") == {"balance": 0, "expired": 100, "debt": 0}
        await shop.check()


async def test_what_has_expired_of_an_order_is_what_its_refunds_take_first(migrated_url: str) -> None:
    async with opened(migrated_url, at="2026-03-15T12:00", validity_days=10) as shop:
        user, other = await shop.member(), await shop.member()
        first, second = ("pay", 10_000, "2026-03-01T12:00"), ("pay", 3_000, "2026-03-14T12:00")
        for who, steps in ((user, (first, "refund", second)), (other, (first, second, "refund"))):
            for step in steps:
                if isinstance(step, str):
                    await shop.refund(who, "o1", 10_000)
                else:
                    await shop.pay(who, "o1", step[1], step[2])
        assert await shop.account(user, "balance expired") == await shop.account(other, "balance expired")
        assert await shop.balance(user) == 30
        await shop.check()


async def test_nobody_keeps_what_floor_zero_lets_go_but_what_was_spent(migrated_url: str) -> None:
    async with opened(migrated_url, debt_policy="floor_zero") as shop:
        held, spent, gave, got, kept = [await shop.member() for _ in range(5)]
        for who in (held, spent, gave, kept):
            await shop.pay(who, f"of {who}", 10_000)
        hold = await shop.hold(held, 100)
        entry = (await shop.done("redeemPoints", userId=spent, points=60))["entry"]["id"]
        await shop.done("transferPoints", userId=gave, toUserId=got, points=100)
        await shop.done("redeemPoints", userId=kept, points=100)
        for who in (held, spent, gave, kept):
            await shop.refund(who, f"of {who}", 10_000)
        await shop.done("releaseHold", holdId=hold)
        assert await shop.account(held, "balance debt") == {"balance": 100, "debt": 100}
        assert await shop.account(spent, "balance debt redeemed") == {"balance": 0, "debt": 0, "redeemed": 60}
        await shop.done("reversePointsEntry", entryId=entry)
        assert await shop.account(spent, "balance debt redeemed") == {"balance": 0, "debt": 0, "redeemed": 0}
        assert await shop.account(gave, "balance debt") == {"balance": 0, "debt": 100}
        assert (await shop.balance(got), (await shop.account(kept, "debt"))["debt"]) == (100, 0)
        await shop.check()


@pytest.mark.parametrize("first", ["merge", "refund"])
async def test_a_refund_that_somebody_else_said_counts_once_they_are_one(migrated_url: str, first: str) -> None:
    async with opened(migrated_url) as shop:
        one, other = await shop.member(), await shop.member()
        await shop.pay(one, "o1", 10_000)
        await shop.pay(one, "o5", 10_000)
        await shop.pay(other, "o5", 5_000)
        if first == "merge":
            await shop.merge(one, other)
        await shop.refund(other, "o1", 10_000)
        if first == "refund":
            await shop.merge(one, other)
        assert await shop.balance(one) == 150
        await shop.refund(one, "o5", 15_000)
        assert await shop.account(one, "balance debt") == {"balance": 0, "debt": 0}
        await shop.check()


@pytest.mark.parametrize("seed", range(3))
async def test_without_spending_the_order_of_arrival_does_not_matter(migrated_url: str, seed: int) -> None:
    async with opened(migrated_url, validity_days=60) as shop:
        user, other = await shop.member(), await shop.member()
        said = [
            ("order.paid", "a", 9_999, "2026-01-20T12:00"),
            ("order.refunded", "a", 3_333, "2026-02-01T12:00"),
            ("order.refunded", "a", 3_333, "2026-02-02T12:00"),
            ("order.paid", "b", 5_050, "2026-02-10T12:00"),
            ("order.refunded", "b", 50, "2026-02-11T12:00"),
            ("order.paid", "c", 7_777, "2025-12-01T12:00"),
            ("order.refunded", "c", 7_777, "2026-02-11T12:00"),
        ]
        for who, step in ((user, 0), (other, seed + 1)):
            turned = said[step:] + said[:step] if step % 2 else list(reversed(said[step:] + said[:step]))
            for type_, order, amount, at in turned if step else said:
                await shop.send(shop.event(type_, who, order, amount, at))
        assert await shop.account(user) == await shop.account(other)
        assert await shop.account(user, "balance debt") == {"balance": 33 + 50, "debt": 0}
        await shop.check()


async def test_the_example_of_the_readme(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        found = []
        for kind, order, amount in (("pay", "o1", 12_399), ("redeem", "", 100), ("refund", "o1", 4_133), ("pay", "o2", 5_000)):
            await (shop.redeem(user, amount) if kind == "redeem" else getattr(shop, kind)(user, order, amount))
            found.append(tuple((await shop.account(user, "balance debt")).values()))
        shop.set_time("2027-03-01T00:00")
        found.append(tuple((await shop.account(user, "balance debt")).values()))
        assert found == [(123, 0), (23, 0), (0, 18), (32, 0), (0, 0)]
        entries = [("EARN", 123), ("REDEEM", -100), ("REVERSE", -41), ("DEBT_REPAID", 18), ("EARN", 32)]
        assert sorted(await shop.entries(user)) == sorted(entries)
        await shop.check()
