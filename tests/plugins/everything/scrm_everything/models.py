"""Tables."""

from __future__ import annotations

from sqlalchemy import Column, Date, Index, Integer, Table

from scrm.api import Id, Instant, Text, plugin_metadata

metadata = plugin_metadata()

marks = Table(
    "everything_marks",
    metadata,
    Column("id", Id, primary_key=True),
    Column("owner_id", Id, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("note", Text),
    Column("day", Date, nullable=False),
    Column("made_at", Instant, nullable=False),
    Index("ix_everything_marks_owner_id", "owner_id"),
)

moves = Table(
    "everything_moves",
    metadata,
    Column("merge_id", Id, primary_key=True),
    Column("mark_id", Id, primary_key=True),
)

reviews = Table(
    "everything_reviews",
    metadata,
    Column("day", Date, primary_key=True),
    Column("people", Integer, nullable=False),
)
