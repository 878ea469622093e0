"""Levels given by hand, and what merges, erasures and exports do to levels."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scrm.testing.client import drain, serving
from scrm_tiers.rules import TiersRules
from tests.plugins.club import GRANT, Club, bounds, opened
from tests.plugins.shop import Shop, local

UNTIL = "2026-06-15T00:00"


async def test_a_pin_gives_a_level_and_nothing_lowers_it_before_its_end(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        payload = await club.set_tier(user, "gold", UNTIL, reason="a friend of the house")
        assert payload == {"membership": {"tier": {"key": "gold"}, "pinnedUntil": "2026-06-14T16:00:00.000000Z"}, "errors": []}
        assert (await club.membership(user, "validUntil"))["validUntil"] == "2026-06-30T16:00:00.000000Z"
        for month in (4, 5, 6):
            await club.pass_to(f"2026-0{month}-01T00:15")
            assert await club.tier(user) == "gold"
        await club.pass_to("2026-06-14T23:59:59")
        assert (await club.membership(user, "pinnedUntil"))["pinnedUntil"] is not None
        await club.pass_to("2026-06-15T00:00:00")
        assert await club.membership(user, "tier { key } pinnedUntil") == {"tier": {"key": "gold"}, "pinnedUntil": None}
        await club.pass_to("2026-07-01T00:15")
        assert await club.history(user) == [("PIN", "bronze", "gold"), ("REVIEW", "gold", "bronze")]
        await club.check()


@pytest.mark.parametrize(("until", "tier"), [("2026-04-01T00:00:00", "bronze"), ("2026-04-01T00:00:01", "silver")])
async def test_a_pin_that_ends_with_the_period_does_not_hold_at_its_review(migrated_url: str, until: str, tier: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        await club.set_tier(user, "silver", until)
        await club.pass_to("2026-04-01T00:15")
        assert await club.tier(user) == tier
        await club.check()


async def test_what_is_reached_above_a_pin_falls_to_the_pin_only(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        await club.set_tier(user, "silver", UNTIL)
        await club.pay(user, "o1", 3_000)
        await club.refund(user, "o1", 3_000)
        assert await club.tier(user) == "gold"
        await club.pass_to("2026-04-01T00:15")
        assert await club.tier(user) == "silver"
        assert await club.history(user) == [
            ("PIN", "bronze", "silver"),
            ("UPGRADE", "silver", "gold"),
            ("REVIEW", "gold", "silver"),
        ]
        await club.check()


async def test_a_pin_that_is_taken_back(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        await club.pay(user, "o1", 1_000)
        refused = await club.clear_tier(user)
        assert [(error["code"], error["path"]) for error in refused["errors"]] == [("TIER_NOT_SET", ["userId"])]
        await club.set_tier(user, "gold", UNTIL)
        payload = await club.clear_tier(user)
        assert payload == {"membership": {"tier": {"key": "silver"}, "pinnedUntil": None}, "errors": []}
        assert await club.history(user) == [
            ("UPGRADE", "bronze", "silver"),
            ("PIN", "silver", "gold"),
            ("UNPIN", "gold", "silver"),
        ]
        await club.set_tier(user, "silver", UNTIL)  # the level it has: no change, no row
        await club.clear_tier(user)
        assert len(await club.history(user)) == 3
        await club.set_tier(user, "silver", UNTIL)
        await club.pay(user, "o2", 2_000)
        await club.clear_tier(user)  # gold was reached, and waits for the review
        assert await club.tier(user) == "gold"
        await club.check()


async def test_a_lower_level_by_hand(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        await club.pay(user, "o1", 3_000)
        await club.set_tier(user, "bronze", UNTIL)
        assert await club.history(user) == [("UPGRADE", "bronze", "gold"), ("PIN", "gold", "bronze")]
        await club.pay(user, "o2", 1)
        assert await club.tier(user) == "gold"
        await club.check()


async def test_pins_that_are_refused_and_repeated(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        for tier, until, code, path in (
            ("diamond", UNTIL, "UNKNOWN_TIER", ["tier"]),
            ("gold", "2026-03-01T12:00", "INVALID_EXPIRY", ["until"]),
            ("gold", "2126-02-05T12:00:01", "INVALID_EXPIRY", ["until"]),  # a second more than 36 500 days
            ("gold", "9999-12-31T23:59:59", "INVALID_EXPIRY", ["until"]),
        ):
            payload = await club.set_tier(user, tier, until)
            assert [(error["code"], error["path"]) for error in payload["errors"]] == [(code, path)]
        assert await club.history(user) == []
        first = await club.set_tier(user, "gold", UNTIL, idempotencyKey="k")
        assert await club.set_tier(user, "gold", UNTIL, idempotencyKey="k") == first
        other = await club.set_tier(user, "silver", UNTIL, idempotencyKey="k")
        assert [error["code"] for error in other["errors"]] == ["IDEMPOTENCY_CONFLICT"]
        assert await club.history(user) == [("PIN", "bronze", "gold")]
        await club.check()


async def test_a_pin_that_lasts_for_long(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(migrated_url, grace=12) as club:
        user, walked = await club.member(), []
        review_after = TiersRules.review_after

        def counted(self: TiersRules, *day: Any) -> Any:
            walked.append(day)
            return review_after(self, *day)

        monkeypatch.setattr(TiersRules, "review_after", counted)
        far = "2126-02-05T12:00"
        payload = await club.set_tier(user, "gold", far)
        assert payload == {"membership": {"tier": {"key": "gold"}, "pinnedUntil": "2126-02-05T04:00:00.000000Z"}, "errors": []}
        await club.pay(user, "o1", 1)
        assert (await club.membership(user, "validUntil"))["validUntil"] == "2127-02-28T16:00:00.000000Z"
        assert len(walked) < 50  # an event costs the same however far the end is
        refused = await club.set_tier(user, "gold", "9999-11-30T00:00")
        said = "until is 9999-11-29T16:00:00.000000Z; a level is given until later than now, and for at most 36500 days"
        assert [(error["code"], error["message"]) for error in refused["errors"]] == [("INVALID_EXPIRY", said)]
        assert refused["errors"][0]["params"] == {"until": "9999-11-29T16:00:00.000000Z"}
        await club.check()


async def test_the_survivor_of_a_merge_has_what_both_reach(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        kept, absorbed = await club.member(), await club.member()
        await club.pay(kept, "o1", 600)
        await club.pay(absorbed, "o2", 600)
        merge = await club.merge(kept, absorbed)
        assert await club.history(kept) == [("MERGE", "bronze", "silver")]
        assert await club.value(kept) == 1_200
        await club.refund(kept, "o2", 600)
        await club.pay(kept, "o3", 100)
        assert await club.value(kept) == 700
        await club.unmerge(merge)
        assert [await club.value(user) for user in (kept, absorbed)] == [700, 0]
        assert [await club.tier(user) for user in (kept, absorbed)] == ["silver", "bronze"]
        await club.pass_to("2026-04-01T00:15")
        assert await club.tier(kept) == "bronze"
        await club.check()


async def test_the_higher_level_and_its_pin_come_along_and_go_back(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        kept, absorbed, last = [await club.member() for _ in range(3)]
        await club.set_tier(absorbed, "gold", UNTIL)
        await club.set_tier(kept, "silver", "2026-12-01T00:00")
        first = await club.merge(kept, absorbed)
        await club.merge(last, kept)
        assert await club.membership(last, "tier { key } pinnedUntil") == {
            "tier": {"key": "gold"},
            "pinnedUntil": "2026-06-14T16:00:00.000000Z",
        }
        assert [cause for cause, _, to in await club.history(last) if to == "gold"] == ["PIN", "MERGE", "MERGE"]
        await club.unmerge(first)
        assert await club.membership(absorbed, "tier { key } pinnedUntil") == {
            "tier": {"key": "gold"},
            "pinnedUntil": "2026-06-14T16:00:00.000000Z",
        }
        await club.check()


async def test_who_is_parted_again_has_been_reviewed(migrated_url: str) -> None:
    async with opened(migrated_url, "2025-01-10T12:00", downgrade="ONE_DOWN") as club:
        kept, absorbed, inner = [await club.member() for _ in range(3)]
        await club.pay(absorbed, "o1", 3_000)
        await club.pay(inner, "o2", 1_000, "2025-01-10T12:00")
        await club.pay(kept, "o3", 1)
        await club.merge(absorbed, inner)
        merge = await club.merge(kept, absorbed)
        club.set_time("2025-05-10T12:00")
        await club.pay(kept, "o4", 1_000)
        await club.pass_to("2026-04-10T12:00")
        assert await club.tier(kept) == "silver"
        await club.unmerge(merge)
        asked = "tier { key } validUntil history { nodes { cause at to { key } } }"
        found = await club.membership(absorbed, asked)
        assert (found["tier"], found["validUntil"]) == ({"key": "bronze"}, None)
        lines = [(line["cause"], line["at"], line["to"]["key"]) for line in found["history"]["nodes"]]
        assert lines[:2] == [
            ("REVIEW", "2026-02-28T16:00:00.000000Z", "bronze"),
            ("REVIEW", "2026-01-31T16:00:00.000000Z", "silver"),
        ]
        await club.pass_to("2026-04-11T12:00")
        assert await club.membership(absorbed, asked) == found
        assert await club.tier(kept) == "silver"
        await club.check()


async def test_somebody_without_anything_is_merged(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        one, other, third = [await club.member() for _ in range(3)]
        await club.unmerge(await club.merge(one, other))
        await club.pay(one, "o1", 1_000)
        await club.merge(third, one)
        assert await club.history(third) == [("UPGRADE", "bronze", "silver"), ("MERGE", "bronze", "silver")]
        await club.check()


async def erase(club: Club, user: str) -> None:
    data = await club.client.data("mutation($id: ID!) { eraseUser(input: {id: $id}) { errors { code } } }", id=user)
    assert data["eraseUser"]["errors"] == []
    await drain(club.client)


async def test_who_is_forgotten_is_never_reviewed_again(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user, other = await club.member(), await club.member()
        await club.pay(other, "o0", 3_000)
        await club.pay(user, "o1", 1_000)
        await club.set_tier(user, "gold", UNTIL, reason="secret")
        await club.merge(user, other)
        await erase(club, user)
        data = await club.client.data("{ users { totalCount } tiers { key memberCount } }")
        assert data == {
            "users": {"totalCount": 0},
            "tiers": [{"key": key, "memberCount": 0} for key in ("bronze", "silver", "gold")],
        }
        await club.pass_to("2027-04-01T00:15")
        changed = await club.client.data('{ events(filter: {type: ["tier.changed"]}) { nodes { properties } } }')
        assert {node["properties"]["cause"] for node in changed["events"]["nodes"]} == {"UPGRADE", "PIN"}
        log = await club.client.data("{ events(first: 100) { nodes { properties } } }")
        assert "secret" not in str(log)
        await club.check()


async def test_an_export_has_all_that_is_kept(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        await club.pay(user, "o1", 1_000)
        asked = "mutation($id: ID!) { exportUser(input: {id: $id}) { export errors { code } } }"
        exported: Any = (await club.client.data(asked, id=user))["exportUser"]
        assert exported["errors"] == []
        kept = exported["export"]["plugins"]["tiers"]
        assert [(row["tier"], row["failures"]) for row in kept["membership"]] == [("silver", 0)]
        assert [(row["from_tier"], row["to_tier"]) for row in kept["transitions"]] == [("bronze", "silver")]
        assert [(row["counted_on"], row["spend"], row["orders"]) for row in kept["days"]] == [("2026-03-01", 1_000, 1)]
        assert [(row["order_id"], row["paid"]) for row in kept["orders"]] == [("o1", 1_000)]


async def test_a_dry_run_counts_what_would_move(migrated_url: str) -> None:
    async with opened(migrated_url, levels=bounds("spend", 0, 1)) as club:
        kept, absorbed = await club.member(), await club.member()
        await club.pay(absorbed, "o1", 1_000)
        asked = """mutation($k: ID!, $a: ID!) { mergeUsers(input: {keptId: $k, absorbedId: $a, dryRun: true}) {
          moved { owner count } errors { code } } }"""
        moved = (await club.client.data(asked, k=kept, a=absorbed))["mergeUsers"]["moved"]
        assert {"owner": "tiers", "count": 3} in moved
        assert await club.tier(kept) == "bronze"


async def test_what_is_done_at_once_is_done_once_each(migrated_url: str) -> None:
    async with opened(migrated_url, levels=bounds("growth", 0, 50, 100)) as club:
        user = await club.member()
        answers = await asyncio.gather(*(club.client.data(GRANT, input=grant(user, n)) for n in range(20)))
        assert [answer["grantGrowth"]["errors"] for answer in answers] == [[]] * 20
        assert await club.value(user, "GROWTH") == 200
        assert await club.history(user) == [("UPGRADE", "bronze", "silver"), ("UPGRADE", "silver", "gold")]
        again = await asyncio.gather(*(club.client.data(GRANT, input=grant(user, 7)) for _ in range(5)))
        assert [answer["grantGrowth"]["errors"] for answer in again] == [[]] * 5
        assert await club.value(user, "GROWTH") == 200
        await club.check()


def grant(user: str, number: int) -> dict[str, Any]:
    return {"userId": user, "growth": 10, "idempotencyKey": f"k{number}"}


async def test_history_from_before_it_was_enabled(migrated_url: str) -> None:
    at = local("2026-03-01T12:00")
    async with serving(migrated_url, clock=lambda: at) as client:
        shop = Shop(client, [at])
        users = [await shop.member() for _ in range(2)]
        await shop.send(
            *(shop.event("order.paid", users[0], f"o{month}", 700, f"2025-{month:02}-10T12:00") for month in (1, 2, 3))
        )
        await shop.pay(users[1], "p", 1_000)
    async with opened(migrated_url) as club:
        assert [await club.tier(user) for user in users] == ["silver", "silver"]
        assert await club.history(users[0]) == [("UPGRADE", "bronze", "silver")]
        await club.review()
        assert await club.history(users[0]) == [("UPGRADE", "bronze", "silver"), ("REVIEW", "silver", "bronze")]
        await club.check()
