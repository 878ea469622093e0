"""Points, as members and a front end see them; after every test the ledger must agree with itself and with the log."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

import scrm_loyalty
from scrm.api import Tx
from scrm.testing.client import drain, serving
from scrm_loyalty.models import accounts, allocations, entries, lots
from scrm_loyalty.rules import LoyaltyRules
from tests.plugins.shop import Shop, opened


async def test_earn_read_and_redeem(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 12_399)
        zero = {"pending": 0, "debt": 0, "redeemed": 0, "expired": 0}
        assert await shop.account(user) == {"balance": 123, "earned": 123, **zero}
        payload = await shop.redeem(user, 23, reason="a cup", reference="cup-7")
        assert payload["errors"] == []
        assert {key: payload["entry"][key] for key in ("kind", "points", "reason", "reference")} == {
            "kind": "REDEEM",
            "points": -23,
            "reason": "a cup",
            "reference": "cup-7",
        }
        assert payload["account"] == {"balance": 100, "redeemed": 23, "user": {"id": user}}
        assert await shop.account(user) == {**zero, "balance": 100, "earned": 123, "redeemed": 23}
        await shop.check()


async def test_a_person_without_events_has_an_account(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        assert set((await shop.account(user)).values()) == {0}
        assert await shop.refused(user, 1) == ("INSUFFICIENT_POINTS", {"balance": 0, "points": 1})
        await shop.check()


@pytest.mark.parametrize(
    ("rate", "currency", "amount", "points"),
    [
        ("1", "CNY", 99, 0),
        ("1", "CNY", 100, 1),
        ("1", "CNY", 199, 1),
        ("0.5", "CNY", 199, 0),
        ("0.5", "CNY", 200, 1),
        ("0.1", "CNY", 2_999, 2),
        ("1.5", "CNY", 133, 1),
        ("1.5", "CNY", 134, 2),
        ("0.29", "CNY", 10_000, 29),  # 100 * 0.29 is 28.999… in floats
        ("1", "JPY", 99, 99),
        ("1", "KWD", 999, 0),
        ("100", "CNY", 10**15, 10**15),
        ("0", "CNY", 10**9, 0),
    ],
)
def test_points_are_rounded_down_once_and_exact(rate: str, currency: str, amount: int, points: int) -> None:
    rules = LoyaltyRules.model_validate({"points_per_unit": rate, "currency": currency})
    [rule] = rules.program
    assert rule.points({}, currency, "1", 0, amount) == points
    assert LoyaltyRules.model_validate(rules.model_dump(mode="json")) == rules


async def test_other_currencies_and_orders_without_an_amount_earn_nothing(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000, currency="USD")
        await shop.send(shop.event("order.paid", user, "o2", None, None), shop.event("order.paid", user, "o3", 99, None))
        assert set((await shop.account(user)).values()) == {0}
        await shop.refund(user, "o1", 10_000, currency="USD")
        await shop.check()


async def test_points_expire_at_local_midnight_without_a_job(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=365) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000, "2026-03-01T23:59")
        assert (await shop.account(user, "entries { nodes { expiresAt } }"))["entries"]["nodes"] == [
            {"expiresAt": "2027-02-28T16:00:00.000000Z"}
        ]
        assert (await shop.account(user, "expiring(withinDays: 364) { date points }"))["expiring"] == []
        assert (await shop.account(user, "expiring(withinDays: 365) { date points }"))["expiring"] == [
            {"date": "2027-03-01", "points": 100}
        ]
        shop.set_time("2027-02-28T23:59:59")
        assert await shop.balance(user) == 100
        shop.set_time("2027-03-01T00:00:00")
        answer = await shop.account(user, "balance expired expiring { points }")
        assert answer == {"balance": 0, "expired": 100, "expiring": []}
        assert await shop.refused(user, 1) == ("INSUFFICIENT_POINTS", {"balance": 0, "points": 1})
        await shop.check()


async def test_pending_points_become_active_by_time(migrated_url: str) -> None:
    async with opened(migrated_url, pending_days=7) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        await shop.pay(user, "o2", 5_000)
        assert await shop.account(user, "balance pending") == {"balance": 0, "pending": 150}
        assert (await shop.refused(user, 1))[0] == "INSUFFICIENT_POINTS"
        shop.set_time("2026-03-07T23:59:59")
        assert await shop.account(user, "balance pending") == {"balance": 0, "pending": 150}
        await shop.refund(user, "o2", 5_000)
        shop.set_time("2026-03-08T00:00:00")
        assert await shop.account(user, "balance pending debt") == {"balance": 100, "pending": 0, "debt": 0}
        await shop.check()


async def test_validity_0_never_expires_and_is_spent_last(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=0) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000, "2020-01-01T00:00")
        assert await shop.balance(user) == 100
        assert (await shop.account(user, "expiring(withinDays: null) { points }"))["expiring"] == []
        await shop.check()


async def test_what_expires_soonest_is_spent_first(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=10) as shop:
        user = await shop.member()
        for order, at in (("late", "2026-03-01T08:00"), ("early", "2026-02-20T08:00"), ("middle", "2026-02-25T08:00")):
            await shop.pay(user, order, 1_000, at)
        assert (await shop.redeem(user, 15))["errors"] == []
        found = await shop.account(user, "expiring(withinDays: 30) { date points }")
        assert found["expiring"] == [{"date": "2026-03-07", "points": 5}, {"date": "2026-03-11", "points": 10}]
        await shop.check()


@pytest.mark.parametrize(
    ("points", "code", "params"),
    [
        (0, "INVALID_POINTS", {"points": 0}),
        (-5, "INVALID_POINTS", {"points": -5}),
        (2**53, "INVALID_POINTS", {"points": 2**53}),
        (40, "BELOW_MINIMUM", {"points": 40, "minimum": 50}),
        (55, "NOT_A_STEP", {"points": 55, "step": 10}),
        (110, "INSUFFICIENT_POINTS", {"balance": 100, "points": 110}),
    ],
)
async def test_a_redemption_that_is_refused_changes_nothing(migrated_url: str, points: int, code: str, params: Any) -> None:
    async with opened(migrated_url, redeem_minimum=50, redeem_step=10) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        assert await shop.refused(user, points) == (code, params)
        assert await shop.account(user, "balance redeemed") == {"balance": 100, "redeemed": 0}
        assert (await shop.redeem(user, 100))["errors"] == []
        await shop.check()


async def test_nobody_is_asked_for_points_of_nobody(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        payload = await shop.redeem(f"User_{'0' * 32}", 1)
        assert [error["code"] for error in payload["errors"]] == ["USER_NOT_FOUND"]
        other = shop.client.with_key(await shop.client.key("users:read"))
        answer = await other.graphql("{ users { nodes { points { balance } } } }")
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        reader = shop.client.with_key(await shop.client.key("users:read", "points:read", name="reader"))
        user = await shop.member()
        await shop.pay(user, "o1", 1_000)
        said = {"userId": user, "points": 1, "idempotencyKey": "k"}
        denied = await reader.graphql("mutation($i: RedeemPointsInput!) { redeemPoints(input: $i) { errors { code } } }", i=said)
        assert denied["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert await shop.balance(user) == 10
        await shop.check()


async def test_20_parallel_spends_of_1_on_10_give_10(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        for n in range(4):
            await shop.pay(user, f"o{n}", 250, f"2026-02-0{n + 1}T08:00")
        assert await shop.balance(user) == 8
        await shop.pay(user, "o5", 200)
        answers = await asyncio.gather(*(shop.redeem(user, 1, f"p{n}") for n in range(20)))
        codes = sorted(error["code"] for answer in answers for error in answer["errors"])
        assert codes == ["INSUFFICIENT_POINTS"] * 10
        assert await shop.account(user, "balance redeemed") == {"balance": 0, "redeemed": 10}
        await shop.check()


async def test_one_key_20_times_is_one_redemption(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        answers = await asyncio.gather(*(shop.redeem(user, 30, "one") for _ in range(20)))
        assert all(answer == answers[0] for answer in answers)
        assert answers[0]["errors"] == []
        assert await shop.account(user, "balance redeemed") == {"balance": 70, "redeemed": 30}
        again = await shop.redeem(user, 31, "one")
        assert [error["code"] for error in again["errors"]] == ["IDEMPOTENCY_CONFLICT"]
        assert await shop.balance(user) == 70
        await shop.check()


async def test_filter_and_order_by_points(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        members = [await shop.member() for _ in range(4)]
        for member, amount in zip(members, (3_000, 1_000, 2_000), strict=False):
            await shop.pay(member, f"of {member}", amount)
        asked = """query($after: String) { users(filter: {points: {gte: 10}}, orderBy: [{points: DESC}], first: 2,
            after: $after) {
            totalCount pageInfo { endCursor hasNextPage } nodes { id points { balance } } } }"""
        first = (await shop.client.data(asked))["users"]
        assert first["totalCount"] == 3
        assert [node["id"] for node in first["nodes"]] == [members[0], members[2]]
        second = (await shop.client.data(asked, after=first["pageInfo"]["endCursor"]))["users"]
        assert second["nodes"] == [{"id": members[1], "points": {"balance": 10}}]
        none = await shop.client.data("{ users(filter: {points: {eq: 0}}) { nodes { id } } }")
        assert none["users"]["nodes"] == [{"id": members[3]}]
        await shop.check()


async def test_the_ledger_is_a_connection_of_nodes(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000, "2026-02-01T10:00")
        await shop.pay(user, "o2", 20_000, "2026-02-02T10:00")
        await shop.refund(user, "o1", 10_000, "2026-02-03T10:00")
        assert await shop.entries(user) == [("REVERSE", -100), ("EARN", 200), ("EARN", 100)]
        assert await shop.entries(user, '(filter: {kind: [EARN], reference: {eq: "o1"}})') == [("EARN", 100)]
        after = '(filter: {occurredAt: {gte: "2026-02-02T02:00:00Z"}}, first: 1)'
        assert await shop.entries(user, after) == [("REVERSE", -100)]
        page = await shop.account(user, "entries(last: 1) { totalCount nodes { id rule event { type } user { id } } }")
        [node] = page["entries"]["nodes"]
        assert page["entries"]["totalCount"] == 3
        assert {key: node[key] for key in ("rule", "event", "user")} == {
            "rule": "order",
            "event": {"type": "order.paid"},
            "user": {"id": user},
        }
        found = await shop.client.data(
            "query($id: ID!) { node(id: $id) { id ... on PointsEntry { points kind } } }", id=node["id"]
        )
        assert found["node"] == {"id": node["id"], "points": 100, "kind": "EARN"}
        await shop.check()


async def test_the_balance_at_another_time(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-01-01T12:00", validity_days=30) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        shop.set_time("2026-01-05T12:00")
        await shop.pay(user, "o2", 5_000)
        shop.set_time("2026-01-10T12:00")
        await shop.redeem(user, 120)
        times = {
            "2026-01-01T03:59:59Z": 0,
            "2026-01-01T04:00:00Z": 100,
            "2026-01-09T00:00:00Z": 150,
            "2026-01-10T04:00:00Z": 30,
            "2026-01-31T00:00:00Z": 30,
            "2026-02-03T16:00:00Z": 0,
        }
        for at, points in times.items():
            assert await shop.account(user, f'balanceAt(at: "{at}")') == {"balanceAt": points}, at
        assert (await shop.account(user, "asOf"))["asOf"] == "2026-01-10T04:00:00.000000Z"
        await shop.check()


async def test_what_is_announced(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        await shop.redeem(user, 60)
        await shop.refund(user, "o1", 5_000)
        await shop.refund(user, "o1", 5_000)
        asked = """query($u: ID!) { events(filter: {user: $u, type: ["points.earned", "points.redeemed", "points.reversed"]},
            orderBy: [{position: ASC}]) { nodes { type amount { amountMinor } properties } } }"""
        nodes = (await shop.client.data(asked, u=user))["events"]["nodes"]
        said = [(node["type"], {key: value for key, value in node["properties"].items() if key != "lots"}) for node in nodes]
        assert said == [
            ("points.earned", {"points": 100, "orderId": "o1", "rule": "order", "debtRepaid": 0}),
            ("points.redeemed", {"points": 60, "reason": None, "reference": None}),
            ("points.reversed", {"points": 50, "cancelled": 50, "debt": 10, "orderId": "o1"}),
            ("points.reversed", {"points": 50, "cancelled": 50, "debt": 50, "orderId": "o1"}),
        ]
        [made] = nodes[0]["properties"]["lots"]
        assert made["expiresAt"] == "2027-02-28T16:00:00.000000Z"
        assert nodes[1]["properties"]["lots"] == [{"lot": made["lot"], "points": 60}]
        assert nodes[2]["properties"]["lots"] == [{"lot": made["lot"], "points": 40}]
        await shop.check()


async def test_nobody_outside_can_spend_by_an_event(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        forged = shop.event("points.redeemed", user, None, None, None)
        said = {**forged, "properties": {"points": 10, "lots": [{"lot": "0" * 32, "points": 10}]}}
        [answer] = (await shop.client.events([said]))["results"]
        assert (answer["status"], [error["code"] for error in answer["errors"]]) == ("REJECTED", ["RESERVED_TYPE"])
        assert await shop.balance(user) == 100
        await shop.check()


def run(tx: Tx, statement: sa.Executable) -> None:
    """Run one statement."""
    tx.execute(statement)


async def test_entries_cannot_be_changed(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        db = shop.client.services.db
        kept = "loyalty_entries select * from loyalty_entries"
        changes: list[sa.Executable] = [sa.text(f"insert or replace into {kept}")] if db.dialect == "sqlite" else []
        for table in (entries, allocations):
            changes += [sa.update(table).values({"points" if table is entries else "amount": 1}), sa.delete(table)]
        await shop.redeem(user, 10)
        for change in changes:
            with pytest.raises(DBAPIError, match="append-only"):
                await db.write(run, change)
        for broken in ({"remaining": 101}, {"remaining": -1}):
            with pytest.raises(DBAPIError, match=r"ck_loyalty_lots_remaining"):
                await db.write(run, sa.update(lots).values(broken))
        with pytest.raises(DBAPIError, match=r"ck_loyalty_accounts_debt"):
            await db.write(run, sa.update(accounts).values(debt=-1))
        await shop.check()


async def test_the_program_in_force(migrated_url: str) -> None:
    async with opened(migrated_url, redeem_step=5, points_per_unit="0.5") as shop:
        data = await shop.client.data("{ pointsProgram { timezone currency redeemMinimum redeemStep rules } }")
        rules = data["pointsProgram"].pop("rules")
        assert data["pointsProgram"] == {"timezone": "Asia/Shanghai", "currency": "CNY", "redeemMinimum": 1, "redeemStep": 5}
        assert rules["points_per_unit"] == "0.5"


async def test_rules_take_currency_and_zone_from_the_settings(migrated_url: str) -> None:
    settings: dict[str, Any] = {"currency": "USD", "timezone": "America/New_York"}
    async with serving(migrated_url, modules={"loyalty": scrm_loyalty}, **settings) as client:
        data = await client.data("{ pointsProgram { timezone currency } }")
        assert data["pointsProgram"] == {"timezone": "America/New_York", "currency": "USD"}


async def test_a_changed_rule_applies_to_later_orders_only(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
    async with opened(migrated_url, points_per_unit=2) as shop:
        await shop.pay(user, "o2", 10_000)
        assert await shop.balance(user) == 300
        await shop.refund(user, "o1", 5_000)
        assert await shop.balance(user) == 250
        await shop.check()


async def test_disabled_it_leaves_the_schema_and_keeps_its_tables(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        await shop.redeem(user, 1)
    async with serving(migrated_url, modules={"loyalty": scrm_loyalty}, sections={"loyalty": {"enabled": False}}) as client:
        answer = await client.graphql("{ users { nodes { points { balance } } } }")
        assert "points" in answer["errors"][0]["message"]
        off = Shop(client, [])
        await off.send(off.event("order.paid", user, "o2", 2_000, "2026-03-01T11:00"))
        names = [each["name"] for each in (await client.data("{ __schema { types { name } } }"))["__schema"]["types"]]
        assert not [name for name in names if "Points" in name]
        await drain(client)
    async with opened(migrated_url) as shop:
        assert await shop.balance(user) == 99
        await drain(shop.client)
        assert await shop.balance(user) == 119
        await shop.check()
