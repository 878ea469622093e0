"""Points that are held: out of the balance while the hold is open, and back at its deadline without a job."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.testing.client import drain
from scrm_loyalty.models import held_lots, holds
from tests.plugins.shop import opened


async def test_a_hold_is_out_until_it_is_captured(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        payload = await shop.done("holdPoints", userId=user, points=40, reason="a lamp", reference="cart-7")
        hold = payload["hold"]
        assert {name: hold[name] for name in ("state", "points", "captured", "reference", "expiresAt")} == {
            "state": "OPEN",
            "points": 40,
            "captured": 0,
            "reference": "cart-7",
            "expiresAt": "2026-03-01T04:15:00.000000Z",
        }
        assert payload["account"] == {"balance": 60, "held": 40, "redeemed": 0, "user": {"id": user}}
        assert await shop.refused(user, 61) == ("INSUFFICIENT_POINTS", {"balance": 60, "points": 61})
        assert await shop.entries(user) == [("EARN", 100)]
        shop.set_time("2026-03-01T12:14:59")
        payload = await shop.done("captureHold", holdId=hold["id"], points=25)
        assert {name: payload["entry"][name] for name in ("kind", "points", "reason", "reference")} == {
            "kind": "REDEEM",
            "points": -25,
            "reason": "a lamp",
            "reference": "cart-7",
        }
        assert payload["account"] == {"balance": 75, "held": 0, "redeemed": 25, "user": {"id": user}}
        assert await shop.state(hold["id"]) == ("CAPTURED", 25)
        listed = await shop.account(user, "holds { id user { id } resolvedAt }")
        assert listed["holds"] == [{"id": hold["id"], "user": {"id": user}, "resolvedAt": "2026-03-01T04:14:59.000000Z"}]
        for name in ("captureHold", "releaseHold"):
            assert await shop.refusal(name, holdId=hold["id"]) == (
                "HOLD_ALREADY_RESOLVED",
                {"holdId": hold["id"], "state": "CAPTURED"},
            )
        await shop.check()


async def test_a_release_frees_it_once(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        hold = await shop.hold(user, 100)
        assert await shop.account(user, "balance held") == {"balance": 0, "held": 100}
        payload = await shop.done("releaseHold", holdId=hold)
        assert (payload["entry"], payload["account"]["balance"], payload["account"]["held"]) == (None, 100, 0)
        assert (await shop.refusal("releaseHold", holdId=hold))[0] == "HOLD_ALREADY_RESOLVED"
        assert (await shop.refusal("captureHold", holdId=hold))[0] == "HOLD_ALREADY_RESOLVED"
        assert await shop.state(hold) == ("RELEASED", 0)
        assert await shop.entries(user) == [("EARN", 100)]
        await shop.check()


async def test_at_its_deadline_a_hold_is_over_without_a_job(migrated_url: str) -> None:
    async with opened(migrated_url, hold_seconds=60) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        hold = await shop.hold(user, 100)
        shop.set_time("2026-03-01T12:00:59")
        assert (await shop.state(hold), await shop.balance(user)) == (("OPEN", 0), 0)
        shop.set_time("2026-03-01T12:01:00")
        assert await shop.account(user, "balance held") == {"balance": 100, "held": 0}
        assert await shop.state(hold) == ("EXPIRED", 0)
        said = {"holdId": hold, "expiresAt": "2026-03-01T04:01:00.000000Z"}
        assert await shop.refusal("captureHold", holdId=hold) == ("HOLD_EXPIRED", said)
        assert await shop.refusal("releaseHold", holdId=hold) == ("HOLD_EXPIRED", said)
        data = await shop.client.data("{ users(filter: {points: {eq: 100}}) { nodes { id } } }")
        assert data["users"]["nodes"] == [{"id": user}]
        for at, points in (("2026-03-01T04:00:00Z", 0), ("2026-03-01T04:00:59Z", 0), ("2026-03-01T04:01:00Z", 100)):
            assert await shop.account(user, f'balanceAt(at: "{at}")') == {"balanceAt": points}, at
        assert (await shop.redeem(user, 100))["errors"] == []
        await shop.check()


async def test_a_held_lot_expires_at_its_release(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=1) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        first, second = await shop.hold(user, 30, 86_400), await shop.hold(user, 20, 86_400)
        third = await shop.hold(user, 10, 86_400)
        assert (await shop.account(user, "expiring { points }"))["expiring"] == [{"points": 40}]
        shop.set_time("2026-03-02T00:00:00")
        assert await shop.account(user, "balance held expired") == {"balance": 0, "held": 60, "expired": 40}
        await shop.done("captureHold", holdId=first, points=25)
        assert await shop.account(user, "balance held expired") == {"balance": 0, "held": 30, "expired": 45}
        await shop.done("releaseHold", holdId=second)
        assert await shop.account(user, "balance held expired") == {"balance": 0, "held": 10, "expired": 65}
        shop.set_time("2026-03-02T12:00:00")
        assert await shop.account(user, "held expired redeemed") == {"held": 0, "expired": 75, "redeemed": 25}
        assert (await shop.state(third))[0] == "EXPIRED"
        await shop.check()


async def test_what_is_held_past_its_end_is_owed_by_nobody(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=10) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        hold = await shop.hold(user, 100, 86_400 * 20)
        shop.set_time("2026-03-15T12:00")
        await shop.refund(user, "o1", 10_000)
        assert await shop.account(user, "held debt") == {"held": 100, "debt": 0}
        await shop.done("releaseHold", holdId=hold)
        assert await shop.account(user, "balance held debt expired") == {"balance": 0, "held": 0, "debt": 0, "expired": 100}
        await shop.pay(user, "o2", 10_000)
        assert await shop.balance(user) == 100
        await shop.check()


async def test_a_refund_leaves_what_is_held_and_makes_debt(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        hold = await shop.hold(user, 60)
        await shop.refund(user, "o1", 10_000)
        assert await shop.account(user, "balance held debt") == {"balance": 0, "held": 60, "debt": 60}
        await shop.done("captureHold", holdId=hold)
        assert await shop.account(user, "balance held debt redeemed") == {"balance": 0, "held": 0, "debt": 60, "redeemed": 60}
        await shop.check()


@pytest.mark.parametrize(
    ("said", "code", "params"),
    [
        ({"points": 0}, "INVALID_POINTS", {"points": 0}),
        ({"points": 101}, "INSUFFICIENT_POINTS", {"balance": 100, "points": 101}),
        ({"points": 1, "expiresInSeconds": 0}, "INVALID_DEADLINE", {"expiresInSeconds": 0}),
        ({"points": 1, "expiresInSeconds": 31_536_001}, "INVALID_DEADLINE", {"expiresInSeconds": 31_536_001}),
        ({"points": 1, "channel": "nowhere"}, "UNKNOWN_CHANNEL", {"channel": "nowhere"}),
    ],
)
async def test_a_hold_that_is_refused_changes_nothing(migrated_url: str, said: Any, code: str, params: Any) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        assert await shop.refusal("holdPoints", userId=user, **said) == (code, params)
        assert await shop.account(user, "balance held holds { id }") == {"balance": 100, "held": 0, "holds": []}
        await shop.check()


async def test_a_capture_that_is_refused_changes_nothing(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        hold = await shop.hold(user, 40)
        assert await shop.refusal("captureHold", holdId=hold, points=41) == ("HOLD_TOO_SMALL", {"points": 41, "held": 40})
        assert await shop.refusal("captureHold", holdId=hold, points=0) == ("INVALID_POINTS", {"points": 0})
        unknown = f"PointsHold_{'0' * 32}"
        assert await shop.refusal("captureHold", holdId=unknown) == ("HOLD_NOT_FOUND", {"holdId": unknown})
        assert await shop.refusal("releaseHold", holdId=unknown) == ("HOLD_NOT_FOUND", {"holdId": unknown})
        assert (await shop.refusal("releaseHold", holdId=user))[0] == "INVALID_ID"
        assert await shop.account(user, "balance held") == {"balance": 60, "held": 40}
        await shop.check()


async def test_20_parallel_holds_and_spends_of_1_on_10_give_10(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 400)
        await shop.pay(user, "o2", 600)
        asked = [("holdPoints" if n % 2 else "redeemPoints", f"p{n}") for n in range(20)]
        answers = await asyncio.gather(*(shop.do(name, key, userId=user, points=1) for name, key in asked))
        codes = sorted(error["code"] for answer in answers for error in answer["errors"])
        assert codes == ["INSUFFICIENT_POINTS"] * 10
        found = await shop.account(user, "balance held redeemed")
        assert (found["balance"], found["held"] + found["redeemed"]) == (0, 10)
        await shop.check()


async def test_20_parallel_captures_are_one(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        same = await asyncio.gather(*(shop.do("holdPoints", "one", userId=user, points=30) for _ in range(20)))
        assert all(answer == same[0] for answer in same)
        assert same[0]["account"]["held"] == 30
        hold = same[0]["hold"]["id"]
        answers = await asyncio.gather(*(shop.do("captureHold", f"c{n}", holdId=hold) for n in range(20)))
        codes = sorted(error["code"] for answer in answers for error in answer["errors"])
        assert codes == ["HOLD_ALREADY_RESOLVED"] * 19
        assert await shop.account(user, "balance held redeemed") == {"balance": 70, "held": 0, "redeemed": 30}
        await shop.check()


async def test_a_hold_goes_with_its_person_through_merge_and_unmerge(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        kept, absorbed = await shop.member(), await shop.member()
        await shop.pay(kept, "k1", 10_000, "2026-02-20T12:00")
        await shop.pay(absorbed, "a1", 5_000, "2026-02-10T12:00")
        before = await shop.hold(absorbed, 10, 86_400)
        merge = await shop.merge(kept, absorbed)
        after = await shop.hold(kept, 45, 86_400)  # 40 of a1, which expires sooner, and 5 of k1
        assert await shop.account(kept, "balance held") == {"balance": 95, "held": 55}
        await shop.unmerge(merge)
        assert await shop.account(absorbed, "balance held") == {"balance": 0, "held": 10}
        assert await shop.account(kept, "balance held") == {"balance": 95, "held": 45}
        assert (await shop.done("captureHold", holdId=before))["account"]["user"] == {"id": absorbed}
        payload = await shop.done("captureHold", holdId=after, points=42)
        assert payload["account"] == {"balance": 98, "held": 0, "redeemed": 42, "user": {"id": kept}}
        assert await shop.account(absorbed, "balance held debt") == {"balance": 0, "held": 0, "debt": 0}
        await shop.refund(absorbed, "a1", 5_000)
        assert await shop.account(absorbed, "balance debt") == {"balance": 0, "debt": 50}
        await shop.check()


async def test_an_erased_person_s_holds_are_released(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        hold = await shop.hold(user, 40, reason="for her mother")
        data = await shop.client.data("mutation($u: ID!) { exportUser(input: {id: $u}) { export } }", u=user)
        [said] = data["exportUser"]["export"]["plugins"]["loyalty"]["holds"]
        assert (said["points"], said["state"], said["reason"]) == (40, "OPEN", "for her mother")
        await shop.client.data("mutation($u: ID!) { eraseUser(input: {id: $u}) { errors { code } } }", u=user)
        assert (await shop.refusal("captureHold", holdId=hold))[0] == "USER_ERASED"
        await drain(shop.client)
        assert (await shop.refusal("captureHold", holdId=hold))[0] == "HOLD_ALREADY_RESOLVED"
        db = shop.client.services.db
        assert [tuple(row) for row in await db.read(lambda tx: tx.rows(sa.select(holds.c.state, holds.c.reason)))] == [
            ("RELEASED", None)
        ]
        assert await db.read(lambda tx: tx.scalar(sa.select(held_lots.c.amount))) == 40
        await shop.check()


async def test_where_it_happened(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        made = 'mutation { createChannel(input: {key: "till", name: "Till", kind: STORE}) { errors { code } } }'
        assert (await shop.client.data(made))["createChannel"]["errors"] == []
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        for name in ("redeemPoints", "holdPoints"):
            await shop.done(name, userId=user, points=1, channel="till")
        asked = '{ events(filter: {channel: ["till"]}) { nodes { type channel { key } } } }'
        await drain(shop.client)
        nodes = (await shop.client.data(asked))["events"]["nodes"]
        assert sorted(node["type"] for node in nodes) == ["points.held", "points.redeemed"]
        await shop.check()
