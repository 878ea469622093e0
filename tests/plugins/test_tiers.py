"""Levels as members and a front end see them; after every test the log must give the same rows again."""

from __future__ import annotations

from typing import Any

import pytest

from scrm.testing.following import following
from tests.plugins.club import bounds, opened


@pytest.mark.parametrize(
    ("amount", "tier"),
    [(1, "bronze"), (999, "bronze"), (1_000, "silver"), (1_001, "silver"), (2_999, "silver"), (3_000, "gold"), (3_001, "gold")],
)
async def test_a_bound_is_reached_when_it_is_equalled(migrated_url: str, amount: int, tier: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        assert await club.tier(user) == "bronze"
        await club.pay(user, "o1", amount)
        assert await club.tier(user) == tier
        await club.check()


async def test_a_membership_says_all(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        await club.pay(user, "o1", 1_200)
        found = await club.membership(
            user,
            """tier { key name level thresholds { metric value } benefits { key name value } memberCount }
               since validUntil pinnedUntil user { id } asOf growth nextTier { key } projectedTier { key }
               progress { metric value required remaining money { amountMinor currency } } """,
        )
        assert found == {
            "tier": {
                "key": "silver",
                "name": "银",
                "level": 2,
                "thresholds": [{"metric": "SPEND", "value": 1_000}],
                "benefits": [{"key": "multiplier", "name": "积分倍数", "value": "1.5"}],
                "memberCount": 1,
            },
            "since": "2026-03-01T04:00:00.000000Z",
            "validUntil": "2026-03-31T16:00:00.000000Z",
            "pinnedUntil": None,
            "user": {"id": user},
            "asOf": "2026-03-01T04:00:00.000000Z",
            "growth": 0,
            "nextTier": {"key": "gold"},
            "projectedTier": {"key": "silver"},
            "progress": [
                {
                    "metric": "SPEND",
                    "value": 1_200,
                    "required": 3_000,
                    "remaining": 1_800,
                    "money": {"amountMinor": 1_200, "currency": "CNY"},
                }
            ],
        }
        await club.check()


@pytest.mark.parametrize(
    ("match", "spend", "orders", "tier"),
    [
        ("ALL", 1_000, 1, "bronze"),
        ("ALL", 999, 2, "bronze"),
        ("ALL", 1_000, 2, "silver"),
        ("ALL", 5_000, 2, "silver"),
        ("ALL", 3_000, 4, "gold"),
        ("ANY", 999, 1, "bronze"),
        ("ANY", 1_000, 1, "silver"),
        ("ANY", 10, 2, "silver"),
        ("ANY", 10, 4, "gold"),
    ],
)
async def test_amount_and_frequency(migrated_url: str, match: str, spend: int, orders: int, tier: str) -> None:
    levels = bounds("spend", 0, 1_000, 3_000, orders=(0, 2, 4))
    async with opened(migrated_url, levels=levels, match=match) as club:
        user = await club.member()
        for number in range(orders):
            await club.pay(user, f"o{number}", spend - orders + 1 if number == 0 else 1)
        found = await club.membership(user, "tier { key } projectedTier { key } progress { metric value }")
        assert found["tier"] == found["projectedTier"] == {"key": tier}
        assert found["progress"] == [{"metric": "SPEND", "value": spend}, {"metric": "ORDERS", "value": orders}]
        await club.check()


async def test_an_order_counts_once_however_it_is_paid(migrated_url: str) -> None:
    async with opened(migrated_url, levels=bounds("orders", 1, 2)) as club:
        user = await club.member()
        assert await club.tier(user) is None
        await club.pay(user, "o1", 10)
        await club.pay(user, "o1", 10)
        assert await club.value(user, "ORDERS") == 1
        assert await club.history(user) == [("UPGRADE", None, "bronze")]
        await club.refund(user, "o1", 19)
        assert await club.value(user, "ORDERS") == 1
        await club.refund(user, "o1", 1)
        assert await club.value(user, "ORDERS") == 0
        await club.pass_to("2026-04-01T00:15")
        assert await club.history(user) == [("UPGRADE", None, "bronze"), ("REVIEW", "bronze", None)]
        assert await club.tier(user) is None
        await club.check()


async def test_other_currencies_and_orders_without_an_amount_count_nothing(migrated_url: str) -> None:
    async with opened(migrated_url, levels=bounds("spend", 0, 1, orders=(0, 1)), match="ANY") as club:
        user = await club.member()
        await club.pay(user, "o1", 10_000, currency="USD")
        await club.send(club.event("order.paid", user, "o2", None, None))
        assert [await club.value(user, metric) for metric in ("SPEND", "ORDERS")] == [0, 0]
        assert await club.history(user) == []
        await club.check()


async def test_points_are_learned_from_what_is_announced(migrated_url: str) -> None:
    async with opened(migrated_url, loyalty=True, levels=bounds("points_earned", 0, 10, 20)) as club:
        user = await club.member()
        await club.pay(user, "o1", 1_099)  # 10 points
        assert await club.history(user) == [("UPGRADE", "bronze", "silver")]
        assert (await club.redeem(user, 10))["errors"] == []
        await club.pass_to("2026-04-01T00:15")
        assert (await club.tier(user), await club.value(user, "POINTS_EARNED")) == ("silver", 10)
        await club.refund(user, "o1", 360)  # floor(10 × 360 ÷ 1099) = 3
        assert (await club.tier(user), await club.value(user, "POINTS_EARNED")) == ("silver", 7)
        await club.pay(user, "o2", 1_300)
        assert (await club.tier(user), await club.value(user, "POINTS_EARNED")) == ("gold", 20)
        await club.check()


async def test_points_that_no_plugin_announced_are_not_believed(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        await club.send(club.event("points.earned", user, "o1", None, None) | {"properties": {"points": 50, "lots": []}})
    async with opened(migrated_url, loyalty=True, levels=bounds("points_earned", 0, 10)) as club:
        assert (await club.value(user, "POINTS_EARNED"), await club.tier(user)) == (0, "bronze")
        await club.pay(user, "o2", 1_000)
        assert (await club.value(user, "POINTS_EARNED"), await club.tier(user)) == (10, "silver")
        await club.check()


TASKS = [
    {"key": "share", "event": "content.shared", "where": {"campaign": "spring", "paid": True}, "growth": 10, "per_day": 2},
    {"key": "welcome", "event": "user.signed_up", "growth": 50, "lifetime": 1},
    {"key": "odd", "event": "shop.visited", "where": {"floor": 3}, "growth": 1},
]


async def test_growth_value_is_given_for_tasks_with_caps(migrated_url: str) -> None:
    async with opened(migrated_url, levels=bounds("growth", 0, 60, 90), tasks=TASKS) as club:
        user = await club.member()

        async def share(at: str, **properties: Any) -> int:
            said = {"contentId": "c", "campaign": "spring", "paid": True, **properties}
            await club.send(club.event("content.shared", user, None, None, at) | {"properties": said})
            return int((await club.membership(user, "growth"))["growth"])

        assert await share("2026-02-28T23:59:59") == 10
        assert await share("2026-02-28T23:59:59", campaign="autumn") == 10
        assert await share("2026-02-28T23:59:59", paid=1) == 10
        assert await share("2026-02-28T00:00:00") == 20
        assert await share("2026-02-28T12:00:00") == 20  # the third of the day
        assert await share("2026-03-01T00:00:00") == 30
        for _ in range(2):
            await club.send(club.event("user.signed_up", user, None, None, None))
        assert await club.value(user, "GROWTH") == 80
        assert await club.tier(user) == "silver"
        visit = club.event("shop.visited", user, None, None, None)
        await club.send(visit | {"properties": {"floor": 3}}, club.event("shop.visited", user, None, None, None))
        assert await club.value(user, "GROWTH") == 81
        granted = await club.grant(user, 9)
        assert granted == {"membership": {"tier": {"key": "gold"}, "growth": 90}, "errors": []}
        refused = await club.grant(user, 0)
        assert [(error["code"], error["path"]) for error in refused["errors"]] == [("INVALID_GROWTH", ["growth"])]
        await club.check()


async def test_late_events_raise_a_level_too(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-04-02T12:00", window="CALENDAR_YEAR") as club:
        user = await club.member()
        await club.pay(user, "o1", 600)
        await club.pay(user, "o2", 400, "2026-01-10T12:00")
        assert await club.tier(user) == "silver"
        await club.pass_to("2027-01-01T00:15")
        await club.pass_to("2027-01-02T00:15")
        await club.pay(user, "o3", 2_000, "2026-12-31T23:59")  # the year is over, and it counts for it
        assert await club.history(user) == [("UPGRADE", "bronze", "silver"), ("UPGRADE", "silver", "gold")]
        await club.check()


async def test_levels_are_listed_filtered_and_sorted_by(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        users = [await club.member() for _ in range(4)]
        for user, amount in zip(users, (3_000, 1_000, 1_500, 10), strict=True):
            await club.pay(user, "o", amount)
        data = await club.client.data(
            """query { tiers { key level memberCount thresholds { value } }
                 silver: users(filter: {tier: {eq: "silver"}}) { totalCount }
                 others: users(filter: {tier: {in: ["gold", "bronze"]}}) { totalCount }
                 sorted: users(orderBy: [{tierLevel: DESC}, {createdAt: ASC}]) { nodes { id membership { tier { level } } } } }"""
        )
        assert data["tiers"] == [
            {"key": "bronze", "level": 1, "memberCount": 1, "thresholds": [{"value": 0}]},
            {"key": "silver", "level": 2, "memberCount": 2, "thresholds": [{"value": 1_000}]},
            {"key": "gold", "level": 3, "memberCount": 1, "thresholds": [{"value": 3_000}]},
        ]
        assert (data["silver"], data["others"]) == ({"totalCount": 2}, {"totalCount": 2})
        assert [node["membership"]["tier"]["level"] for node in data["sorted"]["nodes"]] == [3, 2, 2, 1]
        assert data["sorted"]["nodes"][0]["id"] == users[0]
        tagged = await club.client.data(
            """mutation { createTag(input: {key: "vip", name: "贵宾"}) { errors { code } }
                 tagUsers(input: {tags: ["vip"], filter: {tier: {eq: "silver"}}}) { matched changed errors { code } } }"""
        )
        assert tagged["tagUsers"] == {"matched": 2, "changed": 2, "errors": []}
        await club.check()


async def test_names_follow_the_language(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        for language, name in (("en", "Silver"), ("en-GB", "Silver"), ("zh-CN", "银"), ("fr", "银")):
            club.client.http.headers["Accept-Language"] = language
            found = (await club.client.data("{ tiers { name benefits { name } } }"))["tiers"][1]
            assert found["name"] == name, language
        await club.check()


EVERYTHING = """{ users(first: 20) { nodes { id membership {
  tier { key level thresholds { metric value } benefits { key value } } since validUntil pinnedUntil asOf growth
  nextTier { key } progress { metric value required remaining money { amountMinor currency } } projectedTier { key }
  history { totalCount nodes { cause at from { key } to { key } progress { metric value } user { id } } } } } } }"""


async def test_a_page_of_people_is_one_statement(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(migrated_url) as club:
        for amount in (10, 1_000, 3_000):
            await club.pay(await club.member(), "o", amount)
        sent: list[str] = []
        db = club.client.services.db
        fetch = type(db).fetch

        async def counted(self: Any, sql: str, parameters: Any) -> Any:
            sent.append(sql)
            return await fetch(self, sql, parameters)

        monkeypatch.setattr(type(db), "fetch", counted)
        nodes = (await club.client.data(EVERYTHING))["users"]["nodes"]
        assert [node["membership"]["tier"]["key"] for node in nodes] == ["gold", "silver", "bronze"]
        assert [node["membership"]["history"]["totalCount"] for node in nodes] == [1, 1, 0]
        assert len(sent) == 1


async def test_permissions(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        reader = club.client.with_key(await club.client.key("users:read", name="r"))
        answer = await reader.graphql("query($id: ID!) { user(id: $id) { id membership { tier { key } } } }", id=user)
        assert answer["data"] == {"user": {"id": user, "membership": None}}
        assert answer["errors"][0]["extensions"]["params"] == {"scope": "tiers:read"}
        for document in (
            "{ tiers { key } }",
            '{ simulateTiers(scheme: "x") { people } }',
            '{ users(filter: {tier: {eq: "x"}}) { totalCount } }',
        ):
            answer = await reader.graphql(document)
            assert answer["errors"][0]["extensions"]["params"] == {"scope": "tiers:read"}
        seeing = club.client.with_key(await club.client.key("users:read", "tiers:read", name="s"))
        answer = await seeing.graphql('mutation { reviewTiers(input: {idempotencyKey: "k"}) { changed } }')
        assert answer["errors"][0]["extensions"]["params"] == {"scope": "tiers:write"}
        await club.check()


async def test_a_change_is_announced_and_followed(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user, other = await club.member(), await club.member()
        document = "subscription($id: ID) { tierChanged(userId: $id) { cause from { key } to { key } user { id } } }"
        async with following(club.client, document, id=user) as followed:
            await club.pay(other, "o", 1_000)
            await club.pay(user, "o", 1_000)
            assert await followed.next() == {
                "tierChanged": {"cause": "UPGRADE", "from": {"key": "bronze"}, "to": {"key": "silver"}, "user": {"id": user}}
            }
        asked = 'query($id: ID!) { events(filter: {type: ["tier.changed"], user: $id}) { nodes { properties source } } }'
        [event] = (await club.client.data(asked, id=user))["events"]["nodes"]
        assert event["source"] == "plugin:tiers"
        assert {key: event["properties"][key] for key in ("from", "to", "toLevel", "multiplier", "cause", "validUntil")} == {
            "from": "bronze",
            "to": "silver",
            "toLevel": 2,
            "multiplier": "1.5",
            "cause": "UPGRADE",
            "validUntil": "2026-03-31T16:00:00.000000Z",
        }


async def test_a_changed_scheme_moves_nobody_at_once(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        users = [await club.member() for _ in range(3)]
        for user, amount in zip(users, (3_000, 1_000, 500), strict=True):
            await club.pay(user, "o", amount)
    levels = [
        {"key": "bronze", "name": "b", "bounds": {"spend": 0}},
        {"key": "silver", "name": "s", "bounds": {"spend": 500}},
        {"key": "diamond", "name": "d", "bounds": {"spend": 2_000}},
    ]
    async with opened(migrated_url, levels=levels) as club:
        assert [await club.tier(user) for user in users] == ["gold", "silver", "bronze"]
        data = await club.client.data("{ tiers { key level } }")
        assert data["tiers"] == [{"key": "bronze", "level": 1}, {"key": "silver", "level": 2}, {"key": "diamond", "level": 3}]
        gone = await club.membership(users[0], "tier { key name level } nextTier { key }")
        assert gone == {"tier": {"key": "gold", "name": "金", "level": 0}, "nextTier": {"key": "silver"}}
        await club.pass_to("2026-04-01T00:15")
        assert [await club.tier(user) for user in users] == ["diamond", "silver", "silver"]
        assert await club.history(users[0]) == [("UPGRADE", "bronze", "gold"), ("REVIEW", "gold", "diamond")]
        await club.check()


async def test_a_level_that_the_scheme_does_not_have_any_more_waits_for_the_review(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        users = [await club.member() for _ in range(3)]
        for user in users:
            await club.pay(user, "o", 3_000)
    async with opened(migrated_url, levels=bounds("spend", 0, 1_000)) as club:
        merged = await club.member()
        await club.pay(merged, "o", 500)
        await club.merge(users[1], merged)
        for user in users:
            await club.pay(user, "o2", 1)
            assert await club.tier(user) == "gold"
            assert (await club.membership(user, "validUntil"))["validUntil"] == "2026-03-31T16:00:00.000000Z"
        await club.set_tier(users[2], "bronze", "2026-06-01T00:00")  # what is said by hand counts at once
        assert [await club.tier(user) for user in users] == ["gold", "gold", "bronze"]
        await club.pass_to("2026-04-01T00:15")
        assert await club.history(users[0]) == [("UPGRADE", "bronze", "gold"), ("REVIEW", "gold", "silver")]
        assert await club.history(users[2]) == [
            ("UPGRADE", "bronze", "gold"),
            ("PIN", "gold", "bronze"),
            ("REVIEW", "bronze", "silver"),
        ]
        await club.check()
