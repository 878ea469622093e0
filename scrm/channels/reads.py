"""Conditions on channels, as SQL on a channel's row; their figures are in `stats.py`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from scrm.channels.models import channels
from scrm.sql import Value, member, position_of


def channel_search(channel: Any, text: Value) -> sa.ColumnElement[bool]:
    """Name or key contains the text."""
    return sa.or_(position_of(text, channel.c.name) > 0, position_of(text, channel.c.key) > 0)


def child_of(channel: Any, keys: Value) -> sa.ColumnElement[bool]:
    """Directly below one of these channels."""
    return sa.type_coerce(channel.c.parent_id.in_(sa.select(channels.c.id).where(member(channels.c.key, keys))), sa.Boolean())
