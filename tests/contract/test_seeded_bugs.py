"""Bugs put in on purpose: each must make the differential test find a difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from scrm.graphql import filling, filters, pages, places, plans, selection
from scrm.graphql.compiler import Compiler
from scrm.sql import Row
from tests.contract.differential import Difference, Differential
from tests.contract.world import World

SEEDS = 400


@pytest.fixture
async def fresh(sqlite: World) -> Any:
    """The differential test on an empty plan cache; emptied again for those who come after."""
    cache = sqlite.client.app.state.endpoint.plans
    made = Differential(sqlite)
    await made.prepare()
    cache._plans.clear()
    yield made
    cache._plans.clear()


def old_plan_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key forgets enums, booleans and the lengths of lists."""

    def shape(operation: Any, variables: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple((name, name in variables, variables.get(name) is None) for name in operation.types)

    monkeypatch.setattr(places, "shape", shape)


def key_without_keys_present(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key forgets which fields of an input object were given."""
    kept = selection._shape

    def shaped(type_: Any, value: Any) -> Any:
        return "{}" if isinstance(value, dict) else kept(type_, value)

    monkeypatch.setattr(selection, "_shape", shaped)


def missing_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent is a real FROM, which a derived table takes for its own."""

    def alias(self: Any, table: Any) -> Any:
        name = self._alias_name()
        made = table.alias(name)
        row = Row(dict(table.c), name)
        row._column = lambda column: row.used.setdefault(column) or made.c[column]  # type: ignore[method-assign,assignment]
        row.c = type(row.c)(row._column)
        return made, row

    monkeypatch.setattr(Compiler, "_alias", alias)


def batch_without_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two selections of one batch field share what the first one asked for."""
    kept = filling.fill

    async def fill(texts: Sequence[Any], batches: Sequence[Any], *more: Any) -> Any:
        first: dict[Any, Any] = {}
        shared = [
            replace(call, arguments=first.setdefault((call.field.parent, call.field.name), call.arguments)) for call in batches
        ]
        return await kept(texts, shared, *more)

    monkeypatch.setattr(plans, "fill", fill)


def no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Personal values are shown to everybody."""
    monkeypatch.setattr(Compiler, "_masked", lambda self, expression, bound: expression)


def merged_users_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are not to be seen are."""
    monkeypatch.setattr(Compiler, "_restrictions", lambda self, rows, row, visible: [])


def backward_not_turned_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nulls come where the engine puts them."""
    kept = filters.order_by

    def ordered(keys: Any, *, backward: bool) -> Any:
        return kept([replace(key, nullable=False) for key in keys], backward=backward)

    monkeypatch.setattr(pages, "order_by", ordered)


BUGS: list[Callable[[pytest.MonkeyPatch], None]] = [
    old_plan_key,
    key_without_keys_present,
    missing_correlation,
    batch_without_arguments,
    no_mask,
    merged_users_shown,
    backward_not_turned_round,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
async def test_the_differential_test_finds(fresh: Differential, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    with pytest.raises(Difference) as found:
        await _all(fresh)
    assert found.value.compiled != found.value.interpreted


async def _all(differential: Differential) -> None:
    for seed in range(SEEDS):
        await differential.seed(seed)
