"""Recording events: what is refused, what is a repeat, whose an event is, and that races end as if there had been none."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from scrm.channels.models import channels
from scrm.config import Settings
from scrm.db import Database, Tx, new_id
from scrm.errors import UserError
from scrm.events.checks import Checked, Checker
from scrm.events.ingest import Batch, Ingest, Undecoded, record_batch
from scrm.events.log import Entry, append, core_event, core_event_types, digest_of
from scrm.events.models import events
from scrm.events.owners import Claim, Terms, resolve
from scrm.events.records import IdentityRef, NewEvent, RecordResult
from scrm.events.sequencer import head, sequence
from scrm.plugin import EventType
from scrm.users.merging import merge
from scrm.users.models import identities, merge_suggestions, users
from scrm.users.service import find_users

NOW = datetime(2026, 6, 1, 4, 0, tzinfo=UTC)
TYPES = {known.name: known for known in core_event_types}
SETTINGS = Settings()
numbers = itertools.count()


class Shop:
    """A database with some channels, and a way to record into it."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.ingest = Ingest(db, SETTINGS, TYPES)

    async def record(self, *items: NewEvent | Undecoded, **options: Any) -> list[RecordResult]:
        return await self.ingest.record(items, **options)

    async def rows(self, statement: sa.Select[Any]) -> list[tuple[Any, ...]]:
        return await self.db.read(lambda tx: [tuple(row) for row in tx.rows(statement)])

    async def count(self, table: sa.Table) -> int:
        return int((await self.rows(sa.select(sa.func.count()).select_from(table)))[0][0])

    async def all_at_once(self, *batches: Sequence[NewEvent]) -> list[list[RecordResult]]:
        """Record batches together, on connections that are open already: opening them would make the batches take turns."""
        await asyncio.gather(*(self.db.read(head) for _ in range(10)))
        return list(await asyncio.gather(*(self.record(*batch) for batch in batches)))

    async def types(self) -> list[str]:
        return [row[0] for row in await self.rows(sa.select(events.c.type).order_by(events.c.position))]

    async def owner(self, channel: str, external_id: str) -> uuid.UUID:
        found = await self.rows(
            sa.select(identities.c.user_id)
            .join(channels, channels.c.id == identities.c.channel_id)
            .where(channels.c.key == channel, identities.c.external_id == external_id)
        )
        owner: uuid.UUID = found[0][0]
        return owner


def make_channels(tx: Tx) -> None:
    ids = {key: new_id() for key in ("wecom", "mini", "store", "code-a", "code-b")}
    for key, channel_id in ids.items():
        parent = ids["wecom"] if key.startswith("code") else None
        row = {"id": channel_id, "key": key, "name": key, "kind": "OTHER", "role": "MAIN", "enabled": True, "config": {}}
        tx.execute(channels.insert().values(**row, parent_id=parent, created_at=NOW))


@pytest.fixture
async def shop(database: Database) -> Shop:
    database.clock = lambda: NOW
    await database.write(make_channels)
    return Shop(database)


def event(who: str | None = "ann", **said: Any) -> NewEvent:
    """An event of its own; `who` is an id on the channel `wecom`."""
    full = {
        "type": "page.viewed",
        "source": "test",
        "external_id": f"key {next(numbers)}",
        "occurred_at": NOW - timedelta(hours=1),
        "identity": IdentityRef("wecom", who) if who is not None else None,
    }
    return NewEvent(**{**full, **said})


def codes(results: Sequence[RecordResult]) -> list[list[str]]:
    return [[error.code for error in result.errors] for result in results]


def statuses(results: Sequence[RecordResult]) -> list[str]:
    return [result.status.value for result in results]


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
    [again, new] = await shop.record(said, event(None, user_id=ann))
    assert (again.status.value, again.event_id) == ("DUPLICATE", first.event_id)
    assert codes([new]) == [["UNKNOWN_USER"]]


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


# ---- whose


async def test_an_unknown_identity_becomes_a_user_once(shop: Shop) -> None:
    await shop.record(event("ann", channel="code-a"), event("ann", channel="code-b"))
    await shop.record(event("ann", channel="mini"))
    ann = await shop.owner("wecom", "ann")
    key = sa.select(channels.c.key).where(channels.c.id == users.c.acquisition_channel_id).scalar_subquery()
    assert await shop.rows(sa.select(users.c.id, key, users.c.created_at)) == [(ann, "code-a", NOW)]
    assert await shop.types() == ["user.created"] + ["page.viewed"] * 3
    assert set(await shop.rows(sa.select(events.c.user_id, events.c.recorded_user_id))) == {(ann, ann)}


async def test_identities_belong_to_the_root_of_their_channel(shop: Shop) -> None:
    await shop.record(event(identity=IdentityRef("code-a", "ann")), event(identity=IdentityRef("code-b", "ann")), event(" ann "))
    found = await shop.rows(
        sa.select(channels.c.key, identities.c.external_id).join(channels, channels.c.id == identities.c.channel_id)
    )
    assert found == [("wecom", "ann")]
    said = await shop.rows(
        sa.select(channels.c.key)
        .join_from(events, channels, channels.c.id == events.c.channel_id)
        .where(events.c.source == "test")
        .order_by(events.c.position)
    )
    assert said == [("code-a",), ("code-b",), ("wecom",)]


async def test_the_same_new_identity_at_once_is_one_user(shop: Shop) -> None:
    answers = await shop.all_at_once(*([event("ann"), event(f"other {n}")] for n in range(20)))
    assert {status for results in answers for status in statuses(results)} == {"ACCEPTED"}
    assert await shop.count(users) == 21
    assert await shop.count(identities) == 21
    ann = await shop.owner("wecom", "ann")
    assert len(await shop.rows(sa.select(events.c.id).where(events.c.user_id == ann, events.c.source == "test"))) == 20
    assert (await shop.types()).count("user.created") == 21


async def test_unknown_identities_may_be_refused(shop: Shop) -> None:
    await shop.record(event("ann", union_id="u"))
    results = await shop.record(
        event("bob"),
        event("ann"),
        event("x", identity=IdentityRef("mini", "a2"), union_id="u"),
        event("y", identity=IdentityRef("mini", "b2"), union_id="nobody's"),
        create_users=False,
    )
    assert codes(results) == [["UNKNOWN_IDENTITY"], [], [], ["UNKNOWN_IDENTITY"]]
    assert await shop.count(users) == 1
    assert await shop.owner("mini", "a2") == await shop.owner("wecom", "ann")


async def test_a_user_is_named_by_id_and_a_merged_one_is_the_survivor(shop: Shop) -> None:
    await shop.record(event("ann"), event("bob"), event("cyd"))
    ann, bob, cyd = [await shop.owner("wecom", who) for who in ("ann", "bob", "cyd")]
    for kept, absorbed in ((bob, cyd), (ann, bob)):
        await shop.db.write(merge, kept, absorbed, reason="test", at=NOW, actor="test", zone=SETTINGS.zone)
    assert await shop.db.read(find_users, [ann, bob, cyd]) == {ann: ann, bob: ann, cyd: ann}
    [result] = await shop.record(event(None, user_id=cyd))
    row = await shop.rows(sa.select(events.c.user_id, events.c.recorded_user_id).where(events.c.id == result.event_id))
    assert row == [(ann, ann)]


# ---- union ids


async def test_a_known_union_id_attaches_to_its_user(shop: Shop) -> None:
    await shop.record(event("ann", union_id="u"))
    await shop.record(event(identity=IdentityRef("mini", "m"), union_id="u"))
    assert await shop.owner("mini", "m") == await shop.owner("wecom", "ann")
    assert await shop.types() == ["user.created", "page.viewed", "identity.linked", "page.viewed"]
    linked = await shop.rows(sa.select(events.c.properties).where(events.c.type == "identity.linked"))
    assert linked == [({"channel": "mini"},)]


async def test_a_union_id_of_two_new_identities_in_one_batch_is_one_person(shop: Shop) -> None:
    await shop.record(
        event("ann"),
        event(identity=IdentityRef("mini", "m"), union_id="u"),
        event("ann", union_id="u"),
        event(identity=IdentityRef("store", "s"), union_id="u"),
    )
    assert await shop.count(users) == 1
    assert set(await shop.rows(sa.select(identities.c.external_id, identities.c.union_id))) == {
        *(("ann", "u"), ("m", "u"), ("s", "u")),
    }
    assert (await shop.types()).count("user.created") == 1


async def test_the_same_new_union_id_at_once_is_one_person(shop: Shop) -> None:
    await shop.all_at_once(*([event(f"w{n}", union_id="u")] for n in range(20)))
    assert await shop.count(users) == 1
    assert await shop.count(identities) == 20


async def test_a_union_id_reported_later_is_remembered(shop: Shop) -> None:
    await shop.record(event("ann"))
    await shop.record(event("ann", union_id="u"), event("ann"))
    await shop.record(event("ann"))
    assert await shop.rows(sa.select(identities.c.union_id)) == [("u",)]
    assert await shop.types() == ["user.created"] + ["page.viewed"] * 4


async def test_an_identity_that_reports_anothers_union_id_merges_the_two(shop: Shop) -> None:
    """The mini-program first, followed on WeCom a week later."""
    await shop.record(event(identity=IdentityRef("mini", "m")), event("zoe"))
    older = await shop.owner("mini", "m")
    await shop.record(event("ann", union_id="u"))
    younger = await shop.owner("wecom", "ann")
    assert older != younger
    results = await shop.record(event("zoe"), event(identity=IdentityRef("mini", "m"), union_id="u"), event("ann"))
    assert statuses(results) == ["ACCEPTED"] * 3
    assert [await shop.owner("mini", "m"), await shop.owner("wecom", "ann")] == [older, older]
    assert await shop.rows(sa.select(users.c.merged_into).where(users.c.id == younger)) == [(older,)]
    assert (await shop.types())[-4:] == ["user.merged"] + ["page.viewed"] * 3
    ids = [result.event_id for result in results]
    owners = await shop.rows(sa.select(events.c.recorded_user_id).where(events.c.id.in_(ids)).order_by(events.c.position))
    assert owners == [(await shop.owner("wecom", "zoe"),), (older,), (older,)]


async def test_three_users_of_one_union_id_become_one(shop: Shop) -> None:
    await shop.record(event("a"), event("b"), event("c"))
    oldest = await shop.owner("wecom", "a")
    await shop.record(event("c", union_id="u"), event("b", union_id="u"), event("a", union_id="u"))
    assert [await shop.owner("wecom", who) for who in "abc"] == [oldest] * 3
    assert (await shop.types()).count("user.merged") == 2


async def test_without_auto_merge_the_two_are_only_suggested(shop: Shop) -> None:
    shop.ingest = Ingest(shop.db, Settings(auto_merge=False), TYPES)
    await shop.record(event("ann"))
    await shop.record(event("bob", union_id="u"))
    ann, bob = await shop.owner("wecom", "ann"), await shop.owner("wecom", "bob")
    for _ in range(2):
        assert statuses(await shop.record(event("ann", union_id="u"))) == ["ACCEPTED"]
    assert await shop.owner("wecom", "ann") == ann
    [pair] = await shop.rows(sa.select(merge_suggestions.c.user_id, merge_suggestions.c.other_id))
    assert set(pair) == {ann, bob}
    assert "user.merged" not in await shop.types()


async def test_merges_at_once_with_events_keep_every_event_and_its_owner(shop: Shop) -> None:
    """Whoever appends after a merge names the survivor: an event's recorded owner is who it was at its position."""
    await shop.record(*(event(f"p{n}") for n in range(10)))
    noise = [[event(f"p{m}") for m in range(10)] for _ in range(10)]
    joins = [[event(f"p{n}", union_id="u")] for n in range(10)]
    answers = await shop.all_at_once(*itertools.chain.from_iterable(zip(noise, joins, strict=True)))
    assert {status for results in answers for status in statuses(results)} == {"ACCEPTED"}
    log = await shop.rows(sa.select(events.c.type, events.c.recorded_user_id, events.c.properties).order_by(events.c.position))
    absorbed: set[str] = set()
    for kind, owner, properties in log:
        assert owner.hex not in absorbed or kind.startswith("user.")
        if kind == "user.merged":
            absorbed.add(properties["absorbed"].removeprefix("User_"))
    assert len(absorbed) == 9
    oldest = await shop.owner("wecom", "p0")
    assert set(await shop.rows(sa.select(identities.c.user_id))) == {(oldest,)}


# ---- what a second transaction must wait for (SQLite has one writer, so there is no second)


@asynccontextmanager
async def open_transaction(db: Database) -> AsyncIterator[AsyncConnection]:
    """A transaction of somebody else, committed at the end."""
    if db.dialect == "sqlite":
        pytest.skip("one writer")
    engine = create_async_engine(db.url)
    async with engine.begin() as connection:
        yield connection
    await engine.dispose()


async def waits(db: Database, task: asyncio.Task[Any]) -> bool:
    """Whether the task comes to wait for a lock, or goes through without."""
    blocked = sa.text("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'")
    while not task.done():
        if await db.read(lambda tx: tx.scalar(blocked)):
            return True
    return False


async def test_who_meets_a_new_union_id_waits_for_who_met_it_first(shop: Shop) -> None:
    terms = Terms(NOW, SETTINGS.zone, auto_merge=True, exclusive=False)
    root, key = (await shop.rows(sa.select(channels.c.id, channels.c.key).where(channels.c.key == "mini")))[0]
    async with open_transaction(shop.db) as other:
        claims = [Claim((root, "m"), "u", key, root)]
        await other.run_sync(lambda sync: resolve(Tx(sync), claims, terms))
        task = asyncio.create_task(shop.record(event("ann", union_id="u")))
        assert await waits(shop.db, task)
    assert statuses(await task) == ["ACCEPTED"]
    assert await shop.count(users) == 1


async def test_a_merge_waits_for_who_looked_up_owners_before_it(shop: Shop) -> None:
    """Or an event of the absorbed user would come after the merge in the log."""
    await shop.record(event("ann"), event("bob"))
    ann, bob = await shop.owner("wecom", "ann"), await shop.owner("wecom", "bob")
    checked = Checker(SETTINGS, TYPES).check(0, event("bob", external_id="slow"), NOW)
    assert isinstance(checked, Checked)
    batch = Batch(NOW, 1, (checked,), {}, all_or_nothing=False, create_users=True)
    terms = Terms(NOW, SETTINGS.zone, auto_merge=True, exclusive=False)
    async with open_transaction(shop.db) as other:
        await other.run_sync(lambda sync: record_batch(Tx(sync), batch, terms))
        merging = shop.db.write(merge, ann, bob, reason="test", at=NOW, actor="test", zone=SETTINGS.zone)
        task = asyncio.create_task(merging)
        assert await waits(shop.db, task)
        await sequence(shop.db)
    await task
    await sequence(shop.db)
    log = await shop.rows(sa.select(events.c.type, events.c.recorded_user_id, events.c.user_id).order_by(events.c.position))
    assert log[-2:] == [("page.viewed", bob, ann), ("user.merged", ann, ann)]


async def test_of_two_that_wait_for_each_other_the_loser_tries_again(shop: Shop) -> None:
    await shop.record(event("ann"))
    one, two = (core_event("user.updated", None, {}, NOW, SETTINGS.zone, key=key) for key in ("one", "two"))
    both = [event("ann", external_id=key) for key in ("one", "two")]

    def take(sync: sa.Connection, entry: Entry) -> None:
        sync.execute(sa.text("set local deadlock_timeout = '1min'"))
        append(Tx(sync), [msgspec.structs.replace(entry, source="test")])

    async with open_transaction(shop.db) as other:
        await other.run_sync(take, two)
        task = asyncio.create_task(shop.record(*both))
        assert await waits(shop.db, task)
        await other.run_sync(take, one)
    assert codes(await task) == [["IDEMPOTENCY_CONFLICT"], ["IDEMPOTENCY_CONFLICT"]]


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
