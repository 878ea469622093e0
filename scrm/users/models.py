"""Tables of users, their identities, and merges."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Date, ForeignKey, Index, Table, UniqueConstraint

from scrm.db import Id, Instant, Json, Text, metadata

users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("display_name", Text),
    Column("phone", Text),
    Column("email", Text),
    Column("gender", Text),
    Column("birthday", Date),
    Column("country", Text),
    Column("region", Text),
    Column("city", Text),
    Column("language", Text),
    Column("attributes", Json, nullable=False),
    Column("acquisition_channel_id", Id, ForeignKey("channels.id")),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("first_seen_at", Instant),
    Column("last_seen_at", Instant),
    Column("merged_into", Id, ForeignKey("users.id")),
    Column("erased_at", Instant),
    CheckConstraint("gender in ('FEMALE', 'MALE', 'OTHER')", name="gender"),
    Index("ix_users_created_at", "created_at", "id"),
    Index("ix_users_last_seen_at", "last_seen_at", "id"),
    Index("ix_users_city", "city"),
    Index("ix_users_merged_into", "merged_into"),
)

identities = Table(
    "identities",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user_id", Id, ForeignKey("users.id"), nullable=False),
    Column("channel_id", Id, ForeignKey("channels.id"), nullable=False),
    Column("external_id", Text, nullable=False),
    Column("union_id", Text),
    Column("linked_at", Instant, nullable=False),
    UniqueConstraint("channel_id", "external_id"),
    Index("ix_identities_user_id", "user_id"),
    Index("ix_identities_union_id", "union_id"),
)

merges = Table(
    "merges",
    metadata,
    Column("id", Id, primary_key=True),
    Column("kept_id", Id, ForeignKey("users.id"), nullable=False),
    Column("absorbed_id", Id, ForeignKey("users.id"), nullable=False),
    Column("reason", Text, nullable=False),
    Column("moved", Json, nullable=False),
    Column("merged_at", Instant, nullable=False),
    Column("event_id", Id),
    Column("undone_at", Instant),
    Column("undone_by", Id),
    Index("ix_merges_kept_id", "kept_id"),
    Index("ix_merges_absorbed_id", "absorbed_id"),
)

merge_suggestions = Table(
    "merge_suggestions",
    metadata,
    Column("user_id", Id, ForeignKey("users.id"), primary_key=True),
    Column("other_id", Id, ForeignKey("users.id"), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("suggested_at", Instant, nullable=False),
)
