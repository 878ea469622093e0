"""The demo's data: made once, the same of the same seed, and all of it accepted."""

from __future__ import annotations

import asyncio
import stat
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from scrm.app import create_app
from scrm.auth import Keys
from scrm.config import Settings, load_settings
from scrm.db import Database, Tx
from scrm.demo import KEY_FILE, Demo, DemoOptions, prepare, queries, write_settings
from scrm.events.log import core_event_types
from scrm.events.models import events
from scrm.generator import DemoUser, generate
from scrm.models import api_keys, imports
from scrm.plugin_set import PluginSet
from scrm.tags.models import tags, user_tags
from scrm.users.models import identities, merges, users

TYPES = {type.name: type for type in core_event_types}
ZONE = ZoneInfo("Asia/Shanghai")
AS_OF = datetime(2026, 5, 1, tzinfo=ZONE)


def said(people: list[DemoUser]) -> bytes:
    """People as bytes."""
    return orjson.dumps([asdict(person) for person in people], option=orjson.OPT_SORT_KEYS)


@pytest.fixture
def settings(database: Database, tmp_path: Path) -> Settings:
    """Settings as the demo writes them, for this test's database."""
    path = tmp_path / "scrm.toml"
    assert write_settings(path) is True
    assert write_settings(path) is False
    loaded = load_settings(path)
    url = database.url.render_as_string(hide_password=False)
    changed = loaded.model_copy(update={"database_url": url})
    changed._path = loaded.path
    return changed


async def fill(db: Database, settings: Settings, people: int) -> Demo:
    """The demo with this many made-up people."""
    return await prepare(db, settings, TYPES, (), DemoOptions(users=people))


async def snapshot(db: Database) -> tuple[Any, ...]:
    """How much there is of everything, and the sum of all orders."""

    def query(tx: Tx) -> tuple[Any, ...]:
        tables = (users, identities, events, user_tags, tags, imports, api_keys, merges)
        counts = [tx.scalar(sa.select(sa.func.count()).select_from(table)) for table in tables]
        paid = tx.scalar(sa.select(sa.func.sum(events.c.amount_minor)).where(events.c.type == "order.paid"))
        return (*counts, int(paid))

    return await db.read(query)


def test_the_same_seed_makes_the_same_people() -> None:
    first = list(generate(7, 60, AS_OF, ZONE, "USD"))
    assert said(list(generate(7, 60, AS_OF, ZONE, "USD"))) == said(first)
    assert said(list(generate(7, 20, AS_OF, ZONE, "USD"))) == said(first[:20])
    assert said(list(generate(8, 60, AS_OF, ZONE, "USD"))) != said(first)


def test_made_up_people_do_what_people_do() -> None:
    people = list(generate(1, 300, AS_OF, ZONE, "USD"))
    did = [event for person in people for event in person.events]
    kinds = Counter(event.type for event in did)
    assert kinds.keys() >= {
        "user.followed", "user.unfollowed", "user.signed_up", "page.viewed", "message.received", "message.sent", "group.joined",
        "group.spoke", "content.read", "order.paid", "order.refunded", "complaint.filed",
    }  # fmt: skip
    assert {identity.channel for person in people for identity in person.profile.identities} == {
        "wecom", "mini-program", "wechat-oa", "douyin", "store",
    }  # fmt: skip
    assert len({(event.source, event.external_id) for event in did}) == len(did)
    assert max(event.occurred_at for event in did) < AS_OF
    for person in people:
        times = [event.occurred_at for event in person.events]
        assert times == sorted(times)
        unions = {identity.union_id for identity in person.profile.identities if identity.union_id}
        assert len(unions | {event.union_id for event in person.events if event.union_id}) <= 1
        paid: dict[str, Any] = {}
        for event in person.events:
            if event.type == "order.paid":
                assert event.amount_minor == sum(item["amount"] for item in event.properties["items"])
                paid[event.properties["orderId"]] = event
            elif event.type == "order.refunded":
                order = paid[event.properties["orderId"]]
                assert event.amount_minor is not None
                assert 0 < event.amount_minor <= order.amount_minor
                assert event.occurred_at > order.occurred_at
    refunds = [event for event in did if event.type == "order.refunded"]
    totals = {event.properties["orderId"]: event.amount_minor for event in did if event.type == "order.paid"}
    full = [event for event in refunds if event.amount_minor == totals[event.properties["orderId"]]]
    assert 0 < len(full) < len(refunds)
    assert any(event.union_id for event in did)


async def test_a_second_run_adds_nothing_and_keeps_the_key(database: Database, settings: Settings, tmp_path: Path) -> None:
    first = await fill(database, settings, 40)
    before = await snapshot(database)
    assert settings.currency == "USD"
    foreign = await database.read(lambda tx: tx.scalar(sa.select(sa.func.count()).where(events.c.currency != "USD")))
    assert foreign == 0
    cdnow = sa.select(sa.func.count(), sa.func.sum(events.c.amount_minor), sa.func.count(events.c.user_id.distinct()))
    row = await database.read(lambda tx: tx.execute(cdnow.where(events.c.source == "cdnow")).one())
    assert tuple(row) == (6919, 24_409_194, 2357)

    assert await fill(database, settings, 40) == first
    assert await fill(database, settings, 30) == first
    assert await snapshot(database) == before
    principal = await Keys(database, settings).authenticate(f"Bearer {first.api_key}")
    assert principal is not None
    assert principal.has("users:write")

    file = tmp_path / KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.unlink()
    assert (await fill(database, settings, 1)).api_key != first.api_key
    names = await database.read(lambda tx: [row.name for row in tx.rows(api_keys.select().order_by(api_keys.c.created_at))])
    assert names == ["demo", "demo-2"]


async def test_more_people_are_added_and_who_were_cut_off_are_finished(database: Database, settings: Settings) -> None:
    await fill(database, settings, 15)
    await fill(database, settings, 40)
    grown = await database.read(
        lambda tx: [(row.name, row.state, row.rows_read) for row in tx.rows(imports.select().order_by(imports.c.started_at))]
    )
    assert grown[1:] == [("demo people of seed 1", "DONE", 15), ("demo people of seed 1", "DONE", 40)]
    started = await database.read(lambda tx: tx.scalar(sa.select(imports.c.started_at).where(imports.c.rows_read == 15)))
    as_of = started.astimezone(settings.zone).replace(hour=0, minute=0, second=0, microsecond=0)
    made = list(generate(1, 40, as_of, settings.zone, "USD"))
    expected = sorted((event.external_id, event.occurred_at) for person in made for event in person.events)
    own = sa.select(events.c.external_id, events.c.occurred_at).where(events.c.source == "demo")
    assert sorted((row.external_id, row.occurred_at) for row in await database.read(lambda tx: tx.rows(own))) == expected
    people = sa.select(sa.func.count()).where(users.c.display_name.is_not(None), users.c.merged_into.is_(None))
    assert await database.read(lambda tx: tx.scalar(people)) == 40

    before = await snapshot(database)
    cut = imports.update().where(imports.c.rows_read == 40).values(state="RUNNING", rows_read=20)
    await database.write(lambda tx: tx.execute(cut).rowcount)
    await fill(database, settings, 40)
    assert await snapshot(database) == before


async def test_the_three_queries_are_answered(database: Database, settings: Settings) -> None:
    ready = await fill(database, settings, 120)

    def answers() -> list[Any]:
        with TestClient(create_app(settings, plugins=PluginSet())) as client:
            headers = {"Authorization": f"Bearer {ready.api_key}"}
            texts = [text for _, text in (*ready.queries, ready.queries[-1])]
            return [client.post("/graphql", json={"query": text}, headers=headers).json() for text in texts]

    people, shanghai, first, again = await asyncio.to_thread(answers)
    assert [answer for answer in (people, shanghai, first, again) if "errors" in answer] == []
    assert len(people["data"]["users"]["nodes"]) == 5
    assert all(node["tags"] and node["events"]["nodes"] for node in people["data"]["users"]["nodes"])
    assert shanghai["data"]["users"]["totalCount"] == len(shanghai["data"]["users"]["nodes"]) > 0
    assert (first["data"]["recordEvents"]["accepted"], again["data"]["recordEvents"]["duplicates"]) == (1, 1)
    assert first["data"]["recordEvents"]["results"][0]["event"] == again["data"]["recordEvents"]["results"][0]["event"]


def test_queries_ask_for_points_only_where_there_are_any() -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    without, with_points = queries((), at, "USD"), queries(("loyalty",), at, "USD")
    assert len(without) == len(with_points) == 3
    assert not any("points" in text or "waitFor" in text or "POINTS" in text or "WAIT" in text for _, text in without)
    assert all("points { balance" in text for _, text in with_points)
    assert '"2026-05-01T00:00:00.000000Z"' in without[2][1]
