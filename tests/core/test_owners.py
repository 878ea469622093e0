"""Whose an event is: identities, union ids, merges, and races that end as if there had been none."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from scrm.channels.models import channels
from scrm.config import Settings
from scrm.db import Database, Tx
from scrm.events.checks import Checked, Checker
from scrm.events.ingest import Batch, Ingest, record_batch
from scrm.events.log import Entry, append, core_event
from scrm.events.models import events
from scrm.events.owners import Claim, Terms, resolve
from scrm.events.records import IdentityRef
from scrm.events.sequencer import sequence
from scrm.users.merging import merge
from scrm.users.models import identities, merge_suggestions, users
from scrm.users.service import find_users
from tests.core.shop import NOW, SETTINGS, TYPES, Shop, codes, event, opened, statuses


@pytest.fixture
async def shop(database: Database) -> Shop:
    return await opened(database)


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
