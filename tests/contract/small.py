"""A few rows with known ids, small enough to work out answers by hand."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.channels.models import channels
from scrm.db import Database, Tx
from scrm.events.models import events
from scrm.migrate import upgrade
from scrm.tags.models import tag_groups, tags, user_tags
from scrm.users.models import identities, users
from tests.contract.plugin_for_reads import note_table
from tests.contract.world import TODAY, ZONE, plugins

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)


def key(kind: int, number: int) -> uuid.UUID:
    """The same on every engine and run: `kind` in front, `number` behind."""
    return uuid.UUID(int=(kind << 120) + number)


CHANNEL, USER, IDENTITY, GROUP, TAG, EVENT, NOTE = range(1, 8)


def _user(number: int, name: str | None, day: int, **more: Any) -> dict[str, Any]:
    at = JANUARY + timedelta(days=day)
    return {"id": key(USER, number), "display_name": name, "created_at": at, "updated_at": at, "attributes": {}} | more


def _event(
    number: int,
    kind: str,
    user: int | None,
    channel: int | None,
    at: datetime,
    amount: int | None = None,
    currency: str | None = None,
    **more: Any,
) -> Any:
    return {
        "id": key(EVENT, number),
        "position": number,
        "type": kind,
        "user_id": user and key(USER, user),
        "recorded_user_id": user and key(USER, user),
        "channel_id": channel and key(CHANNEL, channel),
        "occurred_at": at,
        "received_at": TODAY,
        "business_date": at.astimezone(ZONE).date(),
        "amount_minor": amount,
        "currency": currency,
        "properties": {},
        "source": "shop",
        "external_id": f"e{number}",
        "late": False,
        "digest": "d",
        "depth": 0,
        "backfill": False,
    } | more


def _note(number: int, user: int, rank: int, **more: Any) -> dict[str, Any]:
    return {"id": key(NOTE, number), "user_id": key(USER, user), "rank": rank, "mood": "GLAD"} | more


def _at(month: int, day: int, hour: int = 0) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


ROWS: list[tuple[sa.Table, list[dict[str, Any]]]] = [
    (
        channels,
        [
            {
                "id": key(CHANNEL, 1),
                "key": "oa",
                "name": "公众号",
                "kind": "WECHAT_OA",
                "role": "MAIN",
                "enabled": True,
                "config": {"app": "wx"},
            },
            {
                "id": key(CHANNEL, 2),
                "key": "poster",
                "name": "海报",
                "kind": "OTHER",
                "role": "AUXILIARY",
                "enabled": True,
                "config": {},
                "parent_id": key(CHANNEL, 1),
            },
            {
                "id": key(CHANNEL, 3),
                "key": "store",
                "name": "Store",
                "kind": "STORE",
                "role": "AUXILIARY",
                "enabled": False,
                "config": {},
            },
        ],
    ),
    (
        users,
        [
            _user(
                1,
                "李雷",
                0,
                phone="+8613800000001",
                gender="FEMALE",
                birthday=date(1990, 3, 12),
                city="上海",
                acquisition_channel_id=key(CHANNEL, 2),
                attributes={"vip": True, "n": 10, "secret": "x"},
                last_seen_at=_at(3, 9, 17),
            ),
            _user(
                2,
                'O\'Brien "B"',
                1,
                gender="MALE",
                birthday=date(1992, 2, 29),
                acquisition_channel_id=key(CHANNEL, 1),
                attributes={"n": 9007199254740993, "day": "2026-01-05"},
                last_seen_at=_at(3, 3),
            ),
            _user(3, None, 1, city="上海", attributes={"vip": "true", "n": "10", "day": "soon"}),
            _user(4, "merged", 2, merged_into=key(USER, 1)),
            _user(5, "erased", 2, erased_at=_at(2, 1)),
            _user(
                6,
                "😀",
                3,
                city="北京",
                email="e@x.cn",
                attributes={"n": 1.5, "day": "2026-03-01T10:00:00Z", "deep": {"a": [1, None, "\"'"]}},
                last_seen_at=_at(3, 3),
            ),
        ],
    ),
    (
        identities,
        [
            {
                "id": key(IDENTITY, 1),
                "user_id": key(USER, 1),
                "channel_id": key(CHANNEL, 1),
                "external_id": "open-1",
                "union_id": "union-1",
                "linked_at": JANUARY,
            },
            {
                "id": key(IDENTITY, 2),
                "user_id": key(USER, 1),
                "channel_id": key(CHANNEL, 3),
                "external_id": "s'1",
                "linked_at": _at(1, 2),
            },
            {
                "id": key(IDENTITY, 3),
                "user_id": key(USER, 2),
                "channel_id": key(CHANNEL, 1),
                "external_id": "open-2",
                "linked_at": _at(1, 2),
            },
        ],
    ),
    (tag_groups, [{"id": key(GROUP, 1), "key": "level", "name": "级别", "exclusive": True}]),
    (
        tags,
        [
            {"id": key(TAG, 1), "key": "gold", "name": "金卡", "kind": "BASIC", "group_id": key(GROUP, 1), "archived": False},
            {"id": key(TAG, 2), "key": "vip", "name": "VIP", "kind": "BEHAVIOR", "archived": False},
            {"id": key(TAG, 3), "key": "old", "name": "old", "kind": "INTENT", "archived": True},
        ],
    ),
    (
        user_tags,
        [
            {
                "user_id": key(USER, 1),
                "tag_id": key(TAG, 1),
                "source": "MANUAL",
                "actor": "eve",
                "reason": "it's",
                "tagged_at": _at(2, 1),
            },
            {"user_id": key(USER, 1), "tag_id": key(TAG, 2), "source": "RULE", "tagged_at": _at(2, 2), "expires_at": TODAY},
            {
                "user_id": key(USER, 2),
                "tag_id": key(TAG, 2),
                "source": "RULE",
                "tagged_at": _at(2, 2),
                "expires_at": TODAY + timedelta(microseconds=1),
            },
            {"user_id": key(USER, 2), "tag_id": key(TAG, 1), "source": "IMPORT", "tagged_at": _at(2, 3)},
            {"user_id": key(USER, 6), "tag_id": key(TAG, 3), "source": "PLUGIN", "tagged_at": _at(2, 3)},
        ],
    ),
    (
        events,
        [
            _event(1, "order.paid", 1, 2, _at(3, 9, 2), 10_000, "CNY", properties={"orderId": "o1", "n": 3}),
            _event(2, "order.refunded", 1, 2, _at(3, 9, 17), 2_500, "CNY"),
            _event(3, "order.paid", 2, 1, _at(3, 1), 500, "USD"),
            _event(4, "order.paid", 2, 1, _at(3, 2), 10**15, "CNY"),
            _event(5, "order.paid", 2, 1, _at(3, 2), 9_007_199_254_740_993, "CNY", properties={"n": 4}),
            _event(6, "message.received", 6, 3, datetime(2025, 11, 1, tzinfo=UTC), late=True, source="pos"),
            _event(7, "site.visited", None, None, _at(3, 3), properties={"a": {"b": [True, None]}}),
            _event(8, "user.unfollowed", 6, 1, _at(3, 3)),
        ],
    ),
    (
        note_table,
        [
            _note(1, 1, 1, score=2**53, weight=0.1, label="b", pinned=True, day=date(2026, 1, 1)),
            _note(2, 1, 2, score=-5, label="B", pinned=False),
            _note(3, 2, 1, weight=0.3333333333333333, mood="SORE", data=[None, {"x": "'"}]),
            _note(4, 1, 2, score=2**53 - 1, label="😀", written_at=_at(3, 1)),
            _note(5, 1, 3, score=0, label="é"),
        ],
    ),
]


async def build(url: str) -> None:
    """Make the rows in an empty database."""
    await upgrade(url, plugins(url))
    database = Database(url)

    def insert(tx: Tx) -> None:
        for table, rows in ROWS:
            defaults = {"created_at": JANUARY} if "created_at" in table.c else {}
            for row in rows:
                tx.execute(sa.insert(table).values(defaults | row))

    try:
        await database.write(insert)
    finally:
        await database.close()
