"""docs/front-end.md says what is so: its examples are executed, its error codes are those of the code."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scrm.testing.client import Client, serving
from scrm.testing.following import following
from tests.core.asking import Clock

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "front-end.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(graphql|json)( \w+)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile("[A-Z][A-Z_]+")
RAISING = ("ScrmError", "UserError", "_not_one_of", "_problem")
COMPUTED = {"INVALID_PHONE", "INVALID_EMAIL", "INVALID_LANGUAGE", "INTERNAL", "UNAVAILABLE"}
"""Codes that are put together, or have a name."""


def examples() -> Iterator[tuple[str, bool, dict[str, Any], Any]]:
    """Each document with whether it is a subscription, its variables, and what is answered."""
    document, live = "", False
    variables: dict[str, Any] = {}
    for kind, mark, text in BLOCK.findall(GUIDE):
        if kind == "graphql":
            document, live, variables = text, mark.strip() == "subscription", {}
        elif mark.strip() == "variables":
            variables = json.loads(text)
        else:
            yield document, live, variables, json.loads(text)


def same(said: Any, promised: Any) -> bool:
    """Whether an answer is what the guide says; `…` stands for any text."""
    if isinstance(promised, str) and "…" in promised:
        return isinstance(said, str) and re.fullmatch(".+".join(map(re.escape, promised.split("…"))), said) is not None
    if isinstance(promised, dict):
        return isinstance(said, dict) and list(said) == list(promised) and all(same(said[key], promised[key]) for key in promised)
    if isinstance(promised, list):
        return isinstance(said, list) and len(said) == len(promised) and all(map(same, said, promised))
    return type(said) is type(promised) and said == promised


async def ask(client: Client, document: str, live: bool, variables: dict[str, Any]) -> Any:
    if not live:
        return await client.data(document, **variables)
    async with following(client, document, **variables) as followed:
        return await followed.next()


async def test_every_example_is_answered_as_written(migrated_url: str) -> None:
    async with serving(migrated_url, clock=Clock()) as client:
        found = list(examples())
        assert len(found) >= 8
        for document, live, variables, promised in found:
            said = await ask(client, document, live, variables)
            assert same(said, promised), f"{document}\n{json.dumps(said, ensure_ascii=False)}"


def test_the_comparison_can_fail() -> None:
    assert same({"a": "User_12", "b": [1]}, {"a": "User_…", "b": [1]})
    assert not same({"a": "Tag_12"}, {"a": "User_…"})
    assert not same({"a": "x"}, {"a": "y"})
    assert not same({"a": 1, "b": 2}, {"a": 1})
    assert not same([1], [1, 2])
    assert not same(True, 1)


def codes_in(text: str) -> Iterator[str]:
    """Every error code that a module may answer with."""
    for node in ast.walk(ast.parse(text)):
        said: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            said += node.args[:1] if name in RAISING else []
            said += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        elif isinstance(node, ast.Dict):
            said += [
                value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == "code"
            ]
        elif isinstance(node, ast.Assign) and any(getattr(target, "id", "") in ("code", "_CODES") for target in node.targets):
            value = node.value
            said += (
                [value.body, value.orelse]
                if isinstance(value, ast.IfExp)
                else value.values
                if isinstance(value, ast.Dict)
                else [value]
            )
        for each in said:
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and CODE.fullmatch(each.value):
                yield each.value


def test_every_code_is_in_the_table_and_the_other_way_round() -> None:
    used = {code for path in (ROOT / "scrm").rglob("*.py") for code in codes_in(path.read_text(encoding="utf-8"))} | COMPUTED
    told = re.findall(r"^\| `([A-Z_]+)` \| \S.*\|$", GUIDE, re.MULTILINE)
    assert len(told) == len(set(told))
    assert set(told) - used == set(), "told, but never used"
    assert used - set(told) == set(), "used, but not told"


def test_codes_are_found_wherever_they_are_said() -> None:
    text = """
raise ScrmError("ONE_CODE", "x")
UserError("TWO_CODES", "x")
shown = {"code": "THREE_CODES"}
check(value, code="FOUR_CODES")
code = "FIVE_CODES" if x else "SIX_CODES"
"""
    assert set(codes_in(text)) == {"ONE_CODE", "TWO_CODES", "THREE_CODES", "FOUR_CODES", "FIVE_CODES", "SIX_CODES"}
