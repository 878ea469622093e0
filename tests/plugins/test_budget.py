"""Budgets, their lines and what becomes of their money."""

from __future__ import annotations

import asyncio

from tests.plugins.treasury import money, opened


async def test_commitments_at_once_never_keep_more_than_there_is(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        _, lines = await brand.budget(1_000)
        line = lines["campaigns"]
        asked = [brand.ask("commitBudget", lineId=line, amount=money(30)) for _ in range(50)]
        answers = await asyncio.gather(*asked)
        refused = [answer["errors"][0] for answer in answers if answer["errors"]]
        assert len(answers) - len(refused) == 33
        assert {error["code"] for error in refused} == {"INSUFFICIENT_BUDGET"}
        assert await brand.line(line, "committed", "available", "spent") == [990, 10, 0]
        await brand.check()


async def test_a_line_is_committed_spent_refunded(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        _, lines = await brand.budget(1_000)
        line = lines["campaigns"]
        made = await brand.commit(line, 300, reference="po-1")
        assert made["commitment"]["state"] == "OPEN"
        spent = await brand.sure("spendBudget", commitmentId=made["commitment"]["id"], amount=money(100))
        assert spent["commitment"] == {"id": made["commitment"]["id"], "state": "OPEN", "remaining": {"amountMinor": 200}}
        assert await brand.line(line, "committed", "spent", "available") == [200, 100, 700]
        await brand.sure("refundBudget", entryId=spent["entry"]["id"], amount=money(40))
        assert await brand.line(line, "committed", "spent", "available") == [200, 60, 740]
        await brand.check()


async def test_a_preset_splits_to_the_last_unit(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        budget, lines = await brand.budget(10_007, preset="ACTIVITIES", reserve=money(1_000))
        planned = {name: await brand.line(line, "planned") for name, line in lines.items()}
        assert planned == {"content": 1802, "community": 2702, "analytics": 1351, "technology": 1351, "campaigns": 1801}
        found = await brand.of_node("Budget", budget, "total { amountMinor } reserve { amountMinor } rangeBreaches status")
        assert found == {
            "total": {"amountMinor": 10_007},
            "reserve": {"amountMinor": 1_000},
            "rangeBreaches": [],
            "status": "OPEN",
        }
        await brand.check()


async def test_shares_outside_their_range_are_named(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        lines = [{"category": name, "share": share} for name, share in (("platform", 30), ("tools", 10), ("people", 60))]
        budget, _ = await brand.budget(999, lines)
        found = await brand.of_node("Budget", budget, "rangeBreaches lines { share }")
        assert found["rangeBreaches"] == ["platform 占 30.03%，应为 20–25%", "people 占 59.96%，应为 30–35%"]
        for total in (10_000, 10_001, 100_001):  # a rounded fen is no breach
            within = [("platform", 20), ("tools", 15), ("people", 35), ("marketing", 30)]
            budget, _ = await brand.budget(total, [{"category": name, "share": share} for name, share in within])
            assert (await brand.of_node("Budget", budget, "rangeBreaches"))["rangeBreaches"] == []
        just = [("platform", 1_998), ("tools", 1_502), ("people", 3_500), ("marketing", 3_000)]
        budget, _ = await brand.budget(10_000, [{"category": name, "amount": money(amount)} for name, amount in just])
        found = await brand.of_node("Budget", budget, "rangeBreaches")
        assert found["rangeBreaches"] == ["platform 占 19.98%，应为 20–25%", "tools 占 15.02%，应为 10–15%"]
        budget, _ = await brand.budget(10_000, preset="RESOURCES")
        found = await brand.of_node("Budget", budget, "rangeBreaches lines { share }")
        assert found == {"rangeBreaches": [], "lines": [{"share": s} for s in (23.75, 13.75, 33.75, 28.75)]}


async def test_policies_and_caps(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        lines = [
            {"category": "block", "amount": money(100)},
            {"category": "warn", "amount": money(100), "policy": "WARN"},
            {"category": "allow", "amount": money(100), "policy": "ALLOW", "capPerDay": money(500), "capPerUser": money(150)},
        ]
        _, own = await brand.budget(300, lines)
        assert await brand.why("commitBudget", lineId=own["block"], amount=money(101)) == (
            "INSUFFICIENT_BUDGET",
            {"amount": 101, "available": 100},
        )
        warned = await brand.commit(own["warn"], 130)
        assert warned["warnings"] == [{"code": "OVER_BUDGET", "params": {"amount": 130, "over": 30}}]
        ann, bob = await brand.member(), await brand.member()
        assert (await brand.spend(own["allow"], 100, userId=ann))["warnings"] == []
        kept = await brand.commit(own["allow"], 50, userId=ann, expiresInSeconds=60)
        params = {"cap": 150, "taken": 150, "amount": 1, "kind": "USER"}
        assert await brand.why("spendBudget", lineId=own["allow"], amount=money(1), userId=ann) == ("CAP_REACHED", params)
        await brand.spend(own["allow"], 150, userId=bob)
        await brand.spend(own["allow"], 200)
        params = {"cap": 500, "taken": 500, "amount": 1, "kind": "DAY"}
        assert await brand.why("spendBudget", lineId=own["allow"], amount=money(1)) == ("CAP_REACHED", params)
        brand.set_time("2026-03-10T12:01")  # Ann's commitment is over by the minute
        await brand.spend(own["allow"], 50, userId=ann)
        assert await brand.why("spendBudget", commitmentId=kept["commitment"]["id"], amount=money(1)) == (
            "COMMITMENT_ENDED",
            {"commitmentId": kept["commitment"]["id"], "state": "EXPIRED"},
        )
        brand.pass_days(1)
        await brand.spend(own["allow"], 500)
        assert await brand.why("spendBudget", lineId=own["allow"], amount=money(1), userId=ann) == (
            "CAP_REACHED",
            {"cap": 500, "taken": 500, "amount": 1, "kind": "DAY"},
        )
        await brand.check()


async def test_a_commitment_ends_by_time_alone(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        _, own = await brand.budget(100)
        line = own["campaigns"]
        kept = (await brand.commit(line, 100, expiresInSeconds=3_600))["commitment"]["id"]
        brand.set_time("2026-03-10T12:59:59.999999")
        assert await brand.line(line, "committed", "available") == [100, 0]
        assert (await brand.why("spendBudget", lineId=line, amount=money(1)))[0] == "INSUFFICIENT_BUDGET"
        brand.set_time("2026-03-10T13:00")
        assert await brand.line(line, "committed", "available") == [0, 100]
        found = await brand.of_node("BudgetCommitment", kept, "state remaining { amountMinor } resolvedAt")
        assert found == {"state": "EXPIRED", "remaining": {"amountMinor": 0}, "resolvedAt": None}
        assert await brand.journal(line) == [("ALLOCATE", 100), ("COMMIT", 100)]
        brand.set_time("2026-03-10T13:01")
        await brand.spend(line, 100)
        assert await brand.journal(line) == [("ALLOCATE", 100), ("COMMIT", 100), ("RELEASE", 100), ("SPEND", 100)]
        assert (await brand.of_node("BudgetCommitment", kept, "resolvedAt"))["resolvedAt"] == "2026-03-10T05:00:00.000000Z"
        await brand.check()


async def test_nothing_but_refunds_comes_to_a_closed_budget(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        budget, own = await brand.budget(300, [{"category": "a", "amount": money(200)}, {"category": "b", "amount": money(100)}])
        spent = await brand.spend(own["a"], 150)
        kept = await brand.commit(own["b"], 60, expiresInSeconds=31_536_000)
        brand.set_time("2026-04-01T00:00")
        found = await brand.of_node("Budget", budget, "status committed { amountMinor } spent { amountMinor }")
        assert found == {"status": "CLOSED", "committed": {"amountMinor": 0}, "spent": {"amountMinor": 150}}
        for name, said in (
            ("commitBudget", {"lineId": own["b"], "amount": money(1)}),
            ("spendBudget", {"lineId": own["b"], "amount": money(1)}),
            ("spendBudget", {"commitmentId": kept["commitment"]["id"], "amount": money(1)}),
            ("releaseCommitment", {"commitmentId": kept["commitment"]["id"]}),
            ("transferBudget", {"fromLineId": own["a"], "toLineId": own["b"], "amount": money(1)}),
            ("updateBudget", {"id": budget, "name": "c"}),
            ("closeBudget", {"id": budget}),
            ("reallocateBudget", {"budgetId": budget}),
        ):
            assert await brand.why(name, **said) == ("BUDGET_CLOSED", {"budgetId": budget}), name
        await brand.sure("refundBudget", entryId=spent["entry"]["id"], amount=money(50))
        assert await brand.why("refundBudget", entryId=spent["entry"]["id"], amount=money(101)) == (
            "REFUND_TOO_LARGE",
            {"amount": 101, "left": 100},
        )
        assert await brand.line(own["a"], "spent", "variance") == [100, -100]
        await brand.sure("explainVariance", lineId=own["a"], cause="MARKET", note="quiet")
        found = await brand.of_node("BudgetLine", own["a"], "cause note variancePct needsCause")
        assert found == {"cause": "MARKET", "note": "quiet", "variancePct": -50.0, "needsCause": False}
        assert (await brand.of_node("BudgetLine", own["b"], "needsCause"))["needsCause"] is True
        await brand.check()
