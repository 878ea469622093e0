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

Without = Callable[[frozenset[str]], Awaitable[object]]
"""Asks without the fields that are named."""

log = logging.getLogger("scrm.graphql")

ATTEMPTS = 64
"""How often one place is asked while its culprits are looked for."""
AT_ONCE = 2.0
"""Seconds in which a place must answer without a plugin's field for the field to be why it took too long."""
REMEMBERED = timedelta(minutes=1)
"""How long what was found is good for: a fault may pass, or become another."""


@dataclass(frozen=True, slots=True)
class _Found:
    operation: Operation
    """Kept, since the key has its address."""
    fields: frozenset[str]
    until: datetime


class TooLongError(Exception):
    """A place did not answer at once."""


class Culprits:
    """Which fields made a place's statement fail lately. Only what has failed again is asked without them: what somebody's
    data did to a field hides it from nobody else."""

    def __init__(self, model: Model, limit: int) -> None:
        self._model = model
        self._limit = limit
        self._found: OrderedDict[object, _Found] = OrderedDict()
        self._slow: OrderedDict[object, _Found] = OrderedDict()
        self._asking: dict[object, asyncio.Task[None]] = {}

    def too_slow(self, place: Place, now: datetime) -> frozenset[str]:
        """The fields of plugins without which a place answered lately, when with them it took longer than a request may."""
        found = self._slow.get(place.key()) if self._slow else None
        return frozenset() if found is None or now >= found.until else found.fields

    def suspect(self, place: Place, attempt: Without, clock: Callable[[], datetime]) -> None:
        """Find out, beside the requests, whether a place that took too long answers at once without fields of plugins, and
        without which."""
        key = place.key()
        if key not in self._asking:
            task = self._asking[key] = asyncio.create_task(self._find_slow(key, place, attempt, clock))
            task.add_done_callback(lambda _: self._asking.pop(key, None))

    async def _find_slow(self, key: object, place: Place, attempt: Without, clock: Callable[[], datetime]) -> None:
        fields = place.fields_of_plugins(self._model)

        async def at_once(out: frozenset[str], _info: Info | None) -> None:
            try:
                async with asyncio.timeout(AT_ONCE):
                    await attempt(out)
            except TimeoutError:
                raise TooLongError from None

        def keep(found: frozenset[str]) -> None:
            _keep(self._slow, key, _Found(place.operation, found, clock() + REMEMBERED), self._limit)

        try:
            if not fields:
                return
            await at_once(frozenset(fields), None)
            keep(frozenset(fields))  # until it is known which of them
            slow = await _search(at_once, fields, TooLongError())
            keep(slow)
            log.error("these fields of plugins took too long: %s", ", ".join(sorted(slow)))
        except Exception:
            log.debug("it is not for fields of plugins that a request took too long", exc_info=True)

    async def answer(self, place: Place, attempt: Attempt[T], info: Info, now: datetime) -> T:
        """What `attempt` answers, without those fields of plugins that make it fail.

        Raises: what it failed with, where leaving out plugins' fields does not help.
        """
        if slow := self.too_slow(place, now):
            return await attempt(slow, info)
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
            _keep(self._found, key, _Found(place.operation, fields, now + REMEMBERED), self._limit)
        return await attempt(fields, info)


def _keep(found: OrderedDict[object, _Found], key: object, new: _Found, limit: int) -> None:
    found[key] = new
    found.move_to_end(key)
    if len(found) > limit:
        found.popitem(last=False)


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
