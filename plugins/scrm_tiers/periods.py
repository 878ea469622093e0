"""Windows that values are summed over, and the days on which levels are reviewed."""

from __future__ import annotations

from datetime import date, timedelta

ROLLING, CALENDAR, LIFETIME = "ROLLING_12M", "CALENDAR_YEAR", "LIFETIME"
MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
"""How long each review period is."""

_EVER = date(1, 1, 1)


def year_before(day: date) -> date:
    """The same day a year before; of 29 February, 28 February."""
    try:
        return day.replace(year=day.year - 1)
    except ValueError:
        return day.replace(year=day.year - 1, day=28)


def year_end_before(day: date) -> date:
    """The last day of the year before."""
    return date(day.year, 1, 1) - timedelta(days=1)


def opens_after(window: str, day: date) -> date:
    """What is counted as of a day comes after this one."""
    if window == ROLLING:
        return year_before(day)
    return year_end_before(day) if window == CALENDAR else _EVER


def opens_on(window: str, day: date) -> date | None:
    """The first day that is counted as of a day; None: from ever."""
    return None if window == LIFETIME else opens_after(window, day) + timedelta(days=1)


def last_review(every: str, day: date) -> date:
    """The newest day on which a period begins, and so the one before is reviewed; the day itself if it is one."""
    months = MONTHS[every]
    return date(day.year, (day.month - 1) // months * months + 1, 1)


def next_review(every: str, day: date, count: int = 1) -> date:
    """The first such day after a day, or the `count`-th."""
    begun = last_review(every, day)
    months = begun.year * 12 + begun.month - 1 + MONTHS[every] * count
    return date(months // 12, months % 12 + 1, 1)
