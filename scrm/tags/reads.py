"""What is asked about tags, as SQL on a tag's or a user's row. A tag that has expired is not there."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from scrm.graphql.scalars import MatchMode
from scrm.sql import NOW, Value, member, position_of
from scrm.tags.models import tag_groups, tags, user_tags
from scrm.users.models import users


def current(row: Any) -> sa.ColumnElement[bool]:
    """A user's tag that has not expired."""
    return sa.or_(row.c.expires_at.is_(None), row.c.expires_at > NOW)


def user_count(tag: Any) -> sa.ColumnElement[int]:
    """How many users have the tag now."""
    return (
        sa.select(sa.func.count())
        .select_from(user_tags.join(users, users.c.id == user_tags.c.user_id))
        .where(user_tags.c.tag_id == tag.c.id, current(user_tags), users.c.erased_at.is_(None))
        .scalar_subquery()
    )


def tagged(user: Any, given: Any) -> sa.ColumnElement[bool]:
    """Has any, all or none of the tags with these keys."""
    has = (
        sa.select(sa.func.count(sa.distinct(tags.c.key)))
        .select_from(user_tags.join(tags, tags.c.id == user_tags.c.tag_id))
        .where(user_tags.c.user_id == user.c.id, member(tags.c.key, given["keys"]), current(user_tags))
    )
    if given["mode"] is MatchMode.ALL:
        return has.scalar_subquery() == distinct_count(given["keys"])
    of_tags = sa.select(tags.c.id).where(member(tags.c.key, given["keys"]))
    some: sa.ColumnElement[bool] = user.c.id.in_(
        sa.select(user_tags.c.user_id).where(user_tags.c.tag_id.in_(of_tags), current(user_tags))
    )
    return sa.not_(some) if given["mode"] is MatchMode.NONE else some


def distinct_count(keys: Value) -> Value:
    """How many different keys were given."""
    return keys.converted("n", sa.Integer(), lambda given, _: len(set(given)))


def tag_search(tag: Any, text: Value) -> sa.ColumnElement[bool]:
    """Name or key contains the text."""
    return sa.or_(position_of(text, tag.c.name) > 0, position_of(text, tag.c.key) > 0)


def in_group(tag: Any, keys: Value) -> sa.ColumnElement[bool]:
    """In one of these groups."""
    found: sa.ColumnElement[bool] = tag.c.group_id.in_(sa.select(tag_groups.c.id).where(member(tag_groups.c.key, keys)))
    return found


def tags_in_groups(keys: Value) -> sa.Select[Any]:
    """The ids of tags in these groups."""
    return sa.select(tags.c.id).where(in_group(tags, keys))


def tags_of_kinds(kinds: list[str]) -> sa.Select[Any]:
    """The ids of tags of these kinds."""
    return sa.select(tags.c.id).where(tags.c.kind.in_(kinds))
