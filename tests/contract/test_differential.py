"""Generated requests have the same answer compiled and interpreted."""

from __future__ import annotations

import pytest

from tests.contract.differential import Differential

CHUNKS, SIZE = 10, 51


@pytest.mark.parametrize("chunk", range(CHUNKS))
async def test_compiled_answers_are_the_interpreters(differential: Differential, chunk: int) -> None:
    for seed in range(chunk * SIZE, (chunk + 1) * SIZE):
        await differential.seed(seed)
