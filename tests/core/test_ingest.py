"""Recording events: what is kept, what is refused, and that once is once."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.channels.models import channels
from scrm.db import Database, new_id
from scrm.errors import UserError
from scrm.events.ingest import Ingest, Undecoded
from scrm.events.log import append, core_event, digest_of
from scrm.events.models import events
from scrm.events.records import IdentityRef
from scrm.plugin import EventType
from scrm.users.models import identities, users
from tests.core.shop import NOW, SETTINGS, TYPES, Shop, codes, event, opened, statuses


@pytest.fixture
async def shop(database: Database) -> Shop:
    return await opened(database)


# ---- what is written


async def test_an_event_is_kept_as_it_was_said(shop: Shop) -> None:
    said = event(
        type="order.paid",
        external_id="A-1",
        occurred_at=datetime.fromisoformat("2026-05-31T23:30:00.5+08:00"),
        channel="code-a",
        amount_minor=12_345,
        currency="CNY",
        properties={"orderId": "1", "items": [{"sku": "x", "quantity": 2, "amount": 12345}], "z": None, "名": "值 😀"},
    )
    [result] = await shop.record(said)
    assert statuses([result]) == ["ACCEPTED"]
    assert result.errors == ()
    row = (await shop.rows(sa.select(events).where(events.c.id == result.event_id)))[0]
    kept = dict(zip(events.c.keys(), row, strict=True))
    user_id = await shop.owner("wecom", "ann")
    channel_id = (await shop.rows(sa.select(channels.c.id).where(channels.c.key == "code-a")))[0][0]
    assert kept.pop("digest")
    assert kept == {
        "id": result.event_id,
        "position": 2,
        "type": "order.paid",
        "user_id": user_id,
        "recorded_user_id": user_id,
        "channel_id": channel_id,
        "occurred_at": datetime(2026, 5, 31, 15, 30, 0, 500_000, tzinfo=UTC),
        "received_at": NOW,
        "business_date": date(2026, 5, 31),
        "amount_minor": 12_345,
        "currency": "CNY",
        "properties": said.properties,
        "source": "test",
        "external_id": "A-1",
        "late": False,
        "cause_id": None,
        "depth": 0,
        "backfill": False,
    }


@pytest.mark.parametrize(
    ("moment", "day"),
    [("2026-05-31T15:59:59.999999Z", date(2026, 5, 31)), ("2026-05-31T16:00:00Z", date(2026, 6, 1))],
)
async def test_the_business_date_is_the_local_one(shop: Shop, moment: str, day: date) -> None:
    await shop.record(event(occurred_at=datetime.fromisoformat(moment)))
    assert await shop.rows(sa.select(events.c.business_date).where(events.c.source == "test")) == [(day,)]


async def test_late_is_more_than_ninety_days_and_ahead_more_than_a_day(shop: Shop) -> None:
    step = timedelta(microseconds=1)
    results = await shop.record(
        event(occurred_at=NOW - timedelta(days=90)),
        event(occurred_at=NOW - timedelta(days=90) - step),
        event(occurred_at=NOW + timedelta(hours=24)),
        event(occurred_at=NOW + timedelta(hours=24) + step),
    )
    assert codes(results) == [[], [], [], ["TOO_FAR_AHEAD"]]
    late = await shop.rows(sa.select(events.c.late).where(events.c.source == "test").order_by(events.c.position))
    assert late == [(False,), (True,), (False,)]


async def test_events_keep_their_order_in_the_log(shop: Shop) -> None:
    results = await shop.record(*(event(f"person {n % 7}", external_id=f"{n:05}") for n in reversed(range(1_203))))
    order = [
        row[0] for row in await shop.rows(sa.select(events.c.id).where(events.c.source == "test").order_by(events.c.position))
    ]
    assert order == [result.event_id for result in results]
    positions = [row[0] for row in await shop.rows(sa.select(events.c.position).order_by(events.c.position))]
    assert positions == list(range(1, 1_203 + 7 + 1))


# ---- what is refused


BAD: list[tuple[dict[str, Any], str, tuple[str, ...]]] = [
    ({"type": "Order"}, "INVALID_TYPE", ("type",)),
    ({"type": "order.paid.twice"}, "INVALID_TYPE", ("type",)),
    ({"type": "a." + "b" * 99}, "INVALID_TYPE", ("type",)),
    ({"type": "user.merged"}, "RESERVED_TYPE", ("type",)),
    ({"type": "key.revoked"}, "RESERVED_TYPE", ("type",)),
    ({"source": "core"}, "RESERVED_SOURCE", ("source",)),
    ({"source": "mutation:redeem"}, "RESERVED_SOURCE", ("source",)),
    ({"source": "plugin:loyalty"}, "RESERVED_SOURCE", ("source",)),
    ({"source": "config:loyalty"}, "RESERVED_SOURCE", ("source",)),
    ({"source": "job:tiers"}, "RESERVED_SOURCE", ("source",)),
    ({"source": " "}, "INVALID_KEY", ("source",)),
    ({"external_id": ""}, "INVALID_KEY", ("externalId",)),
    ({"external_id": "x" * 201}, "INVALID_KEY", ("externalId",)),
    ({"external_id": "a\x00b"}, "INVALID_TEXT", ("externalId",)),
    ({"identity": None}, "MISSING_USER", ("identity",)),
    ({"identity": IdentityRef("wecom", "")}, "INVALID_IDENTITY", ("identity", "externalId")),
    ({"identity": IdentityRef("wecom", " NULL ")}, "INVALID_IDENTITY", ("identity", "externalId")),
    ({"identity": IdentityRef("wecom", "0")}, "INVALID_IDENTITY", ("identity", "externalId")),
    ({"identity": IdentityRef("wecom", "undefined")}, "INVALID_IDENTITY", ("identity", "externalId")),
    ({"identity": IdentityRef("wecom", "x" * 201)}, "INVALID_IDENTITY", ("identity", "externalId")),
    ({"union_id": "null"}, "INVALID_IDENTITY", ("unionId",)),
    ({"user_id": new_id()}, "INVALID_IDENTITY", ("identity",)),
    ({"identity": None, "user_id": new_id(), "union_id": "u"}, "INVALID_IDENTITY", ("unionId",)),
    ({"identity": IdentityRef("wecom", "\ud800")}, "INVALID_TEXT", ("identity", "externalId")),
    ({"identity": IdentityRef("nowhere", "ann")}, "UNKNOWN_CHANNEL", ("identity", "channel")),
    ({"channel": "nowhere"}, "UNKNOWN_CHANNEL", ("channel",)),
    ({"identity": None, "user_id": new_id()}, "UNKNOWN_USER", ("userId",)),
    ({"occurred_at": datetime(2026, 1, 1)}, "INVALID_TIME", ("occurredAt",)),  # noqa: DTZ001  # that is what is refused
    ({"occurred_at": datetime(1899, 12, 31, tzinfo=UTC)}, "INVALID_TIME", ("occurredAt",)),
    ({"amount_minor": -1, "currency": "CNY"}, "INVALID_AMOUNT", ("amount", "amountMinor")),
    ({"amount_minor": 10**15 + 1, "currency": "CNY"}, "INVALID_AMOUNT", ("amount", "amountMinor")),
    ({"amount_minor": True, "currency": "CNY"}, "INVALID_AMOUNT", ("amount", "amountMinor")),
    ({"amount_minor": 1, "currency": "rmb"}, "INVALID_CURRENCY", ("amount", "currency")),
    ({"amount_minor": 1}, "INVALID_CURRENCY", ("amount", "currency")),
    ({"currency": "CNY"}, "INVALID_AMOUNT", ("amount",)),
    ({"properties": []}, "INVALID_PROPERTIES", ("properties",)),
    ({"properties": {"a": {"b\x00": 1}}}, "INVALID_TEXT", ("properties",)),
    ({"properties": {"a": ["\udfff"]}}, "INVALID_TEXT", ("properties",)),
    ({"properties": {"a": float("nan")}}, "INVALID_PROPERTIES", ("properties",)),
    ({"properties": {"a": 2**64}}, "INVALID_PROPERTIES", ("properties",)),
    ({"properties": {"a": "x" * 65_536}}, "INVALID_PROPERTIES", ("properties",)),
    ({"properties": {"page": 7}}, "INVALID_PROPERTIES", ("properties", "page")),
    ({"type": "order.paid"}, "INVALID_PROPERTIES", ("properties", "orderId")),
    ({"type": "order.paid", "properties": {"orderId": ""}}, "INVALID_PROPERTIES", ("properties", "orderId")),
    (
        {"type": "order.paid", "properties": {"orderId": "1", "items": [{"sku": 1}]}},
        "INVALID_PROPERTIES",
        ("properties", "items", "0", "sku"),
    ),
]


async def test_one_bad_item_never_takes_others_down(shop: Shop) -> None:
    """Every refusal between two good events, all in one batch."""
    items = [event(who="good")]
    for change, _, _ in BAD:
        items += [event(who="stranger", **change), event(who="good")]
    results = await shop.record(*items)
    refused = [[(error.code, error.path) for error in result.errors] for result in results[1::2]]
    assert refused == [[(code, path)] for _, code, path in BAD]
    assert set(statuses(results[1::2])) == {"REJECTED"}
    assert set(statuses(results[0::2])) == {"ACCEPTED"}
    assert [result.index for result in results] == list(range(len(items)))
    assert await shop.types() == ["user.created"] + ["page.viewed"] * (len(BAD) + 1)


async def test_every_problem_of_an_item_is_told(shop: Shop) -> None:
    results = await shop.record(event(type="nonsense", source="core", amount_minor=1, properties={"a": float("inf")}))
    assert codes(results) == [["INVALID_TYPE", "RESERVED_SOURCE", "INVALID_CURRENCY", "INVALID_PROPERTIES"]]


async def test_an_item_that_is_no_event_is_answered_in_its_place(shop: Shop) -> None:
    problem = UserError("INVALID_JSON", "no")
    results = await shop.record(event(), Undecoded((problem,)), event(), first=10)
    assert [(result.index, result.status.value, result.errors) for result in results] == [
        (10, "ACCEPTED", ()),
        (11, "REJECTED", (problem,)),
        (12, "ACCEPTED", ()),
    ]


async def test_types_that_nobody_registered_are_kept_and_those_without_user_need_none(shop: Shop) -> None:
    shop.ingest = Ingest(shop.db, SETTINGS, {**TYPES, "sky.seen": EventType("sky.seen", "", without_user=True)})
    results = await shop.record(
        event(type="thing.done", properties={"any": [1]}), event(None, type="sky.seen"), event(None, type="thing.done")
    )
    assert codes(results) == [[], [], ["MISSING_USER"]]
    assert (await shop.rows(sa.select(events.c.user_id).where(events.c.type == "sky.seen"))) == [(None,)]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"type": "bad"}, "INVALID_TYPE"),
        ({"identity": IdentityRef("nowhere", "x")}, "UNKNOWN_CHANNEL"),
        ({"external_id": "taken"}, "IDEMPOTENCY_CONFLICT"),
    ],
)
async def test_reject_everything_records_nothing(shop: Shop, bad: dict[str, Any], code: str) -> None:
    first = event(external_id="taken")
    await shop.record(first)
    results = await shop.record(event("new"), first, event("new", **bad), policy="REJECT_EVERYTHING")
    assert codes(results) == [["BATCH_REJECTED"], ["BATCH_REJECTED"], [code]]
    assert set(statuses(results)) == {"REJECTED"}
    assert await shop.types() == ["user.created", "page.viewed"]
    assert statuses(await shop.record(event("new"), first, policy="REJECT_EVERYTHING")) == ["ACCEPTED", "DUPLICATE"]


async def test_no_items_are_no_work(shop: Shop) -> None:
    assert await shop.record() == []
    assert await shop.record(policy="REJECT_EVERYTHING") == []


# ---- once is once


async def test_a_repeat_is_answered_with_the_first_and_changes_nothing(shop: Shop) -> None:
    said = event(properties={"a": 1, "b": {"c": 2, "d": [3]}}, occurred_at=datetime.fromisoformat("2026-05-01T08:00:00+08:00"))
    [first] = await shop.record(said)
    same = replace(
        said,
        properties={"b": {"d": [3], "c": 2}, "a": 1},
        occurred_at=datetime.fromisoformat("2026-05-01T00:00:00Z"),
        channel="wecom",
    )
    [again] = await shop.record(same)
    assert (again.status.value, again.event_id) == ("DUPLICATE", first.event_id)
    assert await shop.types() == ["user.created", "page.viewed"]


@pytest.mark.parametrize(
    "change",
    [
        {"type": "thing.done"},
        {"identity": IdentityRef("wecom", "bob")},
        {"identity": IdentityRef("mini", "ann"), "channel": "wecom"},
        {"union_id": "u"},
        {"channel": "store"},
        {"occurred_at": NOW},
        {"amount_minor": 2},
        {"currency": "USD"},
        {"properties": {"n": 2}},
    ],
)
async def test_the_same_key_with_other_content_is_a_conflict(shop: Shop, change: dict[str, Any]) -> None:
    said = event(amount_minor=1, currency="CNY", properties={"n": 1})
    other = replace(said, **change)
    results = await shop.record(said, other)
    assert codes(results) == [[], ["IDEMPOTENCY_CONFLICT"]]
    assert codes(await shop.record(other, said)) == [["IDEMPOTENCY_CONFLICT"], []]
    assert await shop.types() == ["user.created", "page.viewed"]
    assert await shop.rows(sa.select(identities.c.external_id, identities.c.union_id)) == [("ann", None)]


async def test_the_same_key_of_another_source_is_another_event(shop: Shop) -> None:
    said = event()
    assert statuses(await shop.record(said, replace(said, source="other"))) == ["ACCEPTED", "ACCEPTED"]


async def test_repeats_inside_one_batch(shop: Shop) -> None:
    said = event()
    lost = event("x", identity=IdentityRef("nowhere", "x"))
    found = replace(lost, identity=IdentityRef("wecom", "x"))
    results = await shop.record(said, said, replace(said, properties={"n": 2}), lost, lost, found, lost, found)
    assert statuses(results) == [
        *("ACCEPTED", "DUPLICATE", "REJECTED"),
        *("REJECTED", "REJECTED", "ACCEPTED", "REJECTED", "DUPLICATE"),
    ]
    assert codes(results)[2:] == [
        *(["IDEMPOTENCY_CONFLICT"], ["UNKNOWN_CHANNEL"], ["UNKNOWN_CHANNEL"]),
        *([], ["IDEMPOTENCY_CONFLICT"], []),
    ]
    assert results[1].event_id == results[0].event_id
    assert results[7].event_id == results[5].event_id


async def test_a_repeat_for_somebody_who_is_gone_is_still_a_repeat(shop: Shop) -> None:
    await shop.record(event("ann"))
    ann = await shop.owner("wecom", "ann")
    said = event(None, user_id=ann)
    [first] = await shop.record(said)
    await shop.db.write(lambda tx: tx.execute(users.update().values(erased_at=NOW)))
    [again, new, other] = await shop.record(said, event(None, user_id=ann), event(None, user_id=new_id()))
    assert (again.status.value, again.event_id) == ("DUPLICATE", first.event_id)
    assert codes([new, other]) == [["USER_ERASED"], ["UNKNOWN_USER"]]
    assert new.errors[0].path == ("userId",)


async def test_the_same_key_at_once_is_accepted_once(shop: Shop) -> None:
    said = event("ann")
    other = replace(said, identity=IdentityRef("wecom", "bob"))
    answers = await shop.all_at_once(*([said if n % 2 == 0 else other] for n in range(20)))
    by_status = sorted(status for results in answers for status in statuses(results))
    assert by_status == ["ACCEPTED"] + ["DUPLICATE"] * 9 + ["REJECTED"] * 10
    assert await shop.types() == ["user.created", "page.viewed"]
    assert await shop.count(users) == 1


async def test_overlapping_batches_in_any_order_are_recorded_once(shop: Shop) -> None:
    items = [event(f"person {n}", external_id=f"overlap {n}") for n in range(60)]
    batches = [items if n % 2 == 0 else items[::-1] for n in range(6)]
    answers = await shop.all_at_once(*batches)
    found = sorted(status for results in answers for status in statuses(results))
    assert found == ["ACCEPTED"] * 60 + ["DUPLICATE"] * 300
    assert await shop.count(users) == 60
    assert len(await shop.types()) == 120


# ---- the lowest layer


def test_a_digest_is_of_the_value_and_not_of_its_writing() -> None:
    assert digest_of({"a": 1, "b": [1, {"c": 2, "d": 3}]}) == digest_of({"b": [1, {"d": 3, "c": 2}], "a": 1})
    assert digest_of({"a": [1, 2]}) != digest_of({"a": [2, 1]})
    assert len(digest_of(None)) == 32


async def test_append_answers_what_is_taken_with_what_is_there(database: Database) -> None:
    first = core_event("user.updated", None, {"fields": ["a"]}, NOW, SETTINGS.zone, key="k")
    second = core_event("user.updated", None, {"fields": ["b"]}, NOW, SETTINGS.zone, key="k")
    third = core_event("user.updated", None, {"fields": ["c"]}, NOW, SETTINGS.zone)
    assert await database.write(append, []) == []
    [one] = await database.write(append, [first])
    assert (one.event_id, one.inserted, one.digest) == (first.id, True, first.digest)
    [two, three, four] = await database.write(append, [second, third, third])
    assert (two.event_id, two.inserted, two.digest) == (first.id, False, first.digest)
    assert (three.event_id, three.inserted, three.digest) == (third.id, True, third.digest)
    assert four.event_id == third.id
