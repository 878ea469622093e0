"""Budgets that are changed, that follow one another, and whose spending is watched."""

from __future__ import annotations

from typing import Any

import pytest

from scrm.testing.client import drain
from scrm.testing.following import following
from tests.plugins.treasury import Treasury, money, opened

TWO = [{"category": "a", "amount": money(600)}, {"category": "b", "amount": money(300)}]
CROSSED = "budgetThresholdCrossed { percent spent { amountMinor } funds { amountMinor } line { category } }"


async def test_money_moves_between_lines_and_the_reserve(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        budget, own = await brand.budget(1_000, TWO, reserve=money(100))
        await brand.sure("transferBudget", fromLineId=own["a"], toLineId=own["b"], amount=money(50))
        moved = await brand.sure("transferBudget", toLineId=own["b"], amount=money(100))
        assert moved["entry"]["line"] is None
        await brand.sure("transferBudget", fromLineId=own["b"], amount=money(30))
        assert await brand.line(own["a"], "planned", "allocated") == [600, 550]
        assert await brand.line(own["b"], "planned", "allocated") == [300, 420]
        found = await brand.of_node("Budget", budget, "total { amountMinor } reserve { amountMinor }")
        assert found == {"total": {"amountMinor": 1_000}, "reserve": {"amountMinor": 30}}
        assert await brand.why("transferBudget", toLineId=own["b"], amount=money(31)) == (
            "INSUFFICIENT_BUDGET",
            {"amount": 31, "available": 30},
        )
        assert (await brand.why("transferBudget", amount=money(1)))[0] == "SAME_LINE"
        pair = await brand.of_node(
            "BudgetLine", own["b"], "entries(first: 1) { nodes { kind pair { kind amount { amountMinor } } } }"
        )
        [node] = pair["entries"]["nodes"]
        assert node == {"kind": "TRANSFER_OUT", "pair": {"kind": "TRANSFER_IN", "amount": {"amountMinor": 30}}}
        await brand.check()


async def test_a_budget_is_changed(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-02-20T12:00") as brand:
        budget, own = await brand.budget(900, TWO)
        patch = {"lineId": own["a"], "allocated": money(500), "policy": "ALLOW", "capPerDay": money(5), "expectedRoi": 1.25}
        await brand.sure("updateBudget", id=budget, name="new", lines=[{**patch, "campaigns": ["spring"]}], reserve=money(40))
        assert await brand.line(own["a"], "planned", "allocated") == [500, 500]
        fields = "policy campaigns capPerDay { amountMinor } expectedRoi roi netRoi recommendation"
        found = await brand.of_node("BudgetLine", own["a"], fields)
        assert found == {
            "policy": "ALLOW",
            "campaigns": ["spring"],
            "capPerDay": {"amountMinor": 5},
            "expectedRoi": 1.25,
            "roi": 1.25,
            "netRoi": 0.25,
            "recommendation": "KEEP",
        }
        brand.set_time("2026-03-02T12:00")
        await brand.sure("updateBudget", id=budget, lines=[{"lineId": own["a"], "allocated": money(700), "capPerDay": None}])
        assert await brand.line(own["a"], "planned", "allocated") == [500, 700]
        found = await brand.of_node("BudgetLine", own["a"], fields)
        assert (found["policy"], found["campaigns"], found["capPerDay"]) == ("ALLOW", ["spring"], None)
        await brand.spend(own["a"], 650)
        why = await brand.why("updateBudget", id=budget, lines=[{"lineId": own["a"], "allocated": money(600)}])
        assert why == ("INSUFFICIENT_BUDGET", {"amount": 100, "available": 50})
        data = await brand.of_node("Budget", budget, "name total { amountMinor }")
        assert data == {"name": "new", "total": {"amountMinor": 1_040}}
        await brand.check()


async def carried(brand: Treasury, line: str) -> int:
    found: int = await brand.line(line, "carried")
    return found


async def test_what_is_left_is_taken_over_once_the_budget_before_is_closed(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        first, own = await brand.budget(900, TWO)
        april: dict[str, Any] = {"start": "2026-04-01", "end": "2026-05-01", "previousId": first}
        cap: dict[str, Any] = {"rollover": "CAPPED", "rolloverCap": money(250)}
        second, then = await brand.budget(900, TWO, **april, **cap)
        may: dict[str, Any] = {"start": "2026-05-01", "end": "2026-06-01", "previousId": second, "rollover": "NEGATIVE"}
        _, last = await brand.budget(900, [*TWO[:1], {"category": "c", "amount": money(300)}], **may)
        assert (await brand.why("createBudget", name="x", total=money(1), lines=[TWO[0]], **april))[0] != "PREVIOUS_TAKEN"
        spent = await brand.spend(own["a"], 500)
        await brand.commit(own["b"], 300, expiresInSeconds=31_000_000)
        assert [await carried(brand, line) for line in then.values()] == [0, 0]
        brand.set_time("2026-04-01T00:00")
        assert [await carried(brand, line) for line in then.values()] == [100, 250]
        assert await brand.line(then["a"], "available") == 700
        await brand.sure("refundBudget", entryId=spent["entry"]["id"], amount=money(70))
        assert await carried(brand, then["a"]) == 170
        await brand.spend(then["a"], 770)
        await brand.sure("refundBudget", entryId=spent["entry"]["id"], amount=money(200))
        assert await carried(brand, then["a"]) == 250
        brand.set_time("2026-05-01T00:00")
        assert [await carried(brand, line) for line in last.values()] == [80, 0]
        history = await brand.of_node("Budget", second, "previous { id } history { id }")
        assert history == {"previous": {"id": first}, "history": [{"id": first}]}
        await brand.check()


async def test_a_budget_that_is_closed_early_gives_way(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        first, own = await brand.budget(900, TWO)
        april: dict[str, Any] = {"start": "2026-04-01", "end": "2026-05-01", "previousId": first, "rollover": "REMAINING"}
        second, then = await brand.budget(900, TWO, **april)
        taken = await brand.why("createBudget", name="x", total=money(900), lines=TWO, **april)
        assert taken == ("PREVIOUS_TAKEN", {"previousId": first})
        kept = await brand.commit(own["a"], 100)
        assert (await brand.why("closeBudget", id=second))[0] == "BUDGET_NOT_OPEN"
        assert (await brand.why("spendBudget", lineId=then["a"], amount=money(1)))[0] == "BUDGET_NOT_OPEN"
        await brand.commit(then["a"], 600)
        await brand.sure("closeBudget", id=first)
        assert (await brand.of_node("BudgetCommitment", kept["commitment"]["id"], "state"))["state"] == "RELEASED"
        assert await brand.line(then["a"], "carried", "available") == [600, 600]
        await brand.check()


async def test_thresholds_are_announced_once(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        budget, own = await brand.budget(900, TWO)
        document = f"subscription($b: ID) {{ {CROSSED.replace('Crossed', 'Crossed(budgetId: $b)')} }}"
        async with following(brand.client, document, b=budget) as heard:
            spent = await brand.spend(own["a"], 299)
            await brand.spend(own["a"], 1)
            await brand.sure("refundBudget", entryId=spent["entry"]["id"])
            await brand.spend(own["a"], 299)
            await brand.spend(own["b"], 300)
            await drain(brand.client)
            said = [(await heard.next())["budgetThresholdCrossed"] for _ in range(5)]
        found = sorted((one["line"]["category"] if one["line"] else "", one["percent"]) for one in said)
        assert found == [("", 50), ("a", 50), ("b", 50), ("b", 80), ("b", 100)]
        whole = next(one for one in said if one["line"] is None)
        assert (whole["spent"], whole["funds"]) == ({"amountMinor": 600}, {"amountMinor": 900})
        listed = await brand.of_node("Budget", budget, "thresholds { percent line { category } }")
        assert len(listed["thresholds"]) == 5
        await brand.check()


async def test_pace_and_forecast_follow_the_days(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00") as brand:  # the tenth of 31 days
        budget, own = await brand.budget(3_100, [{"category": "a", "share": 50}, {"category": "b", "share": 50}])
        await brand.spend(own["a"], 1_000)
        found = await brand.of_node("Budget", budget, "pace forecast { amountMinor } lines { pace variancePct }")
        assert found["pace"] == 1.0
        assert found["forecast"] == {"amountMinor": 3_100}
        assert [line["pace"] for line in found["lines"]] == [2.0, 0.0]
        early, _ = await brand.budget(100, start="2026-05-01", end="2026-06-01")
        assert await brand.of_node("Budget", early, "pace forecast { amountMinor } status") == {
            "pace": None,
            "forecast": None,
            "status": "PLANNED",
        }
        brand.set_time("2026-04-09T12:00")
        found = await brand.of_node("Budget", budget, "pace forecast { amountMinor }")
        assert found == {"pace": 1000 / 3100, "forecast": {"amountMinor": 1_000}}
        asked = '{ budgets(filter: {activeOn: "2026-03-31"}) { nodes { id } }'
        asked += " over: budgets(filter: {status: [CLOSED]}) { nodes { id } } }"
        data = await brand.client.data(asked)
        assert data == {"budgets": {"nodes": [{"id": budget}]}, "over": {"nodes": [{"id": budget}]}}


async def test_the_same_key_again_changes_nothing(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        _, own = await brand.budget(100)
        line = own["campaigns"]
        first = await brand.spend(line, 60, key="k")
        assert await brand.spend(line, 60, key="k") == first
        assert await brand.line(line, "spent") == 60
        assert (await brand.why("spendBudget", lineId=line, amount=money(61), key="k"))[0] == "IDEMPOTENCY_CONFLICT"
        assert await brand.line(line, "spent") == 60


@pytest.mark.parametrize("early", [False, True])
async def test_a_cause_is_asked_for_from_five_percent_on(migrated_url: str, early: bool) -> None:
    async with opened(migrated_url) as brand:
        lines = [{"category": name, "amount": money(2_000), "policy": "ALLOW"} for name in ("a", "b", "c", "d")]
        budget, own = await brand.budget(8_000, lines)
        for name, spent in (("a", 2_100), ("b", 2_099), ("c", 1_900), ("d", 1_901)):
            await brand.spend(own[name], spent)

        async def asked() -> list[tuple[float, bool]]:
            found = [await brand.of_node("BudgetLine", line, "variancePct needsCause") for line in own.values()]
            return [(one["variancePct"], one["needsCause"]) for one in found]

        assert await asked() == [(5.0, True), (4.95, False), (-5.0, False), (-4.95, False)]
        if early:
            await brand.sure("closeBudget", id=budget)
        else:
            brand.set_time("2026-04-01T00:00")
        assert await asked() == [(5.0, True), (4.95, False), (-5.0, True), (-4.95, False)]


async def test_shares_may_be_thirds(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        _, own = await brand.budget(100, [{"category": name, "share": 33.333333333333336} for name in "abc"])
        assert [await brand.line(own[name], "planned") for name in "abc"] == [34, 33, 33]


async def test_a_budget_that_makes_no_sense_is_refused(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        basics = {"name": "b", "start": "2026-03-01", "end": "2026-04-01", "total": money(100)}

        async def why(**said: object) -> object:
            return await brand.why("createBudget", **{**basics, "lines": [{"category": "a", "share": 100}], **said})

        assert await why(end="2026-03-01") == ("INVALID_PERIOD", {"start": "2026-03-01", "end": "2026-03-01"})
        assert await why(name=" ") == ("INVALID_NAME", None)
        assert await why(total=money(0)) == ("INVALID_AMOUNT", {"amount": 0})
        assert await why(total=money(10**14 + 1)) == ("INVALID_AMOUNT", {"amount": 10**14 + 1})
        assert await why(reserve=money(101)) == ("INVALID_AMOUNT", {"amount": 101})
        assert await why(reserve=money(1, "USD")) == ("CURRENCY_MISMATCH", {"currency": "USD", "expected": "CNY"})
        for currency in ("cny", "XXQ", ""):
            assert await why(total=money(100, currency)) == ("INVALID_CURRENCY", {"currency": currency})
        assert await why(lines=[{"category": name, "share": 33.33333} for name in "abc"]) == (
            "SHARES_NOT_WHOLE",
            {"sum": "99.9999"},
        )
        assert await why(lines=[{"category": "a", "share": 99.5}]) == ("SHARES_NOT_WHOLE", {"sum": "99.5"})
        assert await why(lines=[{"category": "a", "amount": money(99)}]) == ("AMOUNTS_NOT_TOTAL", {"sum": 99, "expected": 100})
        assert await why(lines=[{"category": "reserve", "share": 100}]) == ("INVALID_LINES", {"category": "reserve"})
        assert await why(lines=[{"category": "a", "share": 50}] * 2) == ("INVALID_LINES", {"category": "a"})
        assert await why(preset="ACTIVITIES", lines=[{"category": "x"}]) == ("INVALID_LINES", {"category": "x"})
        assert await why(rollover="CAPPED") == ("INVALID_ROLLOVER", None)
        assert (await why(lines=[{"category": "a", "share": 100, "expectedRoi": -1}])) == ("INVALID_ROI", {"expectedRoi": -1.0})
        nobody = f"Budget_{'0' * 32}"
        assert await why(previousId=nobody) == ("BUDGET_NOT_FOUND", {"budgetId": nobody})
        data = await brand.client.data("{ budgets { totalCount } }")
        assert data["budgets"]["totalCount"] == 0
