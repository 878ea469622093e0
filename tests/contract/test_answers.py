"""Requests whose answers were worked out by hand from the few rows of `small.py`; the same text on both engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.contract.differential import simple
from tests.contract.world import World


def cases() -> list[Any]:
    """Title, request, variables and answer of each block of the file."""
    text = (Path(__file__).parent / "answers.txt").read_text(encoding="utf-8")
    found = []
    for block in text.strip().split("\n\n"):
        title, query, variables, answer = block.split("\n")
        found.append(pytest.param(query, variables, answer, id=title.removeprefix("# ")))
    return found


@pytest.mark.parametrize(("query", "variables", "answer"), cases())
async def test_the_answer_is(few: World, query: str, variables: str, answer: str) -> None:
    given = simple(orjson.loads(await few.bytes(query, orjson.loads(variables))))
    expected = orjson.loads(answer)
    assert orjson.dumps(given).decode() == orjson.dumps({"data": expected["data"], "errors": expected.get("errors", [])}).decode()
