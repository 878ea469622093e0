"""The table of channels."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, ForeignKey, Index, Table, UniqueConstraint

from scrm.db import Id, Instant, Json, Text, metadata

channels = Table(
    "channels",
    metadata,
    Column("id", Id, primary_key=True),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("enabled", Boolean(create_constraint=False), nullable=False),
    Column("config", Json, nullable=False),
    Column("parent_id", Id, ForeignKey("channels.id")),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("key"),
    CheckConstraint("role in ('MAIN', 'AUXILIARY')", name="role"),
    Index("ix_channels_parent_id", "parent_id"),
)
