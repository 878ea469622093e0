"""What is undone, adjusted by hand, and given to somebody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.testing.client import drain
from scrm_loyalty.models import notes
from tests.plugins.shop import Shop, opened


async def redeemed(shop: Shop, user: str, points: int) -> str:
    """The id of a redemption's entry."""
    payload = await shop.redeem(user, points, reason="a lamp", reference="cart-7")
    assert payload["errors"] == []
    return str(payload["entry"]["id"])


async def test_an_undone_redemption_goes_back_to_its_lots(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=100) as shop:
        user = await shop.member()
        await shop.pay(user, "early", 5_000, "2026-02-10T12:00")
        await shop.pay(user, "late", 10_000, "2026-02-20T12:00")
        entry = await redeemed(shop, user, 70)
        payload = await shop.done("reversePointsEntry", entryId=entry, reason="broken")
        assert {name: payload["entry"][name] for name in ("kind", "points", "reason", "reference", "reverses")} == {
            "kind": "RESTORE",
            "points": 70,
            "reason": "broken",
            "reference": "cart-7",
            "reverses": {"id": entry},
        }
        assert payload["account"] == {"balance": 150, "held": 0, "redeemed": 0, "user": {"id": user}}
        listed = await shop.account(user, "expiring(withinDays: 365) { date points }")
        assert listed["expiring"] == [{"date": "2026-05-21", "points": 50}, {"date": "2026-05-31", "points": 100}]
        assert await shop.refusal("reversePointsEntry", entryId=entry) == ("ENTRY_ALREADY_REVERSED", {"entryId": entry})
        again = await shop.refusal("reversePointsEntry", entryId=payload["entry"]["id"])
        assert again == ("ENTRY_NOT_REVERSIBLE", {"entryId": payload["entry"]["id"], "kind": "RESTORE"})
        await shop.refund(user, "early", 5_000)
        assert await shop.account(user, "balance debt") == {"balance": 100, "debt": 0}
        await shop.check()


@pytest.mark.parametrize(("days", "balance", "expired"), [(0, 0, 100), (10, 40, 60)])
async def test_what_expired_stays_so_unless_it_is_reinstated(migrated_url: str, days: int, balance: int, expired: int) -> None:
    async with opened(migrated_url, validity_days=30, reinstatement_days=days) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        entry = await redeemed(shop, user, 40)
        shop.set_time("2026-03-31T00:00")
        await shop.done("reversePointsEntry", entryId=entry)
        assert await shop.account(user, "balance expired redeemed") == {"balance": balance, "expired": expired, "redeemed": 0}
        shop.set_time("2026-04-10T00:00")
        assert await shop.account(user, "balance expired") == {"balance": 0, "expired": 100}
        await shop.check()


async def test_what_is_given_back_pays_a_debt_first(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        entry = await redeemed(shop, user, 100)
        await shop.refund(user, "o1", 3_000)
        assert await shop.account(user, "balance debt") == {"balance": 0, "debt": 30}
        assert (await shop.done("reversePointsEntry", entryId=entry))["entry"]["points"] == 70
        numbers = {"balance": 70, "pending": 0, "debt": 0, "earned": 100, "redeemed": 0, "expired": 0}
        assert await shop.account(user) == numbers
        await shop.refund(user, "o1", 7_000)
        assert await shop.account(user, "balance debt") == {"balance": 0, "debt": 0}
        await shop.check()


async def test_undoing_an_adjustment_makes_the_debt_that_it_paid_again(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 4_000)
        await redeemed(shop, user, 40)
        await shop.refund(user, "o1", 4_000)
        assert await shop.account(user, "balance debt") == {"balance": 0, "debt": 40}
        given = await shop.done("adjustPoints", userId=user, points=100, reason="sorry")
        assert await shop.account(user, "balance debt") == {"balance": 60, "debt": 0}
        nodes = (await shop.account(user, "entries { nodes { id kind points } }"))["entries"]["nodes"]
        [paid] = [node["id"] for node in nodes if node["kind"] == "DEBT_REPAID"]
        await shop.done("reversePointsEntry", entryId=paid)
        assert await shop.account(user, "balance debt") == {"balance": 0, "debt": 40}
        for entry in (paid, given["entry"]["id"]):
            assert (await shop.refusal("reversePointsEntry", entryId=entry))[0] == "ENTRY_ALREADY_REVERSED"
        small = await shop.done("adjustPoints", userId=user, points=15, reason="again")
        assert small["entry"]["kind"] == "DEBT_REPAID"
        await shop.done("reversePointsEntry", entryId=small["entry"]["id"])
        assert await shop.account(user, "balance debt") == {"balance": 0, "debt": 40}
        await shop.check()


async def test_a_captured_hold_can_be_undone(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        captured = await shop.done("captureHold", holdId=await shop.hold(user, 60), points=50)
        await shop.done("reversePointsEntry", entryId=captured["entry"]["id"])
        assert await shop.account(user, "balance held redeemed") == {"balance": 100, "held": 0, "redeemed": 0}
        await shop.check()


async def test_20_parallel_undoings_are_one(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        entry = await redeemed(shop, user, 40)
        same = await asyncio.gather(*(shop.do("reversePointsEntry", "one", entryId=entry) for _ in range(10)))
        assert all(answer == same[0] for answer in same)
        answers = await asyncio.gather(*(shop.do("reversePointsEntry", f"k{n}", entryId=entry) for n in range(10)))
        assert [error["code"] for answer in answers for error in answer["errors"]] == ["ENTRY_ALREADY_REVERSED"] * 10
        assert await shop.balance(user) == 100
        await shop.check()


async def test_undoing_after_an_unmerge_gives_everybody_their_own(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        kept, absorbed = await shop.member(), await shop.member()
        await shop.pay(kept, "k1", 10_000, "2026-02-20T12:00")
        await shop.pay(absorbed, "a1", 5_000, "2026-02-10T12:00")
        merge = await shop.merge(kept, absorbed)
        entry = await redeemed(shop, kept, 70)
        await shop.unmerge(merge)
        await shop.done("reversePointsEntry", entryId=entry)
        assert await shop.account(kept, "balance redeemed") == {"balance": 100, "redeemed": 0}
        assert await shop.account(absorbed, "balance redeemed") == {"balance": 50, "redeemed": 0}
        await shop.check()


async def test_an_adjustment_up_pays_debt_and_lasts_as_the_program_says(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=100, pending_days=5, points_per_unit=0) as shop:
        user = await shop.member()
        payload = await shop.done("adjustPoints", userId=user, points=50, reason="sorry", reference="ticket-1")
        assert {name: payload["entry"][name] for name in ("kind", "points", "reason", "reference", "expiresAt")} == {
            "kind": "ADJUST",
            "points": 50,
            "reason": "sorry",
            "reference": "ticket-1",
            "expiresAt": "2026-06-08T16:00:00.000000Z",
        }
        until = {"expiresAt": "2026-03-02T08:00:00+08:00"}
        await shop.done("adjustPoints", userId=user, points=5, reason="today only", **until)
        numbers = {"balance": 55, "pending": 0, "debt": 0, "earned": 0, "redeemed": 0, "expired": 0}
        assert await shop.account(user) == numbers
        listed = await shop.account(user, "expiring(withinDays: 365) { date points }")
        assert listed["expiring"] == [{"date": "2026-03-02", "points": 5}, {"date": "2026-06-09", "points": 50}]
        shop.set_time("2026-03-02T08:00")
        assert await shop.account(user, "balance expired") == {"balance": 50, "expired": 5}
        await shop.check()


async def test_an_adjustment_up_pays_a_debt_first(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        await shop.redeem(user, 60)
        await shop.refund(user, "o1", 10_000)
        assert (await shop.done("adjustPoints", userId=user, points=80, reason="gift"))["entry"]["points"] == 20
        assert await shop.account(user, "balance debt earned redeemed") == {
            "balance": 20,
            "debt": 0,
            "earned": 100,
            "redeemed": 60,
        }
        await shop.check()


async def test_an_adjustment_down_and_undoing_both(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        up = (await shop.done("adjustPoints", userId=user, points=50, reason="gift"))["entry"]["id"]
        down = (await shop.done("adjustPoints", userId=user, points=-20, reason="too many"))["entry"]["id"]
        assert await shop.account(user, "balance redeemed") == {"balance": 30, "redeemed": 0}
        assert await shop.refusal("reversePointsEntry", entryId=up) == ("INSUFFICIENT_POINTS", {"balance": 30, "points": 50})
        await shop.done("reversePointsEntry", entryId=down)
        payload = await shop.done("reversePointsEntry", entryId=up)
        assert (payload["entry"]["kind"], payload["entry"]["points"]) == ("ADJUST", -50)
        assert await shop.account(user, "balance redeemed earned") == {"balance": 0, "redeemed": 0, "earned": 0}
        assert (await shop.refusal("reversePointsEntry", entryId=payload["entry"]["id"]))[0] == "ENTRY_NOT_REVERSIBLE"
        await shop.check()


@pytest.mark.parametrize(
    ("name", "said", "code"),
    [
        ("adjustPoints", {"points": 0, "reason": "x"}, "INVALID_POINTS"),
        ("adjustPoints", {"points": -(2**53), "reason": "x"}, "INVALID_POINTS"),
        ("adjustPoints", {"points": 5, "reason": " "}, "REASON_NEEDED"),
        ("adjustPoints", {"points": -101, "reason": "x"}, "INSUFFICIENT_POINTS"),
        ("adjustPoints", {"points": 1, "reason": "x", "expiresAt": "2026-03-01T04:00:00Z"}, "INVALID_EXPIRY"),
        ("adjustPoints", {"points": 1, "reason": "x", "expiresAt": "9999-12-31T23:59:59Z"}, "INVALID_EXPIRY"),
        ("transferPoints", {"points": 0}, "INVALID_POINTS"),
        ("transferPoints", {"points": 101}, "INSUFFICIENT_POINTS"),
        ("transferPoints", {"points": 1, "toUserId": "self"}, "SAME_ACCOUNT"),
        ("transferPoints", {"points": 1, "toUserId": f"User_{'0' * 32}"}, "USER_NOT_FOUND"),
        ("reversePointsEntry", {"entryId": f"PointsEntry_{'0' * 32}"}, "ENTRY_NOT_FOUND"),
        ("reversePointsEntry", {"entryId": "the credit"}, "ENTRY_NOT_REVERSIBLE"),
    ],
)
async def test_what_is_refused_changes_nothing(migrated_url: str, name: str, said: dict[str, Any], code: str) -> None:
    async with opened(migrated_url) as shop:
        user, other = await shop.member(), await shop.member()
        await shop.pay(user, "o1", 10_000)
        listed = await shop.account(user, "entries { nodes { id } }")
        meant = {"self": user, "the credit": listed["entries"]["nodes"][0]["id"]}
        said = {key: meant.get(str(value), value) for key, value in said.items()}
        if name != "reversePointsEntry":
            said = {"userId": user, **said}
        if name == "transferPoints":
            said = {"toUserId": other, **said}
        assert (await shop.refusal(name, **said))[0] == code
        assert await shop.entries(user) == [("EARN", 100)]
        assert (await shop.balance(user), await shop.balance(other)) == (100, 0)
        await shop.check()


async def test_a_transfer_moves_lots_with_their_expiry_by_a_linked_pair(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=30) as shop:
        giver, taker = await shop.member(), await shop.member()
        await shop.pay(giver, "early", 5_000, "2026-02-10T12:00")
        await shop.pay(giver, "late", 10_000, "2026-02-20T12:00")
        payload = await shop.done("transferPoints", userId=giver, toUserId=taker, points=70, reason="birthday")
        assert (payload["entry"]["kind"], payload["entry"]["points"]) == ("TRANSFER_OUT", -70)
        assert payload["account"]["balance"] == 80
        assert payload["toAccount"] == {"balance": 70, "user": {"id": taker}}
        assert await shop.entries(taker) == [("TRANSFER_IN", 70)]
        listed = await shop.account(taker, "expiring(withinDays: 60) { date points }")
        assert listed["expiring"] == [{"date": "2026-03-12", "points": 50}, {"date": "2026-03-22", "points": 20}]
        assert await shop.account(taker, "earned redeemed") == {"earned": 0, "redeemed": 0}
        await shop.refund(giver, "early", 5_000)  # it was given away
        assert await shop.account(giver, "balance debt") == {"balance": 80, "debt": 50}
        assert (await shop.redeem(taker, 70))["errors"] == []
        await shop.check()


async def test_transfers_both_ways_at_once(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        one, other = await shop.member(), await shop.member()
        await shop.pay(one, "o1", 1_000)
        await shop.pay(other, "o2", 1_000)
        ways = [(one, other) if n % 2 else (other, one) for n in range(20)]
        answers = await asyncio.gather(
            *(shop.do("transferPoints", f"t{n}", userId=a, toUserId=b, points=1) for n, (a, b) in enumerate(ways))
        )
        assert [error for answer in answers for error in answer["errors"]] == []
        assert (await shop.balance(one), await shop.balance(other)) == (10, 10)
        await shop.check()


async def test_words_are_forgotten_and_nothing_is_undone_for_an_erased_person(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        giver, taker = await shop.member(), await shop.member()
        await shop.pay(giver, "o1", 10_000)
        entry = await redeemed(shop, giver, 10)
        await shop.done("adjustPoints", userId=giver, points=5, reason="her illness")
        await shop.done("transferPoints", userId=giver, toUserId=taker, points=70, reason="birthday")
        await shop.client.data("mutation($u: ID!) { eraseUser(input: {id: $u}) { errors { code } } }", u=giver)
        await drain(shop.client)
        assert await shop.entries(taker) == [("TRANSFER_IN", 70)]
        words = await shop.client.services.db.read(lambda tx: [row.reason for row in tx.rows(sa.select(notes))])
        assert words == []
        assert (await shop.refusal("reversePointsEntry", entryId=entry))[0] == "USER_NOT_FOUND"
        said = {"userId": taker, "toUserId": giver, "points": 1}
        assert (await shop.refusal("transferPoints", **said))[0] == "USER_ERASED"
        assert await shop.balance(taker) == 70
        await shop.check()
