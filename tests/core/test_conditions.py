"""Conditions on properties mean the same in SQL and in Python."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel, ValidationError

from scrm.api import Json, PropertyFilter, Tx
from scrm.db import Database

WORDS = ("", "shoes", "sho", "true", "1", "Jing'an", "会员")
NUMBERS = (0, 1, -1, 2**53, 1.0, 1.5, 1e300)
SCALARS = (*WORDS, *NUMBERS, True, False)
PROPERTIES: list[dict[str, Any]] = [{}, *({"a": value} for value in (*SCALARS, None, [1], {"a": 1}))]
CONDITIONS: list[tuple[str, Any]] = [
    *((name, value) for name in ("eq", "ne") for value in SCALARS),
    *((name, value) for name in ("in", "notIn") for value in (["shoes", 1], [True, "1"], [1.5])),
    *((name, value) for name in ("gt", "gte", "lt", "lte") for value in NUMBERS),
    *((name, value) for name in ("contains", "startsWith") for value in WORDS),
    ("exists", True),
    ("exists", False),
]


class Rule(BaseModel):
    """Something with a filter."""

    filter: PropertyFilter = PropertyFilter()


async def test_sql_and_python_agree(database: Database) -> None:
    filters = [Rule.model_validate({"filter": [{"key": "a", name: value}]}).filter for name, value in CONDITIONS]

    def run(tx: Tx, said: dict[str, Any]) -> list[bool]:
        column = sa.literal(said, Json)
        return [bool(value) for value in tx.rows(sa.select(*(sa.case((one.sql(column), 1), else_=0) for one in filters)))[0]]

    for said in PROPERTIES:
        assert await database.read(run, said) == [one.fits(said) for one in filters], said


def test_all_must_hold_and_nothing_holds_for_what_is_absent() -> None:
    chosen = Rule.model_validate({"filter": [{"key": "store", "in": ["Bund"]}, {"key": "sum", "gte": 5, "lt": 9}]}).filter
    assert chosen.fits({"store": "Bund", "sum": 5})
    assert not chosen.fits({"store": "Bund", "sum": 9})
    assert not chosen.fits({"sum": 5})
    assert Rule().filter.fits({})
    assert not Rule.model_validate({"filter": [{"key": "a", "ne": 1}]}).filter.fits({"a": None})
    assert chosen.keys == {"store", "sum"}


def test_the_short_form_is_kept_as_what_it_means() -> None:
    said = Rule.model_validate({"filter": {"store": "Bund", "paid": True}})
    assert said.model_dump(mode="json") == {"filter": [{"key": "store", "eq": "Bund"}, {"key": "paid", "eq": True}]}
    assert Rule.model_validate(said.model_dump(mode="json")) == said


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("x", "filter is not a list of at most 20 conditions"),
        ({"key": "store", "eq": "Bund"}, "filter is not a list of at most 20 conditions"),
        ([{"key": "a", "eq": 1}] * 21, "filter is not a list of at most 20 conditions"),
        ([{"eq": 1}], "filter.0 is not a condition as"),
        ([{"key": "a"}], "filter.0.key has no known operator; use contains, eq"),
        ([{"key": "a", "regex": "x"}], "filter.0.regex has no known operator"),
        ([{"key": "a", "in": []}], "filter.0.in is []; expected a list of 1 to 200"),
        ([{"key": "a", "gt": "5"}], "filter.0.gt is '5'; expected a number"),
        ([{"key": "a", "gt": True}], "filter.0.gt is True; expected a number"),
        ([{"key": "a", "contains": 5}], "filter.0.contains is 5; expected text"),
        ([{"key": "a", "exists": 1}], "filter.0.exists is 1; expected true or false"),
        ([{"key": "a", "eq": {}}], "filter.0.eq is {}; expected text, a number, true or false"),
        ([{"key": "a", "eq": float("nan")}], "filter.0.eq is nan; expected text, a number, true or false"),
    ],
)
def test_what_is_no_filter_is_refused_with_its_place(said: Any, problem: str) -> None:
    with pytest.raises(ValidationError, match="Value error") as refused:
        Rule.model_validate({"filter": said})
    assert problem in str(refused.value)
