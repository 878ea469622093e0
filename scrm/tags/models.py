"""Tables of tags, their groups, and who has them."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, ForeignKey, Index, Table, UniqueConstraint

from scrm.db import Id, Instant, Json, Text, metadata

tag_groups = Table(
    "tag_groups",
    metadata,
    Column("id", Id, primary_key=True),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("exclusive", Boolean(create_constraint=False), nullable=False),
    UniqueConstraint("key"),
)

tags = Table(
    "tags",
    metadata,
    Column("id", Id, primary_key=True),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("group_id", Id, ForeignKey("tag_groups.id")),
    Column("rule", Json),
    Column("archived", Boolean(create_constraint=False), nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("key"),
    CheckConstraint("kind in ('BASIC', 'BEHAVIOR', 'INTENT')", name="kind"),
    Index("ix_tags_group_id", "group_id"),
)

user_tags = Table(
    "user_tags",
    metadata,
    Column("user_id", Id, ForeignKey("users.id"), primary_key=True),
    Column("tag_id", Id, ForeignKey("tags.id"), primary_key=True),
    Column("source", Text, nullable=False),
    Column("actor", Text),
    Column("reason", Text),
    Column("tagged_at", Instant, nullable=False),
    Column("expires_at", Instant),
    CheckConstraint("source in ('MANUAL', 'RULE', 'IMPORT', 'PLUGIN')", name="source"),
    Index("ix_user_tags_tag_id", "tag_id", "user_id"),
)
