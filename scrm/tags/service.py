"""Tags and their groups. Giving them to users is in `tagging`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import Row

from scrm.audit import audit
from scrm.changes import global_id
from scrm.channels.service import check_key
from scrm.db import Tx, new_id
from scrm.errors import ScrmError
from scrm.rowset import upsert
from scrm.tags.handlers import drop_rule_tags, recompute_tag
from scrm.tags.models import tag_groups, tags, user_tags
from scrm.tags.rules import check_rule
from scrm.tags.tagging import enforce_exclusive, tag_users, unexpired, untag_users
from scrm.text import check_text

__all__ = [
    "TagKind",
    "create_tag",
    "delete_tag",
    "find_tag",
    "save_group",
    "tag_users",
    "untag_users",
    "update_tag",
]


class TagKind(StrEnum):
    """What a tag speaks of: 基础 who they are, 行为 what they do, 意向 what they want."""

    BASIC = "BASIC"
    BEHAVIOR = "BEHAVIOR"
    INTENT = "INTENT"


def create_tag(
    tx: Tx,
    *,
    key: str,
    name: str,
    kind: str = TagKind.BASIC,
    group: str | None = None,
    rule: Mapping[str, Any] | None = None,
    at: datetime,
    actor: str,
    zone: ZoneInfo,
) -> uuid.UUID:
    """Add a tag; `group` is a key. A rule is computed for everybody at once.

    Raises:
        ScrmError: `TAG_KEY_TAKEN`, `INVALID_KEY`, `INVALID_TEXT`, `INVALID_TAG_KIND`, `UNKNOWN_TAG_GROUP`, `INVALID_RULE`,
            `PERSONAL_PROPERTY`.
    """
    values = _checked(tx, {"key": key, "name": name, "kind": kind, "group": group, "rule": rule})
    tag_id = new_id()
    statement = upsert(tx, tags).values(id=tag_id, archived=False, created_at=at, **values).on_conflict_do_nothing()
    if tx.execute(statement.returning(tags.c.id)).first() is None:
        said = f'a tag already has the key "{values["key"]}"; choose another'
        raise ScrmError("TAG_KEY_TAKEN", said, path=("key",), params={"key": values["key"]})
    audit(tx, actor, "tag.created", global_id("Tag", tag_id), {"key": values["key"]}, at=at)
    if rule is not None:
        recompute_tag(tx, tag_id, as_of=at, zone=zone)
    return tag_id


def update_tag(tx: Tx, tag_id: uuid.UUID, changes: Mapping[str, Any], *, at: datetime, actor: str, zone: ZoneInfo) -> uuid.UUID:
    """Change what `changes` names: `name`, `kind`, `group` (a key or None), `rule` (None: no rule), `archived`.

    A new rule is computed for everybody; without one, what the old rule gave goes. In an exclusive group users keep one tag.

    Raises:
        ScrmError: as `create_tag`, and `TAG_NOT_FOUND`.
    """
    before = find_tag(tx, tag_id)
    values = _checked(tx, {name: value for name, value in changes.items() if name != "key"})
    changed = {name: value for name, value in values.items() if before._mapping[name] != value}
    if not changed:
        return tag_id
    tx.execute(tags.update().where(tags.c.id == tag_id).values(**changed))
    audit(tx, actor, "tag.updated", global_id("Tag", tag_id), {"fields": sorted(changes)}, at=at)
    after = find_tag(tx, tag_id)
    if changed.get("group_id") is not None and _is_exclusive(tx, changed["group_id"]):
        enforce_exclusive(tx, changed["group_id"], at=at, zone=zone)
    if "rule" in changed and after.rule is None:
        drop_rule_tags(tx, tag_id, at=at, zone=zone)
    elif after.rule is not None and not after.archived and changed.keys() & {"rule", "archived", "group_id"}:
        recompute_tag(tx, tag_id, as_of=at, zone=zone)
    return tag_id


def delete_tag(tx: Tx, tag_id: uuid.UUID, *, at: datetime, actor: str) -> None:
    """Remove a tag that nobody has; one in use is archived instead.

    Raises:
        ScrmError: `TAG_NOT_FOUND`, `TAG_IN_USE`.
    """
    row = find_tag(tx, tag_id)
    mine = user_tags.c.tag_id == tag_id
    count = tx.scalar(sa.select(sa.func.count()).select_from(user_tags).where(mine, unexpired(user_tags, at)))
    if count:
        way = "take it from them first" if row.archived else "archive it instead"
        said = f'{count} users have the tag "{row.key}"; {way}'
        raise ScrmError("TAG_IN_USE", said, path=("id",), params={"key": row.key, "users": count})
    tx.execute(user_tags.delete().where(mine))
    tx.execute(tags.delete().where(tags.c.id == tag_id))
    audit(tx, actor, "tag.deleted", global_id("Tag", tag_id), {"key": row.key}, at=at)


def find_tag(tx: Tx, tag_id: uuid.UUID) -> Row[Any]:
    """The tag's row.

    Raises:
        ScrmError: `TAG_NOT_FOUND`.
    """
    row = tx.row(sa.select(tags).where(tags.c.id == tag_id))
    if row is None:
        said = global_id("Tag", tag_id)
        raise ScrmError("TAG_NOT_FOUND", f"no tag has the id {said}", path=("id",), params={"id": said})
    return row


def save_group(
    tx: Tx, *, key: str, name: str, exclusive: bool | None = None, at: datetime, actor: str, zone: ZoneInfo
) -> uuid.UUID:
    """Create or update a group by its key; `exclusive` left out stays as it is (new: false).

    Where a group becomes exclusive, every user keeps one of its tags: a manual one before others, then the newest.

    Raises:
        ScrmError: `INVALID_KEY`, `INVALID_TEXT`.
    """
    key, name = check_key(key, ("key",)), check_text(name, ("name",), limit=200, empty=False)
    before = tx.row(sa.select(tag_groups).where(tag_groups.c.key == key).with_for_update())
    wanted = exclusive if exclusive is not None else bool(before is not None and before.exclusive)
    insert = upsert(tx, tag_groups).values(id=new_id(), key=key, name=name, exclusive=wanted)
    change = insert.on_conflict_do_update(index_elements=["key"], set_={"name": name, "exclusive": wanted})
    group_id: uuid.UUID = tx.scalar(change.returning(tag_groups.c.id))
    audit(tx, actor, "tagGroup.saved", global_id("TagGroup", group_id), {"key": key, "exclusive": wanted}, at=at)
    if wanted and not (before is not None and before.exclusive):
        enforce_exclusive(tx, group_id, at=at, zone=zone)
    return group_id


def _checked(tx: Tx, values: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in values.items():
        if value is None and name not in ("group", "rule"):
            raise ScrmError("INVALID_INPUT", f"{name} is null, but every tag has one; leave it out to keep it", path=(name,))
        if name == "key":
            result["key"] = check_key(value, ("key",))
        elif name == "name":
            result["name"] = check_text(value, ("name",), limit=200, empty=False)
        elif name == "kind":
            if value not in TagKind.__members__:
                raise ScrmError("INVALID_TAG_KIND", f'kind is "{value}"; expected one of {", ".join(TagKind)}', path=("kind",))
            result["kind"] = str(value)
        elif name == "group":
            result["group_id"] = _group_id(tx, value) if value is not None else None
        elif name == "rule":
            if value is not None:
                check_rule(tx, value)
            result["rule"] = value
        elif name == "archived":
            result["archived"] = bool(value)
        else:
            raise TypeError(f"a tag has no {name} to change")
    return result


def _group_id(tx: Tx, key: str) -> uuid.UUID:
    found: uuid.UUID | None = tx.scalar(sa.select(tag_groups.c.id).where(tag_groups.c.key == key))
    if found is None:
        said = f'no tag group has the key "{key}"; save it first'
        raise ScrmError("UNKNOWN_TAG_GROUP", said, path=("group",), params={"group": key})
    return found


def _is_exclusive(tx: Tx, group_id: uuid.UUID) -> bool:
    return bool(tx.scalar(sa.select(tag_groups.c.exclusive).where(tag_groups.c.id == group_id)))
