"""What budgets keep of people: it goes where they go, is handed over, and is forgotten. And no money is ever a fraction."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

import scrm_budget
from scrm.api import Tx
from scrm.testing.client import drain
from scrm_budget.models import entries, people
from tests.plugins.test_budget_returns import channel, touch
from tests.plugins.treasury import money, opened

CAPPED = [{"category": "gifts", "share": 100, "capPerUser": {"amountMinor": 100, "currency": "CNY"}, "channels": ["ads"]}]
HOME = Path(scrm_budget.__file__).parent


async def test_caps_and_touches_of_two_who_become_one_count_together(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        await channel(brand, "ads")
        _, own = await brand.budget(1_000, CAPPED)
        line = own["gifts"]
        ann, bob = await brand.member(), await brand.member()
        await brand.spend(line, 60, userId=ann)
        await brand.spend(line, 40, userId=bob)
        await brand.send(touch(brand, bob, "2026-03-09T10:00", "ads"))
        merge = await brand.merge(ann, bob)
        assert await brand.why("spendBudget", lineId=line, amount=money(1), userId=ann) == (
            "CAP_REACHED",
            {"cap": 100, "taken": 100, "amount": 1, "kind": "USER"},
        )
        await brand.pay(ann, "o1", 500, "2026-03-09T11:00")
        assert (await brand.of_node("BudgetLine", line, "roi"))["roi"] == 5.0
        await brand.unmerge(merge)
        await brand.spend(line, 60, userId=bob)
        await brand.pay(ann, "o2", 500, "2026-03-09T12:00")
        assert await brand.line(line, "attributedRevenue") == 500
        await brand.check()


async def test_a_person_is_handed_over_and_forgotten(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        await channel(brand, "ads")
        _, own = await brand.budget(1_000, CAPPED)
        ann = await brand.member()
        spent = await brand.spend(own["gifts"], 60, userId=ann)
        await brand.send(touch(brand, ann, "2026-03-09T10:00", "ads"))
        await brand.pay(ann, "o1", 500, "2026-03-09T11:00")
        document = "mutation($id: ID!) { exportUser(input: {id: $id}) { export errors { code } } }"
        said = (await brand.client.data(document, id=ann))["exportUser"]["export"]["plugins"]["budget"]
        assert [entry["amount"] for entry in said["entries"]] == [60]
        assert [entry["amount"] for entry in said["revenue"]] == [500]
        assert len(said["accounts"]) == 1
        document = "mutation($id: ID!) { eraseUser(input: {id: $id}) { errors { code } } }"
        assert (await brand.client.data(document, id=ann))["eraseUser"]["errors"] == []
        await drain(brand.client)
        assert (await brand.of_node("BudgetEntry", spent["entry"]["id"], "amount { amountMinor } user { id }")) == {
            "amount": {"amountMinor": 60},
            "user": None,
        }
        [row] = await brand.client.services.db.read(lambda tx: tx.rows(sa.select(people)))
        assert (row.touched_at, row.channel_id, row.user_id == brand.key(ann)) == (None, None, False)
        assert await brand.line(own["gifts"], "spent") == 60
        await brand.check()


async def test_entries_cannot_be_changed(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        await brand.budget(1_000)
        db = brand.client.services.db
        for statement in (sa.update(entries).values(amount=1), sa.delete(entries)):
            with pytest.raises(DBAPIError, match="append-only"):
                await db.write(Tx.execute, statement)


# ---- no money is a fraction

SHOWN = ("figures.py", "shown")
"""The one function that makes a ratio a number with a point."""


def fractions(name: str, text: str) -> Iterator[str]:
    """Where a file computes with numbers that have a point."""
    module = ast.parse(text)
    exempt = {
        node
        for function in ast.walk(module)
        if isinstance(function, ast.FunctionDef) and (name, function.name) == SHOWN
        for node in ast.walk(function)
    }
    annotations = {node for found in ast.walk(module) for node in _annotated(found)}
    for node in ast.walk(module):
        if node in exempt or node in annotations:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield f"{name}:{node.lineno}: the number {node.value}"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and name != "__init__.py":
            yield f"{name}:{node.lineno}: a division that leaves a fraction"
        elif isinstance(node, ast.Name) and node.id in ("float", "round"):
            yield f"{name}:{node.lineno}: {node.id}"
        elif isinstance(node, ast.Attribute) and node.attr in ("Float", "Double", "Numeric", "REAL", "DOUBLE_PRECISION"):
            yield f"{name}:{node.lineno}: {node.attr}"


def _annotated(node: ast.AST) -> Iterator[ast.AST]:
    said = [getattr(node, name, None) for name in ("annotation", "returns")]
    for one in said:
        yield from ast.walk(one) if one is not None else ()


def test_no_money_is_a_fraction() -> None:
    found = [said for path in sorted(HOME.rglob("*.py")) for said in fractions(path.name, path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("share = total * 0.5", 1),
        ("\nshare = total / 2", 2),
        ("share = float(total)", 1),
        ("share = round(total)", 1),
        ("column = sa.Column('a', sa.Float)", 1),
        ("def f(a: float | None) -> float: ...", None),
        ("share = total // 2", None),
    ],
)
def test_a_fraction_is_caught(text: str, line: int | None) -> None:
    found: Any = [said.split(": ")[0] for said in fractions("x.py", text)]
    assert found == ([] if line is None else [f"x.py:{line}"])
