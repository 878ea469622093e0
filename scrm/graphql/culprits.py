"""A plugin's field that fails takes only itself along: the statement is asked again without the fields that make it fail."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from scrm.errors import ScrmError
from scrm.events.handling import is_trouble
from scrm.graphql.model import Model
from scrm.graphql.places import Place
from scrm.graphql.selection import Operation
from scrm.graphql.sources import BatchInfo

T = TypeVar("T")
Info = Callable[[], BatchInfo]
Attempt = Callable[[frozenset[str], Info | None], Awaitable[T]]
"""Answers without the fields that are named, as `Type.field`; without the second, whether that works is all that is asked."""

log = logging.getLogger("scrm.graphql")

ATTEMPTS = 64
"""How often one place is asked while its culprits are looked for."""
REMEMBERED = timedelta(minutes=1)
"""How long what was found is good for: a fault may pass, or become another."""


@dataclass(frozen=True, slots=True)
class _Found:
    operation: Operation
    """Kept, since the key has its address."""
    fields: frozenset[str]
    until: datetime


class Culprits:
    """Which fields made a place's statement fail lately. Only what has failed again is asked without them: what somebody's
    data did to a field hides it from nobody else."""

    def __init__(self, model: Model, limit: int) -> None:
        self._model = model
        self._limit = limit
        self._found: OrderedDict[object, _Found] = OrderedDict()

    async def answer(self, place: Place, attempt: Attempt[T], info: Info, now: datetime) -> T:
        """What `attempt` answers, without those fields of plugins that make it fail.

        Raises: what it failed with, where leaving out plugins' fields does not help.
        """
        try:
            return await attempt(frozenset(), info)
        except Exception as error:
            if _is_not_a_fields(error):
                raise
            first = error
        key = place.key()
        found = self._found.get(key)
        if found is not None and now < found.until:
            try:
                return await attempt(found.fields, info)
            except Exception as error:
                if _is_not_a_fields(error):
                    raise
        fields = await _search(attempt, place.fields_of_plugins(self._model), first)
        if fields:
            log.error("these fields of plugins failed: %s", ", ".join(sorted(fields)), exc_info=first)
            self._found[key] = _Found(place.operation, fields, now + REMEMBERED)
            self._found.move_to_end(key)
            if len(self._found) > self._limit:
                self._found.popitem(last=False)
        return await attempt(fields, info)


def _is_not_a_fields(error: Exception) -> bool:
    """Whether it is the caller's, the database's or the process's, and no field's."""
    return isinstance(error, ScrmError | ConnectionError | asyncio.CancelledError) or is_trouble(error)


async def _search(attempt: Attempt[T], fields: Sequence[str], first: Exception) -> frozenset[str]:
    """Leave all out, and let back in, by halves, what does no harm: the rest. An object comes before what it holds, so where it
    fails while that is still out, it fails itself.

    Raises: the first failure, where it is nobody's here.
    """

    async def works(out: frozenset[str]) -> bool:
        try:
            await attempt(out, None)
        except Exception as error:
            if _is_not_a_fields(error):
                raise
            return False
        return True

    out = frozenset(fields)
    if not out or not await works(out):
        raise first
    groups, left = [list(fields)], ATTEMPTS
    while groups and left:
        group, left = groups.pop(), left - 1
        if await works(out.difference(group)):
            out = out.difference(group)
        elif len(group) > 1:
            half = len(group) // 2
            groups += [group[half:], group[:half]]
    return out
