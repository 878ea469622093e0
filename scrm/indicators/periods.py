"""Periods of business days, and what a series of them says."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

from scrm.channels.service import find_channel
from scrm.db import Tx
from scrm.errors import PluginFailedError, ScrmError
from scrm.events.handling import Applying, Guarded, describe, is_trouble, reading
from scrm.events.log import CORE
from scrm.events.records import Event
from scrm.plugin import Indicator, Period, Ratio

Span = Period
MOST = 800


def start_of(day: date, period: str) -> date:
    """First day of the period that a day falls in."""
    if period == "WEEK":
        return day - timedelta(days=day.weekday())
    if period == "MONTH":
        return day.replace(day=1)
    if period == "QUARTER":
        return day.replace(month=day.month - (day.month - 1) % 3, day=1)
    return day


def next_start(start: date, period: str) -> date:
    """First day of the period after the one that starts on this day."""
    days = {"DAY": 1, "WEEK": 7, "MONTH": 31, "QUARTER": 92}[period]
    return start_of(start + timedelta(days=days), period)


def spans(start: date, end: date, period: str) -> list[Span]:
    """The periods that touch the days `[start, end)`, oldest first.

    Raises:
        ScrmError: INVALID_RANGE where there is none, or more than 800, or one that the calendar does not hold whole.
    """
    if start >= end:
        raise ScrmError(
            "INVALID_RANGE", f"the range from {start} to {end} is empty; `to` is the day after the last one", path=("to",)
        )
    found: list[Span] = []
    at = start_of(start, period)
    while at < end:
        if len(found) == MOST:
            raise ScrmError(
                "INVALID_RANGE", f"the range from {start} to {end} has more than {MOST} periods; choose longer ones", path=("to",)
            )
        try:
            following = next_start(at, period)
        except OverflowError:
            raise _beyond_the_calendar(at, period, "to") from None
        found.append(Span(at, following))
        at = following
    return found


def last_two(at: datetime, zone: ZoneInfo, period: str) -> list[Span]:
    """The last two complete periods before an instant, the older one first.

    Raises:
        ScrmError: INVALID_RANGE where the calendar does not hold them.
    """
    try:
        end = start_of(at.astimezone(zone).date(), period)
        middle = start_of(end - timedelta(days=1), period)
        return [Span(start_of(middle - timedelta(days=1), period), middle), Span(middle, end)]
    except OverflowError:
        raise _beyond_the_calendar(at, period, "asOf") from None


def _beyond_the_calendar(where: date | datetime, period: str, argument: str) -> ScrmError:
    said = f"the {period.lower()} next to {where} is not wholly within {date.min} and {date.max}; choose another time"
    return ScrmError("INVALID_RANGE", said, path=(argument,))


def value(ratio: Ratio) -> float | None:
    """A ratio as a number; None where the denominator is 0."""
    if ratio.denominator is None:
        return float(ratio.numerator)
    return ratio.numerator / ratio.denominator if ratio.denominator else None


def change_pct(current: float | None, previous: float | None) -> float | None:
    """Relative change in per cent."""
    return None if current is None or not previous else (current - previous) / abs(previous) * 100


def change_pp(current: float | None, previous: float | None) -> float | None:
    """Difference of two shares in percentage points."""
    return None if current is None or previous is None else (current - previous) * 100


def complete_periods(at: datetime, zone: ZoneInfo, period: str, count: int) -> list[Span]:
    """The last so many periods that are over at an instant, oldest first; fewer where the calendar begins."""
    end = start_of(at.astimezone(zone).date(), period)
    found: list[Span] = []
    while len(found) < count and end > date(1, 4, 1):
        start = start_of(end - timedelta(days=1), period)
        found.append(Span(start, end))
        end = start
    return found[::-1]


def known_indicators(tx: Tx) -> Mapping[str, Indicator]:
    """The indicators that the core and the active plugins offer, by key; in a handler, a decision, a job or a read."""
    offered: Mapping[str, tuple[str, Indicator]] = getattr(tx, "indicators", {})
    return {key: indicator for key, (_, indicator) in offered.items()}


def read_indicator(
    tx: Tx,
    key: str,
    wanted: Sequence[Span],
    *,
    as_of: datetime,
    channel: str | None = None,
    until: Event | None = None,
) -> list[Ratio]:
    """An indicator's values, one per period, of one channel with those below it or of all; in a decision, a job or a read as they
    are now. A handler says `until` which event: then they are as the log was at its place, for indicators that are `of_log`, of
    all channels together.

    A failure changes nothing of the transaction.

    Raises:
        ScrmError: UNKNOWN_INDICATOR, UNKNOWN_CHANNEL, or INDICATOR_NOT_OF_LOG for a handler.
        PluginFailedError: the owner's code failed, or answered something else.
    """
    offered: Mapping[str, tuple[str, Indicator]] = getattr(tx, "indicators", {})
    if key not in offered:
        raise unknown_indicator(key, offered)
    owner, definition = offered[key]
    if isinstance(tx, Applying):
        if until is None:
            raise PermissionError("a handler reads an indicator as it was at an event; say until=event")
        if not definition.of_log:
            said = f"the indicator {key} of {owner} is not read from the log, so a handler cannot see it as it was; a job can"
            raise ScrmError("INDICATOR_NOT_OF_LOG", said)
        if channel is not None:
            said = (
                f"which channels are below {channel} may be otherwise by now, so a handler cannot see {key} as it was; a job can"
            )
            raise ScrmError("INDICATOR_NOT_OF_LOG", said)
    elif until is not None:
        raise PermissionError("only a handler reads an indicator as it was at an event")
    assert isinstance(tx, Guarded)
    channel_id: Any = find_channel(tx, channel).id if channel is not None else None
    with tx.savepoint():
        view = tx.view_until(until) if isinstance(tx, Applying) and until is not None else tx
        return list(values_of(view, owner, definition, wanted, channel_id, as_of))


def unknown_indicator(key: str, known: Iterable[str], *path: str) -> ScrmError:
    """Says that there is none of this name."""
    said = f"no indicator is called {key!r}; known are {', '.join(sorted(known))}"
    return ScrmError("UNKNOWN_INDICATOR", said, path=path)


def read_series(
    tx: Tx, owner: str, definition: Indicator, wanted: Sequence[Span], channel: str | None, as_of: datetime
) -> Sequence[Ratio]:
    """An indicator's values, one per period.

    Raises:
        ScrmError: UNKNOWN_CHANNEL.
        PluginFailedError: the owner's code failed, or answered something else.
    """
    channel_id: Any = find_channel(tx, channel).id if channel is not None else None
    return values_of(reading(tx), owner, definition, wanted, channel_id, as_of)


def values_of(
    tx: Tx, owner: str, definition: Indicator, wanted: Sequence[Span], channel_id: uuid.UUID | None, as_of: datetime
) -> Sequence[Ratio]:
    """The same of a channel that is known by its id, or of all."""
    what = f"the indicator {definition.key}"
    try:
        found = list(islice(definition.series(tx, wanted, channel_id, as_of), len(wanted) + 1))
    except ScrmError:
        raise
    except BaseException as error:
        if owner == CORE or is_trouble(error):
            raise
        raise PluginFailedError(owner, f"{what}: {describe(error)}") from error
    if len(found) != len(wanted) or not all(isinstance(each, Ratio) and isinstance(each.numerator, int) for each in found):
        raise PluginFailedError(owner, f"{what}, which did not answer one Ratio for each of {len(wanted)} periods")
    return found
