"""Channels: what they are, whose child they are, and what happened on them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from scrm.audit import audit
from scrm.changes import global_id
from scrm.channels.models import channels
from scrm.db import Tx, new_id
from scrm.errors import ScrmError
from scrm.text import check_json, check_text
from scrm.users.models import identities

MAX_DEPTH = 5
"""Levels of channels, the root's included."""

_KEY = re.compile(r"[^\s,]{1,100}")


class ChannelKind(StrEnum):
    """Where a channel lives."""

    WECHAT_OA = "WECHAT_OA"
    WECOM = "WECOM"
    MINI_PROGRAM = "MINI_PROGRAM"
    GROUP = "GROUP"
    APP = "APP"
    SMS = "SMS"
    EMAIL = "EMAIL"
    DOUYIN = "DOUYIN"
    XIAOHONGSHU = "XIAOHONGSHU"
    WEBSITE = "WEBSITE"
    STORE = "STORE"
    OTHER = "OTHER"


class ChannelRole(StrEnum):
    """How much a channel carries."""

    MAIN = "MAIN"
    AUXILIARY = "AUXILIARY"


@dataclass(frozen=True, slots=True)
class ChannelInfo:
    """A channel's place in the tree: identities belong to `root_id`."""

    id: uuid.UUID
    key: str
    parent_id: uuid.UUID | None
    root_id: uuid.UUID
    depth: int


def all_channels(tx: Tx) -> dict[str, ChannelInfo]:
    """Every channel by its key; one statement."""
    rows = tx.rows(sa.select(channels.c.id, channels.c.key, channels.c.parent_id))
    parents = {row.id: row.parent_id for row in rows}
    found = {}
    for row in rows:
        root, depth = row.id, 1
        while parents[root] is not None:
            root, depth = parents[root], depth + 1
        found[row.key] = ChannelInfo(row.id, row.key, row.parent_id, root, depth)
    return found


def find_channel(tx: Tx, key: str, path: Sequence[str] = ("channel",)) -> ChannelInfo:
    """The channel with this key.

    Raises:
        ScrmError: `UNKNOWN_CHANNEL`.
    """
    found = all_channels(tx).get(key)
    if found is None:
        raise _unknown_channel(key, path)
    return found


def _unknown_channel(key: str, path: Sequence[str]) -> ScrmError:
    return ScrmError("UNKNOWN_CHANNEL", f'no channel has the key "{key}"; create it first', path=path, params={"channel": key})


def root_of(tx: Tx, channel_id: uuid.UUID) -> uuid.UUID:
    """The channel that identities of this one belong to: itself, or its topmost parent.

    Raises:
        ScrmError: `CHANNEL_NOT_FOUND`.
    """
    found = next((channel for channel in all_channels(tx).values() if channel.id == channel_id), None)
    if found is None:
        raise channel_not_found(channel_id)
    return found.root_id


def channel_not_found(channel_id: uuid.UUID, path: Sequence[str] = ("id",)) -> ScrmError:
    """The error for an id that no channel has."""
    said = global_id("Channel", channel_id)
    return ScrmError("CHANNEL_NOT_FOUND", f"no channel has the id {said}", path=path, params={"id": said})


def create_channel(
    tx: Tx,
    *,
    key: str,
    name: str,
    kind: str,
    role: str = ChannelRole.MAIN,
    enabled: bool = True,
    config: Mapping[str, Any] | None = None,
    parent: str | None = None,
    at: datetime,
    actor: str,
) -> uuid.UUID:
    """Add a channel; `parent` is a key.

    Raises:
        ScrmError: `CHANNEL_KEY_TAKEN`, `INVALID_KEY`, `INVALID_TEXT`, `INVALID_CHANNEL_KIND`, `INVALID_CHANNEL_ROLE`,
            `INVALID_JSON`, `UNKNOWN_CHANNEL` (the parent), `CHANNEL_TOO_DEEP`.
    """
    key = check_key(key, ("key",))
    values = _checked({"name": name, "kind": kind, "role": role, "enabled": enabled, "config": config or {}})
    known = all_channels(tx)
    if key in known:
        raise ScrmError(
            "CHANNEL_KEY_TAKEN", f'a channel already has the key "{key}"; choose another', path=("key",), params={"key": key}
        )
    parent_id = None
    if parent is not None:
        above = known.get(parent)
        if above is None:
            raise _unknown_channel(parent, ("parent",))
        _check_depth(above.depth + 1)
        parent_id = above.id
    channel_id = new_id()
    tx.execute(channels.insert().values(id=channel_id, key=key, parent_id=parent_id, created_at=at, **values))
    audit(tx, actor, "channel.created", global_id("Channel", channel_id), {"key": key}, at=at)
    return channel_id


def update_channel(tx: Tx, channel_id: uuid.UUID, changes: Mapping[str, Any], *, at: datetime, actor: str) -> uuid.UUID:
    """Change what `changes` names: `name`, `kind`, `role`, `enabled`, `config`, `parent` (a key, or None for a root).

    Raises:
        ScrmError: as `create_channel`, and `CHANNEL_NOT_FOUND`, `CHANNEL_CYCLE`, `CHANNEL_HAS_IDENTITIES`.
    """
    row = tx.row(sa.select(channels.c.id, channels.c.key).where(channels.c.id == channel_id).with_for_update())
    if row is None:
        raise channel_not_found(channel_id)
    values = _checked({name: value for name, value in changes.items() if name != "parent"})
    if "parent" in changes:
        values["parent_id"] = _new_parent(tx, row.key, changes["parent"])
    if values:
        tx.execute(channels.update().where(channels.c.id == channel_id).values(**values))
        audit(tx, actor, "channel.updated", global_id("Channel", channel_id), {"fields": sorted(changes)}, at=at)
    return channel_id


def _new_parent(tx: Tx, key: str, parent: str | None) -> uuid.UUID | None:
    known = all_channels(tx)
    this = known[key]
    above = None
    if parent is not None:
        above = known.get(parent)
        if above is None:
            raise _unknown_channel(parent, ("parent",))
    by_id = {channel.id: channel for channel in known.values()}
    step = above
    while step is not None:
        if step.id == this.id:
            said = f'"{parent}" is "{key}" or lies below it; a channel cannot be its own ancestor'
            raise ScrmError("CHANNEL_CYCLE", said, path=("parent",), params={"channel": key, "parent": parent})
        step = by_id[step.parent_id] if step.parent_id else None
    new_root = above.root_id if above else this.id
    if new_root != this.root_id and _has_identities(tx, this.id):
        said = f'"{key}" has identities of its own, which belong to a root; it cannot move under another root'
        raise ScrmError("CHANNEL_HAS_IDENTITIES", said, path=("parent",), params={"channel": key})
    below = max((_levels_below(this, other, by_id) for other in known.values()), default=0)
    _check_depth((above.depth if above else 0) + 1 + below)
    return above.id if above else None


def _levels_below(this: ChannelInfo, other: ChannelInfo, by_id: Mapping[uuid.UUID, ChannelInfo]) -> int:
    step: ChannelInfo | None = other
    while step is not None and step.id != this.id:
        step = by_id[step.parent_id] if step.parent_id else None
    return other.depth - this.depth if step is not None else 0


def _has_identities(tx: Tx, channel_id: uuid.UUID) -> bool:
    return tx.scalar(sa.select(sa.exists().where(identities.c.channel_id == channel_id))) is True


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        said = f"channels are at most {MAX_DEPTH} levels deep; this one would be on level {depth}"
        raise ScrmError("CHANNEL_TOO_DEEP", said, path=("parent",), params={"depth": depth, "limit": MAX_DEPTH})


def check_key(key: str, path: Sequence[str]) -> str:
    """A key for people and URLs: 1 to 100 characters without white space or commas; it never changes.

    Raises:
        ScrmError: `INVALID_KEY`, `INVALID_TEXT`.
    """
    key = check_text(key, path)
    if not _KEY.fullmatch(key):
        said = f'{".".join(path)} is "{key[:120]}"; use 1 to 100 characters without spaces and commas'
        raise ScrmError("INVALID_KEY", said, path=path)
    return key


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(values)
    for name, value in values.items():
        if value is None and name != "config":
            raise ScrmError("INVALID_INPUT", f"{name} is null, but every channel has one; leave it out to keep it", path=(name,))
        if name == "name":
            result[name] = check_text(value, ("name",), limit=200, empty=False)
        elif name == "kind" and value not in ChannelKind.__members__:
            raise _not_one_of("INVALID_CHANNEL_KIND", "kind", value, ChannelKind)
        elif name == "role" and value not in ChannelRole.__members__:
            raise _not_one_of("INVALID_CHANNEL_ROLE", "role", value, ChannelRole)
        elif name == "enabled":
            result[name] = bool(value)
        elif name == "config":
            result[name] = value = value or {}
            check_json(value, ("config",))
            if not isinstance(value, dict):
                raise ScrmError("INVALID_JSON", "config is not a JSON object", path=("config",))
        elif name not in ("kind", "role"):
            raise TypeError(f"a channel has no {name} to change")
    return result


def _not_one_of(code: str, name: str, value: Any, kinds: type[StrEnum]) -> ScrmError:
    return ScrmError(code, f'{name} is "{value}"; expected one of {", ".join(kinds)}', path=(name,), params={name: str(value)})


def half_open(start: date, end: date) -> None:
    """Refuse a span `[start, end)` of business days that holds none.

    Raises:
        ScrmError: `INVALID_RANGE`.
    """
    if start >= end:
        said = f"the range from {start} to {end} is empty; `to` is the day after the last one"
        raise ScrmError("INVALID_RANGE", said, path=("to",), params={"from": start.isoformat(), "to": end.isoformat()})
