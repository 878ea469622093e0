"""Generated requests have the same answer compiled and interpreted."""

from __future__ import annotations

import pytest

from tests.contract.differential import Differential
from tests.contract.world import World

CHUNKS, SIZE = 10, 51


@pytest.mark.parametrize("chunk", range(CHUNKS))
async def test_compiled_answers_are_the_interpreters(differential: Differential, chunk: int) -> None:
    for seed in range(chunk * SIZE, (chunk + 1) * SIZE):
        await differential.seed(seed)


@pytest.mark.parametrize("levels", [1, 2])
async def test_what_is_read_in_parts_is_the_same(sqlite: World, levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = sqlite.client.app.state.endpoint.plans
    differential = Differential(sqlite)
    await differential.prepare()
    plans._plans.clear()
    monkeypatch.setattr(plans, "levels", (levels,))
    for seed in range(150):
        await differential.seed(seed)
    kept = [each.plan for each in plans._plans.values()]
    plans._plans.clear()
    assert sum(bool(plan.parts) for plan in kept) > 5
    assert any(plan.parts and plan.compiled.batches for plan in kept)


async def test_a_deep_selection_is_answered(world: World) -> None:
    """Deeper than what SQLite's parser took before 3.46."""
    times = 7
    inner = "id noteScore firstNote { id } tags { tag { group { tags { group { key } } } } }"
    query = "events(first: 1) { nodes { user { " * times + inner + " } } }" * times
    data = await world.client.data(f"{{ users(first: 5, filter: {{event: {{}}}}) {{ nodes {{ id {query} }} }} }}")
    shallow = await world.client.data(f"query($ids: [ID!]!) {{ users(filter: {{ids: $ids}}) {{ nodes {{ {inner} }} }} }}",
        ids=[each["id"] for each in data["users"]["nodes"]])  # fmt: skip
    expected = {each["id"]: each for each in shallow["users"]["nodes"]}
    for user in data["users"]["nodes"]:
        found = user
        for _ in range(times):
            found = found["events"]["nodes"][0]["user"]
        assert found == expected[user["id"]]
    misses = world.client.app.state.endpoint.plans.misses
    await world.client.data(f"{{ users(first: 5, filter: {{event: {{}}}}) {{ nodes {{ id {query} }} }} }}")
    assert world.client.app.state.endpoint.plans.misses == misses
