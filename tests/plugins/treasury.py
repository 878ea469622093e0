"""A brand with budgets, asked as a front end asks; its clock is set by the test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import scrm_budget
from scrm.testing.client import drain, replayed, serving
from scrm_budget.reconcile import drifts
from tests.plugins.shop import Shop, local

ERRORS = "errors { code message path params }"
MINOR = "amountMinor"
LINE = f"""id category planned {{ {MINOR} }} allocated {{ {MINOR} }} carried {{ {MINOR} }} committed {{ {MINOR} }}
  spent {{ {MINOR} }} available {{ {MINOR} }}"""
ANSWERS = {
    **dict.fromkeys(
        ("createBudget", "updateBudget", "closeBudget", "reallocateBudget", "explainVariance"),
        f"budget {{ id status lines {{ {LINE} }} }} {ERRORS}",
    ),
    **dict.fromkeys(
        ("commitBudget", "releaseCommitment", "spendBudget", "refundBudget", "transferBudget"),
        f"""entry {{ id kind amount {{ {MINOR} }} line {{ category }} }} budget {{ id }}
  commitment {{ id state remaining {{ {MINOR} }} }} warnings {{ code params }} {ERRORS}""",
    ),
}
ONE_LINE = [{"category": "campaigns", "share": 100}]


def money(amount: int, currency: str = "CNY") -> dict[str, Any]:
    """An amount as the API takes it."""
    return {"amountMinor": amount, "currency": currency}


class Treasury(Shop):
    """Budgets, and what becomes of them."""

    def pass_days(self, days: int) -> None:
        """So many days later."""
        self._clock[0] += timedelta(days=days)

    async def ask(self, name: str, /, key: str | None = None, **said: Any) -> dict[str, Any]:
        """The payload of a mutation of budgets."""
        kind = f"{name[0].upper()}{name[1:]}Input"
        document = f"mutation($input: {kind}!) {{ {name}(input: $input) {{ {ANSWERS[name]} }} }}"
        data = await self.client.data(document, input={**said, "idempotencyKey": key or uuid.uuid4().hex})
        payload: dict[str, Any] = data[name]
        return payload

    async def sure(self, name: str, /, **said: Any) -> dict[str, Any]:
        """The payload of one that is not refused."""
        payload = await self.ask(name, **said)
        assert payload["errors"] == [], payload
        return payload

    async def why(self, name: str, /, **said: Any) -> tuple[str, Any]:
        """Why one is refused: the code and the values in play."""
        [error] = (await self.ask(name, **said))["errors"]
        return error["code"], error["params"]

    async def budget(
        self, total: int = 1_000, lines: Any = None, *, currency: str = "CNY", **said: Any
    ) -> tuple[str, dict[str, str]]:
        """A new budget's id, and its lines' by category."""
        basics = {"name": "b", "start": "2026-03-01", "end": "2026-04-01", "total": money(total, currency)}
        chosen = {} if "preset" in said else {"lines": ONE_LINE if lines is None else lines}
        made = (await self.sure("createBudget", **{**basics, **chosen, **said}))["budget"]
        return made["id"], {line["category"]: line["id"] for line in made["lines"]}

    async def commit(self, line: str, amount: int, **said: Any) -> dict[str, Any]:
        return await self.sure("commitBudget", lineId=line, amount=money(amount), **said)

    async def spend(self, line: str, amount: int, **said: Any) -> dict[str, Any]:
        return await self.sure("spendBudget", lineId=line, amount=money(amount), **said)

    async def of_node(self, kind: str, id: str, fields: str) -> dict[str, Any]:
        """Fields of something by its id."""
        data = await self.client.data(f"query($id: ID!) {{ node(id: $id) {{ ... on {kind} {{ {fields} }} }} }}", id=id)
        found: dict[str, Any] = data["node"]
        return found

    async def line(self, id: str, *names: str) -> Any:
        """Amounts of a line, by name; one alone is itself."""
        found = await self.of_node("BudgetLine", id, " ".join(f"{name} {{ amountMinor }}" for name in names))
        amounts = [int(found[name]["amountMinor"]) for name in names]
        return amounts[0] if len(amounts) == 1 else amounts

    async def journal(self, line: str) -> list[tuple[str, int]]:
        """A line's entries, oldest first: kind and amount."""
        found = await self.of_node("BudgetLine", line, "entries(first: 100) { nodes { kind amount { amountMinor } } }")
        return [(node["kind"], int(node["amount"]["amountMinor"])) for node in reversed(found["entries"]["nodes"])]

    async def check(self) -> None:
        """Nothing failed, budgets agree with their entries, and the log gives the same rows again."""
        await drain(self.client)
        await self.check_failures()
        assert await self.client.services.db.read(drifts) == []
        report = await replayed(self.client, "budget")
        assert report.differences == []
        assert report.equal


@asynccontextmanager
async def opened(
    url: str, at: str = "2026-03-10T12:00", *, serve: Mapping[str, Any] | None = None, **rules: Any
) -> AsyncIterator[Treasury]:
    """A brand on a database with the core's tables; `rules` are budget's, `serve` what else `serving` is told."""
    clock = [local(at)]
    sections = {"budget": {"enabled": True, **rules}}
    async with serving(
        url, modules={"budget": scrm_budget}, sections=sections, clock=lambda: clock[0], **(serve or {})
    ) as client:
        await drain(client)
        yield Treasury(client, clock)
