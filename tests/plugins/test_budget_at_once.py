"""Many who ask at once, facts between events that nobody has read yet, and what a batch costs."""

from __future__ import annotations

import asyncio
import random
import uuid
from datetime import UTC, date, datetime
from typing import Any

import pytest

from scrm.api import LogEvent, Tx, new_id
from scrm.testing.client import drain
from scrm.testing.issuer import Issuer
from scrm_budget.handlers import follow
from scrm_budget.rules import BudgetRules, Cost
from tests.plugins.test_loyalty_batches import Counting
from tests.plugins.treasury import money, opened

AT = datetime(2026, 3, 10, 4, tzinfo=UTC)
LINES = [{"category": name, "amount": money(1_000), "policy": "ALLOW"} for name in ("a", "b", "c")]
COST = [{"event": "coupon.redeemed", "category": "a"}]


async def test_whoever_comes_first_nobody_waits_for_ever(migrated_url: str) -> None:
    async with opened(migrated_url, costs=COST) as brand:
        first, own = await brand.budget(3_100, LINES, reserve=money(100))
        april = {"start": "2026-04-01", "end": "2026-05-01", "previousId": first, "rollover": "REMAINING"}
        _, then = await brand.budget(3_000, LINES, **april)
        people = [await brand.member() for _ in range(2)]
        dice = random.Random(7)
        asked: list[tuple[str, dict[str, Any]]] = []
        for number in range(40):
            line, other = dice.sample(sorted(own.values()), 2)
            who = {"userId": dice.choice(people)} if number % 2 else {}
            asked.append(
                (
                    ("spendBudget", {"lineId": line, "amount": money(7), **who}),
                    ("commitBudget", {"lineId": other, "amount": money(5), **who}),
                    ("transferBudget", {"fromLineId": line, "toLineId": other, "amount": money(3)}),
                    ("commitBudget", {"lineId": dice.choice(sorted(then.values())), "amount": money(2)}),
                )[number % 4]
            )
        said = {"couponId": "c", "cost": 11}
        coupons = [brand.event("coupon.redeemed", people[0], None, None, None, properties=said) for _ in range(5)]
        assert (await brand.client.events(coupons))["accepted"] == 5  # which nobody has read when the others ask
        answers = await asyncio.gather(*(brand.ask(name, **said) for name, said in asked))
        assert [answer["errors"] for answer in answers if answer["errors"]] == []
        await drain(brand.client)
        spent = sum([await brand.line(line, "spent") for line in own.values()])
        assert spent == 55 + 7 * sum(answer["entry"]["kind"] == "SPEND" for answer in answers)
        funds = sum([await brand.line(line, "allocated") for line in own.values()])
        assert funds == 3_000
        await brand.check()


@pytest.mark.parametrize("migrated_url", ["postgresql"], indirect=True)  # SQLite has one writer
async def test_a_threshold_is_crossed_by_one_of_many(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        budget, own = await brand.budget(3_000, LINES)
        asked = [brand.ask("spendBudget", lineId=line, amount=money(50)) for line in own.values() for _ in range(10)]
        await asyncio.gather(*asked)
        found = await brand.of_node("Budget", budget, "thresholds { percent line { category } }")
        said = sorted((one["line"]["category"] if one["line"] else "", one["percent"]) for one in found["thresholds"])
        assert said == [("", 50), ("a", 50), ("b", 50), ("c", 50)]


def event(type: str, user: uuid.UUID, **said: Any) -> LogEvent:
    """An event as a handler sees it."""
    properties = {"orderId": f"o{user.hex}{said.get('key')}", "cost": 1}
    return LogEvent(
        new_id(), 1, type, user, None, AT, AT, date(2026, 3, 10), said.get("amount"), "CNY", properties, "shop", new_id().hex
    )


async def test_a_batch_is_a_handful_of_statements(migrated_url: str) -> None:
    async with opened(migrated_url, costs=COST) as brand:
        _, own = await brand.budget(3_000, LINES)
        people = [uuid.uuid4() for _ in range(50)]
        rules = BudgetRules(costs=(Cost(event="coupon.redeemed", category="a"),))

        def run(tx: Tx) -> tuple[int, int]:
            first, second = Counting(tx), Counting(tx)
            kinds = ("page.viewed", "order.paid", "order.refunded")
            follow(first, [event(kinds[n % 3], people[n % 50], key=n // 3, amount=1_000) for n in range(500)], rules)
            follow(second, [event("coupon.redeemed", people[n % 50]) for n in range(500)], rules)
            return first.count, second.count

        following, spending = await brand.client.services.db.write(run)
        assert following <= 6
        assert spending <= 16
        assert await brand.line(own["a"], "spent") == 500


async def test_a_persons_token_sees_no_budget(migrated_url: str) -> None:
    issuer = Issuer()
    serve = {"jwt": issuer.settings(user_claim="uid"), "transport": issuer.transport}
    async with opened(migrated_url, serve=serve) as brand:
        budget, own = await brand.budget(1_000)
        mine, other = [await brand.member() for _ in range(2)]
        ids = [(await brand.spend(own["campaigns"], 10, userId=user))["entry"]["id"] for user in (mine, other)]
        client = brand.client.with_key(issuer.token(brand.now, scope="users:read budget:read budget:write", uid=mine))
        asked = "query($ids: [ID!]!, $id: ID!) { nodes(ids: $ids) { id } budget(id: $id) { id } budgets { nodes { id } } }"
        data = await client.data(asked, ids=[*ids, budget, own["campaigns"]], id=budget)
        assert data == {"nodes": [{"id": ids[0]}, None, None, None], "budget": None, "budgets": {"nodes": []}}
        spend = "mutation($input: SpendBudgetInput!) { spendBudget(input: $input) { errors { code } } }"
        said = {"lineId": own["campaigns"], "amount": money(1), "idempotencyKey": "k"}
        answer = await client.graphql(spend, input=said)
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["FORBIDDEN"]
        assert await brand.line(own["campaigns"], "spent") == 20
