"""Channels: the tree, whose identities are whose, and what happened where."""

from __future__ import annotations

import uuid
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.channels.models import channels
from scrm.channels.service import MAX_DEPTH, ChannelKind, create_channel, find_channel, root_of, update_channel
from scrm.channels.stats import ChannelStats, acquired, channel_stats, user_count
from scrm.db import Id
from scrm.errors import ScrmError
from scrm.models import audit_log
from scrm.users.merging import merge

Brand = Any
KINDS = [
    "WECHAT_OA",
    "WECOM",
    "MINI_PROGRAM",
    "GROUP",
    "APP",
    "SMS",
    "EMAIL",
    "DOUYIN",
    "XIAOHONGSHU",
    "WEBSITE",
    "STORE",
    "OTHER",
]


async def _make(brand: Brand, key: str, **said: Any) -> uuid.UUID:
    full = {"name": key, "kind": "OTHER", **said}
    made: uuid.UUID = await brand.db.write(create_channel, key=key, at=brand.at, actor="test", **full)
    return made


async def _change(brand: Brand, channel: uuid.UUID, **changes: Any) -> None:
    await brand.db.write(update_channel, channel, changes, at=brand.at, actor="test")


async def _refused(brand: Brand, code: str, path: tuple[str, ...], call: Any) -> None:
    before = await brand.rows(sa.select(channels).order_by(channels.c.key))
    with pytest.raises(ScrmError) as caught:
        await call
    assert (caught.value.code, caught.value.path) == (code, path)
    assert await brand.rows(sa.select(channels).order_by(channels.c.key)) == before


async def _id(brand: Brand, key: str) -> uuid.UUID:
    found: uuid.UUID = (await brand.read(find_channel, key)).id
    return found


async def test_a_channel_is_kept_as_said(brand: Brand) -> None:
    made = await _make(brand, "shop", name=" 门店 ", kind="STORE", role="AUXILIARY", enabled=False, config={"b": 1, "a": None})
    row = await brand.row(channels, made)
    assert (row["key"], row["name"], row["kind"], row["role"], row["enabled"]) == ("shop", "门店", "STORE", "AUXILIARY", False)
    assert list(row["config"].items()) == [("b", 1), ("a", None)]
    await _change(brand, made, enabled=True, name="Shop")
    row = await brand.row(channels, made)
    assert (row["name"], row["enabled"], row["kind"]) == ("Shop", True, "STORE")
    done = await brand.rows(sa.select(audit_log.c.action, audit_log.c.detail).where(audit_log.c.subject == f"Channel_{made.hex}"))
    assert done == [("channel.created", {"key": "shop"}), ("channel.updated", {"fields": ["enabled", "name"]})]


def test_every_kind_of_the_domain_is_there() -> None:
    assert list(ChannelKind) == KINDS


async def test_what_a_channel_cannot_be(brand: Brand) -> None:
    oa = await _id(brand, "oa")
    await _refused(brand, "CHANNEL_KEY_TAKEN", ("key",), _make(brand, "oa"))
    await _refused(brand, "INVALID_KEY", ("key",), _make(brand, "o a"))
    await _refused(brand, "INVALID_TEXT", ("name",), _make(brand, "x", name=""))
    await _refused(brand, "INVALID_CHANNEL_KIND", ("kind",), _make(brand, "x", kind="FAX"))
    await _refused(brand, "INVALID_CHANNEL_ROLE", ("role",), _change(brand, oa, role="BEST"))
    await _refused(brand, "INVALID_JSON", ("config",), _change(brand, oa, config=[1]))
    await _refused(brand, "INVALID_JSON", ("config",), _change(brand, oa, config={"a": float("inf")}))
    await _refused(brand, "UNKNOWN_CHANNEL", ("parent",), _make(brand, "x", parent="none"))
    await _refused(brand, "CHANNEL_NOT_FOUND", ("id",), _change(brand, uuid.uuid4(), name="x"))


async def test_a_tree_has_no_cycle_and_no_more_than_its_levels(brand: Brand) -> None:
    keys = [f"level{n}" for n in range(1, MAX_DEPTH + 1)]
    made = [await _make(brand, key, parent=parent) for key, parent in zip(keys, [None, *keys], strict=False)]
    assert [await brand.read(root_of, channel) for channel in made] == [made[0]] * MAX_DEPTH
    await _refused(brand, "CHANNEL_TOO_DEEP", ("parent",), _make(brand, "deeper", parent=keys[-1]))
    oa = await _id(brand, "oa")
    await _refused(brand, "CHANNEL_CYCLE", ("parent",), _change(brand, made[0], parent=keys[0]))
    await _refused(brand, "CHANNEL_CYCLE", ("parent",), _change(brand, made[0], parent=keys[-1]))
    await _refused(brand, "CHANNEL_TOO_DEEP", ("parent",), _change(brand, oa, parent=keys[-2]))
    await _change(brand, made[-1], parent=None)
    assert await brand.read(root_of, made[-1]) == made[-1]


async def test_a_root_with_identities_stays_a_root(brand: Brand) -> None:
    await brand.user("oa:o1")
    oa, poster = await _id(brand, "oa"), await _id(brand, "oa-poster")
    await _refused(brand, "CHANNEL_HAS_IDENTITIES", ("parent",), _change(brand, oa, parent="mini"))
    await _change(brand, poster, parent="mini")
    assert await brand.read(root_of, poster) == await _id(brand, "mini")


async def test_a_parents_numbers_include_its_childrens(brand: Brand) -> None:
    oa, poster, mini = [await _id(brand, key) for key in ("oa", "oa-poster", "mini")]
    ann, bob, eve = await brand.user("oa-poster:a"), await brand.user("oa:b"), await brand.user("mini:e")
    await brand.happen("user.followed", ann, "2026-01-10T00:00", channel=poster)
    await brand.happen("order.paid", ann, "2026-01-10T12:00", channel=poster, amount=1000, orderId="1")
    await brand.happen("order.paid", ann, "2026-01-11T12:00", channel=oa, amount=500, orderId="2")
    await brand.happen("order.paid", ann, "2026-01-11T12:00", channel=oa, amount=9_999, currency="USD", orderId="3")
    await brand.happen("order.refunded", ann, "2026-01-12T12:00", channel=poster, amount=300, orderId="1")
    await brand.happen("page.viewed", bob, "2026-01-09T23:59", channel=oa)
    await brand.happen("page.viewed", bob, "2026-01-12T23:59", channel=oa)
    await brand.happen("user.unfollowed", bob, "2026-01-12T23:59", channel=oa)
    await brand.happen("message.sent", eve, "2026-01-12T12:00", channel=mini)
    await brand.happen("order.paid", eve, "2026-01-13T00:00", channel=mini, amount=7, orderId="4")
    span = date(2026, 1, 10), date(2026, 1, 13)
    asked = {"currency": "CNY"}
    assert await brand.read(channel_stats, oa, *span, **asked) == ChannelStats(1, 1, 2, 1, 3, 1200)
    assert await brand.read(channel_stats, poster, *span, **asked) == ChannelStats(1, 0, 1, 1, 1, 700)
    assert await brand.read(channel_stats, mini, *span, **asked) == ChannelStats(1, 0, 0, 0, 0, 0)
    assert await brand.read(channel_stats, mini, date(2026, 1, 13), date(2026, 1, 14), **asked) == ChannelStats(0, 0, 1, 1, 1, 7)
    with pytest.raises(ScrmError) as caught:
        await brand.read(channel_stats, oa, span[0], span[0], **asked)
    assert caught.value.code == "INVALID_RANGE"


async def test_who_a_channel_knows(brand: Brand) -> None:
    ann, bob = await brand.user("oa-poster:a"), await brand.user("oa:b", "mini:b")
    await brand.user("mini:c")
    counts = {}
    for key in ("oa", "oa-poster", "mini"):
        channel = _Row(await _id(brand, key))
        counts[key] = (await brand.rows(sa.select(user_count(channel), acquired(channel))))[0]
    assert counts == {"oa": (2, 2), "oa-poster": (1, 1), "mini": (2, 1)}
    await brand.do(merge, bob, ann, reason="x")
    channel = _Row(await _id(brand, "oa"))
    assert await brand.rows(sa.select(user_count(channel), acquired(channel))) == [(1, 1)]


class _Row:
    """Something with `.c.id`, as a compiled read has it."""

    def __init__(self, channel: uuid.UUID) -> None:
        self.c = self
        self.id = sa.literal(channel, Id)
