"""The core's indicators, each at its boundaries."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from scrm.channels.service import find_channel
from scrm.db import Tx
from scrm.errors import ScrmError
from scrm.events.consumers import Consumer
from scrm.events.handling import EVENT_COLUMNS, Applying, event_of, reading
from scrm.events.models import events
from scrm.events.sequencer import sequence
from scrm.indicators.periods import complete_periods, read_indicator
from scrm.indicators.service import core_indicators, offered_by_core
from scrm.plugin import Indicator, IndicatorUnit, Period, Ratio
from scrm.users.merging import merge

Brand = Any
ZONE = ZoneInfo("Asia/Shanghai")
INDICATORS = {one.key: one for one in core_indicators("CNY", ZONE)}
LATER = datetime(2027, 1, 1, tzinfo=UTC)
JAN = Period(date(2026, 1, 1), date(2026, 2, 1))
FEB = Period(date(2026, 2, 1), date(2026, 3, 1))


async def _series(
    brand: Brand, key: str, *periods: Period, channel: uuid.UUID | None = None, as_of: datetime = LATER
) -> list[tuple[int, int | None]]:
    found: list[Ratio] = await brand.read(INDICATORS[key].series, periods, channel, as_of)
    return [(point.numerator, point.denominator) for point in found]


def _days(start: str, count: int) -> list[Period]:
    first = date.fromisoformat(start)
    return [Period(first + timedelta(days=n), first + timedelta(days=n + 1)) for n in range(count)]


@pytest.fixture
async def old(brand: Brand) -> Brand:
    """Users are made in March, so their first events are what a test says."""
    brand.at = datetime(2026, 3, 15, tzinfo=UTC)
    return brand


def test_every_indicator_of_the_domain_is_there_with_its_definition() -> None:
    assert set(INDICATORS) == {
        "new_users",
        "growth_rate",
        "active_users",
        "interaction_rate",
        "content_interaction_rate",
        "unfollow_rate",
        "churn_rate",
        "conversion_rate",
        "repurchase_rate",
        "refund_user_rate",
        "dispute_rate",
        "complaints",
        "revenue",
        "opinion_index",
    }
    assert all(one.definition and one.name for one in INDICATORS.values())
    units = {key: one.unit for key, one in INDICATORS.items() if one.unit != IndicatorUnit.RATE}
    count = IndicatorUnit.COUNT
    assert units == {
        "new_users": count,
        "active_users": count,
        "complaints": count,
        "revenue": IndicatorUnit.MONEY,
        "opinion_index": IndicatorUnit.INDEX,
    }


@pytest.mark.parametrize("key", sorted(INDICATORS))
async def test_nothing_is_nought_and_a_rate_of_nothing_has_no_value(brand: Brand, key: str) -> None:
    rate = INDICATORS[key].unit in (IndicatorUnit.RATE, IndicatorUnit.INDEX)
    assert await _series(brand, key, JAN, FEB) == [(0, 0 if rate else None)] * 2
    assert await _series(brand, key) == []
    oa = (await brand.read(find_channel, "oa")).id
    assert await _series(brand, key, JAN, channel=oa) == [(0, 0 if rate else None)]


async def test_new_users_come_with_their_first_event_on_their_local_day(old: Brand) -> None:
    one, two, three = await old.user(), await old.user(), await old.user()
    await old.happen("page.viewed", one, "2026-01-31T23:59")
    await old.happen("page.viewed", one, "2026-02-10T12:00")
    await old.happen("page.viewed", two, "2026-02-01T00:00")
    assert await _series(old, "new_users", JAN, FEB) == [(1, None), (1, None)]
    assert await _series(old, "growth_rate", JAN, FEB) == [(1, 0), (1, 1)]
    march = Period(date(2026, 3, 1), date(2026, 4, 1))
    assert await _series(old, "growth_rate", march) == [(1, 2)]
    await old.do(merge, one, three, reason="x")
    assert await _series(old, "growth_rate", march) == [(0, 2)]
    await old.do(merge, one, two, reason="x")
    assert await _series(old, "new_users", JAN, FEB, march) == [(1, None), (0, None), (0, None)]


async def test_nothing_after_as_of_is_seen(old: Brand) -> None:
    one = await old.user()
    await old.happen("order.paid", one, "2026-01-10T12:00", amount=100)
    await old.happen("order.paid", one, "2026-01-20T12:00", amount=10)
    noon = datetime(2026, 1, 20, 4, tzinfo=UTC)
    assert await _series(old, "revenue", JAN, as_of=noon) == [(110, None)]
    assert await _series(old, "revenue", JAN, as_of=noon - timedelta(microseconds=1)) == [(100, None)]
    assert await _series(old, "new_users", JAN, as_of=datetime(2026, 1, 10, 3, tzinfo=UTC)) == [(0, None)]


async def test_active_users_do_something_themselves(old: Brand) -> None:
    one, two = await old.user(), await old.user()
    for moment in ("2026-01-05T12:00", "2026-01-05T18:00", "2026-01-06T00:00"):
        await old.happen("page.viewed", one, moment)
    for type in ("message.sent", "user.unfollowed", "group.left", "order.refunded"):
        await old.happen(type, two, "2026-01-05T12:00")
    await old.happen("indicator.reported", None, "2026-01-05T12:00")
    assert await _series(old, "active_users", *_days("2026-01-04", 4)) == [(0, None), (1, None), (1, None), (0, None)]


async def test_reachable_while_followed_or_in_a_group(old: Brand) -> None:
    oa, poster, mini = [(await old.read(find_channel, key)).id for key in ("oa", "oa-poster", "mini")]
    one, two, three = await old.user(), await old.user(), await old.user()
    await old.happen("user.followed", one, "2026-01-01T10:00", channel=poster)
    await old.happen("user.followed", one, "2026-01-02T10:00", channel=mini)
    await old.happen("user.unfollowed", one, "2026-01-03T10:00", channel=oa)
    await old.happen("user.unfollowed", one, "2026-01-04T10:00", channel=mini)
    await old.happen("group.joined", two, "2026-01-01T10:00", groupId="g1")
    await old.happen("group.joined", two, "2026-01-01T10:00", groupId="g2")
    await old.happen("group.left", two, "2026-01-03T10:00", groupId="g1")
    await old.happen("group.left", three, "2026-01-02T10:00", groupId="g1")
    days = _days("2026-01-01", 5)
    assert await _series(old, "unfollow_rate", *days) == [(0, 0), (1, 2), (2, 2), (1, 2), (0, 1)]
    await old.happen("group.spoke", two, "2026-01-04T10:00", groupId="g2")
    await old.happen("content.liked", three, "2026-01-04T10:00", contentId="c")
    await old.happen("content.read", one, "2026-01-04T10:00", contentId="c")
    assert await _series(old, "interaction_rate", *days) == [(0, 2), (0, 2), (0, 2), (2, 1), (0, 1)]
    assert await _series(old, "unfollow_rate", *days, channel=oa) == [(0, 0), (0, 1), (1, 1), (0, 0), (0, 0)]
    assert await _series(old, "unfollow_rate", *days, channel=mini) == [(0, 0), (0, 0), (0, 1), (1, 1), (0, 0)]


async def test_content_interactions_per_read(old: Brand) -> None:
    one = await old.user()
    for type in ("content.read", "content.read", "content.liked", "content.shared", "content.commented", "message.received"):
        await old.happen(type, one, "2026-01-05T12:00", contentId="c")
    assert await _series(old, "content_interaction_rate", JAN) == [(3, 2)]


async def test_a_buyer_churns_on_the_ninetieth_day(old: Brand) -> None:
    one, two, three = await old.user(), await old.user(), await old.user()
    await old.happen("order.paid", one, "2026-01-01T12:00", amount=1)
    await old.happen("order.paid", two, "2026-01-01T12:00", amount=1)
    await old.happen("order.paid", two, "2026-04-01T23:59", amount=1)
    await old.happen("order.paid", three, "2026-01-01T12:00", amount=1)
    await old.happen("order.paid", three, "2026-04-02T00:00", amount=1)
    around = _days("2026-03-31", 3)
    # 1 January + 90 days = 1 April: a purchase on that day still saves.
    assert await _series(old, "churn_rate", *around) == [(0, 3), (2, 3), (0, 1)]
    assert await _series(old, "churn_rate", *around, as_of=datetime(2026, 3, 31, 15, tzinfo=UTC)) == [(0, 3), (0, 3), (0, 0)]
    april = Period(date(2026, 4, 1), date(2026, 5, 1))
    assert await _series(old, "churn_rate", april) == [(2, 3)]


async def test_rates_of_buyers(old: Brand) -> None:
    one, two, three = await old.user(), await old.user(), await old.user()
    await old.happen("page.viewed", three, "2026-02-02T12:00")
    await old.happen("order.paid", one, "2026-01-31T23:59", amount=1000)
    await old.happen("order.paid", one, "2026-02-03T12:00", amount=500)
    await old.happen("order.paid", two, "2026-02-04T09:00", amount=200)
    await old.happen("order.paid", two, "2026-02-04T18:00", amount=200)
    await old.happen("order.refunded", two, "2026-02-05T12:00", amount=150)
    await old.happen("order.refunded", two, "2026-02-06T12:00", amount=50)
    await old.happen("dispute.opened", two, "2026-02-05T12:00", orderId="1")
    await old.happen("complaint.filed", two, "2026-02-05T12:00")
    await old.happen("complaint.filed", three, "2026-02-05T12:00")
    await old.happen("order.paid", two, "2026-02-05T12:00", amount=77, currency="USD")
    assert await _series(old, "conversion_rate", JAN, FEB) == [(1, 1), (2, 3)]
    assert await _series(old, "repurchase_rate", JAN, FEB) == [(0, 1), (2, 2)]
    assert await _series(old, "refund_user_rate", JAN, FEB) == [(0, 1), (1, 2)]
    assert await _series(old, "dispute_rate", JAN, FEB) == [(0, 1), (1, 4)]
    assert await _series(old, "complaints", JAN, FEB) == [(0, None), (2, None)]
    assert await _series(old, "revenue", JAN, FEB) == [(1000, None), (700, None)]


async def test_an_index_is_the_last_that_was_reported(old: Brand) -> None:
    for when, said in (
        ("2026-01-05T09:00", {"indicator": "opinion_index", "value": 640}),
        ("2026-01-05T18:00", {"indicator": "opinion_index", "value": 800.125}),
        ("2026-01-05T20:00", {"indicator": "opinion_index", "value": "none"}),
        ("2026-01-05T21:00", {"indicator": "else", "value": 1}),
        ("2026-01-06T00:00", {"indicator": "opinion_index", "value": -3}),
    ):
        await old.happen("indicator.reported", None, when, **said)
    days = _days("2026-01-04", 4)
    assert await _series(old, "opinion_index", *days) == [(0, 0), (800_125, 1_000), (-3_000, 1_000), (0, 0)]
    noon = datetime(2026, 1, 5, 4, tzinfo=UTC)
    assert await _series(old, "opinion_index", *days[1:2], as_of=noon) == [(640_000, 1_000)]


async def test_a_handler_reads_an_indicator_as_it_was_at_an_event(old: Brand) -> None:
    consumer = Consumer("probe", (), ZONE, indicators=offered_by_core("CNY", ZONE))
    days = [*_days("2026-01-04", 3), JAN]
    of_log = [key for key, indicator in INDICATORS.items() if indicator.of_log]
    assert INDICATORS.keys() - of_log == {"interaction_rate", "unfollow_rate"}  # who is reachable depends on the channels

    def seen(tx: Tx, until: uuid.UUID) -> dict[str, list[Ratio]]:
        row = tx.row(sa.select(*EVENT_COLUMNS).where(events.c.id == until))
        assert row is not None
        scope = Applying(tx, consumer, after=0, backfill_to=0, at=LATER)
        event = replace(event_of(row), occurred_at=LATER)
        return {key: read_indicator(scope, key, days, as_of=LATER, until=event) for key in of_log}

    async def now() -> dict[str, list[Ratio]]:
        return {key: await old.read(INDICATORS[key].series, days, None, LATER) for key in of_log}

    one, two = await old.user(), await old.user()
    for user in (one, two):
        await old.happen("user.followed", user, "2026-01-04T10:00")
        await old.happen("order.paid", user, "2026-01-04T11:00", amount=500)
        await old.happen("order.paid", user, "2026-01-05T12:00", amount=500)
        await old.happen("content.read", user, "2026-01-05T13:00")
        await old.happen("content.liked", user, "2026-01-05T13:00")
    await old.happen("order.refunded", one, "2026-01-05T14:00", amount=100)
    await old.happen("complaint.filed", two, "2026-01-05T14:00")
    await old.happen("dispute.opened", two, "2026-01-05T14:00")
    await old.happen("user.unfollowed", two, "2026-01-05T15:00")
    mark = await old.happen("indicator.reported", None, "2026-01-05T16:00", indicator="opinion_index", value=7)
    await sequence(old.db)
    before = await now()
    assert all(any(point.numerator for point in points) for key, points in before.items() if key != "churn_rate")
    assert await old.read(seen, mark) == before
    await old.happen("order.paid", one, "2026-01-05T17:00", amount=77)
    await old.happen("complaint.filed", one, "2026-01-05T17:00")
    await old.do(merge, one, two, reason="x")
    later = await old.happen("indicator.reported", None, "2026-01-06T00:00", indicator="x", value=0)
    await sequence(old.db)
    assert await old.read(seen, mark) == before  # what came later, and whose it is by now, is not seen there
    assert await old.read(seen, later) == await now() != before


async def test_who_may_read_what(old: Brand) -> None:
    mine = Indicator("mine", "Mine", IndicatorUnit.COUNT, "x", lambda *_: [Ratio(1)])
    consumer = Consumer("probe", (), ZONE, indicators={"mine": ("probe", mine), **offered_by_core("CNY", ZONE)})
    mark = await old.happen("page.viewed", None)
    await sequence(old.db)

    def ask(tx: Tx, handling: bool, key: str, until: bool) -> Any:
        row = tx.row(sa.select(*EVENT_COLUMNS).where(events.c.id == mark))
        assert row is not None
        scope = Applying(tx, consumer, after=0, backfill_to=0, at=LATER) if handling else reading(tx, consumer.indicators)
        return read_indicator(scope, key, [JAN], as_of=LATER, until=event_of(row) if until else None)

    assert await old.read(ask, False, "mine", False) == [Ratio(1)]
    assert await old.read(ask, True, "complaints", True) == [Ratio(0)]
    for handling, key, until, said in (
        (True, "mine", True, "INDICATOR_NOT_OF_LOG"),
        (True, "unfollow_rate", True, "INDICATOR_NOT_OF_LOG"),
        (True, "other", True, "UNKNOWN_INDICATOR"),
        (False, "other", False, "UNKNOWN_INDICATOR"),
    ):
        with pytest.raises(ScrmError) as refused:
            await old.read(ask, handling, key, until)
        assert refused.value.code == said
    for handling in (True, False):
        with pytest.raises(PermissionError, match=r"until=event|only a handler"):
            await old.read(ask, handling, "complaints", not handling)


async def test_two_orders_of_one_day_are_no_repurchase(old: Brand) -> None:
    one = await old.user()
    await old.happen("order.paid", one, "2026-02-04T09:00", amount=200)
    await old.happen("order.paid", one, "2026-02-04T18:00", amount=200)
    assert await _series(old, "repurchase_rate", FEB) == [(0, 1)]


async def test_a_channels_indicators_include_its_childrens(old: Brand) -> None:
    oa, poster, mini = [(await old.read(find_channel, key)).id for key in ("oa", "oa-poster", "mini")]
    one = await old.user("oa-poster:o")
    await old.happen("order.paid", one, "2026-01-05T12:00", channel=poster, amount=5)
    await old.happen("order.paid", one, "2026-01-06T12:00", channel=mini, amount=7)
    for key, expected in {"revenue": [5, 5, 7], "active_users": [1, 1, 1], "new_users": [1, 1, 0]}.items():
        found = [(await _series(old, key, JAN, channel=channel))[0][0] for channel in (oa, poster, mini)]
        assert found == expected


def test_the_last_complete_periods() -> None:
    noon = datetime(2026, 3, 1, 4, tzinfo=UTC)
    assert complete_periods(noon, ZONE, "MONTH", 2) == [JAN, FEB]
    assert complete_periods(datetime(2026, 2, 28, 15, 59, tzinfo=UTC), ZONE, "MONTH", 1) == [JAN]
    assert complete_periods(datetime(2026, 2, 28, 16, tzinfo=UTC), ZONE, "MONTH", 1) == [FEB]
    assert complete_periods(noon, ZONE, "DAY", 3) == _days("2026-02-26", 3)
    assert complete_periods(noon, ZONE, "WEEK", 1) == [Period(date(2026, 2, 16), date(2026, 2, 23))]
    assert len(complete_periods(datetime(1, 6, 1, tzinfo=UTC), ZONE, "MONTH", 99)) < 99


async def test_many_periods_are_one_statement(old: Brand) -> None:
    one = await old.user()
    await old.happen("order.paid", one, "2026-01-05T12:00", amount=5)

    def count(tx: Any, key: str) -> tuple[int, int]:
        statements = 0

        def counting(*_: object) -> None:
            nonlocal statements
            statements += 1

        sa.event.listen(tx.connection, "before_cursor_execute", counting)
        try:
            points = INDICATORS[key].series(tx, _days("2026-01-01", 40), None, LATER)
        finally:
            sa.event.remove(tx.connection, "before_cursor_execute", counting)
        return statements, len(points)

    assert {key: await old.read(count, key) for key in INDICATORS} == dict.fromkeys(INDICATORS, (1, 40))
