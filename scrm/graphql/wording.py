"""Words that people read, in the language of the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from scrm.graphql.sources import BatchInfo, batch


async def _worded(keys: Sequence[tuple[str, str]], info: BatchInfo) -> Mapping[Any, str]:
    found = {}
    for usual, others in keys:
        known = orjson.loads(others)
        found[usual, others] = known.get(info.language) or known.get(info.language.split("-")[0]) or usual
    return found


def worded(description: str, usual: str, others: str) -> Any:
    """A text in the request's language: of a column with the usual words, and one with those of other languages as a JSON
    object by language tag. For `zh-CN` also the words for `zh` are taken."""
    return batch(description, _worded, needs=[usual, others])
