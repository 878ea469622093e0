"""What an event would earn is what it earns when it is recorded."""

from __future__ import annotations

from typing import Any

from tests.plugins.shop import Shop, opened

ASKED = """query($i: EventInput!) { previewPoints(input: $i) {
  points debtRepaid cancelled earning { rule points availableAt expiresAt } why { code rule message } } }"""


async def previewed(shop: Shop, event: dict[str, Any]) -> dict[str, Any]:
    """The answer for an event."""
    found: dict[str, Any] = (await shop.client.data(ASKED, i=event))["previewPoints"]
    return found


def codes(said: dict[str, Any]) -> list[tuple[str, str | None]]:
    """Why there are not more points, without the words."""
    return [(one["code"], one["rule"]) for one in said["why"]]


async def test_a_preview_says_what_the_event_then_earns(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=10, pending_days=2) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 150)
        event = shop.event("order.paid", user, "o1", 12_399, None)
        expected = {
            "points": 124,
            "debtRepaid": 0,
            "cancelled": 0,
            "earning": [
                {
                    "rule": "order",
                    "points": 124,
                    "availableAt": "2026-03-02T16:00:00.000000Z",
                    "expiresAt": "2026-03-10T16:00:00.000000Z",
                }
            ],
            "why": [
                {
                    "code": "ROUNDED_DOWN",
                    "rule": "order",
                    "message": "its points are rounded down, those of an order for all of it",
                }
            ],
        }
        assert await previewed(shop, event) == expected
        assert await previewed(shop, event) == expected
        assert await shop.account(user, "earned") == {"earned": 1}
        await shop.send(event)
        assert await shop.account(user, "earned pending") == {"earned": 125, "pending": 125}
        again = await previewed(shop, event)
        assert (again["points"], codes(again)) == (0, [("RECORDED_ALREADY", None)])
        assert again["why"][0]["message"] == "it is recorded already, and counts once"
        await shop.check()


async def test_a_preview_knows_debts_and_refunds(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        await shop.redeem(user, 100)
        await shop.refund(user, "o1", 3_000)
        await shop.refund(user, "o2", 2_000)
        event = shop.event("order.paid", user, "o2", 5_000, None)
        said = await previewed(shop, event)
        assert (said["points"], said["debtRepaid"], said["cancelled"]) == (50, 30, 20)
        assert [(one["code"], one["message"]) for one in said["why"]] == [
            ("PAYS_DEBT", "30 of them pay a debt"),
            ("REFUNDED_BEFORE", "20 of them are cancelled at once, for the order was refunded before"),
        ]
        await shop.send(event)
        assert await shop.account(user, "balance debt earned") == {"balance": 0, "debt": 0, "earned": 150}
        await shop.check()


async def test_what_earns_nothing_says_why(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        for event, code, message in (
            (shop.event("content.liked", user, None, None, None), "NO_RULE", "no earn rule is for content.liked"),
            (shop.event("order.paid", user, "o1", None, None), "NO_AMOUNT", "it has no amount, or none above 0"),
            (
                shop.event("order.paid", user, "o1", 100, None, currency="USD"),
                "OTHER_CURRENCY",
                "its amount is in USD; points are earned for CNY",
            ),
        ):
            said = await previewed(shop, event)
            assert (said["points"], said["earning"]) == (0, [])
            assert said["why"] == [{"code": code, "rule": None, "message": message}]
        stranger = shop.event("order.paid", user, "o1", 500, None)
        del stranger["userId"]
        stranger["identity"] = {"channel": "nowhere", "externalId": "somebody"}
        answer = await shop.client.graphql(ASKED, i=stranger)
        assert answer["errors"][0]["extensions"]["code"] == "UNKNOWN_CHANNEL"
        made = 'mutation { createChannel(input: {key: "nowhere", name: "N", kind: APP}) { errors { code } } }'
        assert (await shop.client.data(made))["createChannel"]["errors"] == []
        assert (await previewed(shop, stranger))["points"] == 5
        for wrong, code in (
            ({"amount": {"amountMinor": -1, "currency": "CNY"}}, "INVALID_AMOUNT"),
            ({"source": ""}, "INVALID_KEY"),
        ):
            answer = await shop.client.graphql(ASKED, i={**stranger, **wrong})
            assert answer["errors"][0]["extensions"]["code"] == code
        nobody = shop.event("order.paid", f"User_{'0' * 32}", "o1", 500, None)
        answer = await shop.client.graphql(ASKED, i=nobody)
        assert answer["errors"][0]["extensions"]["code"] == "USER_NOT_FOUND"
        await shop.check()


async def test_whom_a_channel_knows(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        made = 'mutation { createChannel(input: {key: "app", name: "App", kind: APP}) { errors { code message } } }'
        assert (await shop.client.data(made))["createChannel"]["errors"] == []
        identity = {"channel": "app", "externalId": "ann"}
        first = shop.event("order.paid", "", "o1", 150, None)
        for event in (first, second := shop.event("order.paid", "", "o1", 150, None)):
            del event["userId"]
            event["identity"] = identity
        await shop.send(first)
        assert (await previewed(shop, second))["points"] == 2
        await shop.check()
