"""Tables of the log and of those who read it."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Date, Index, Integer, SmallInteger, Table, UniqueConstraint

from scrm.db import Id, Instant, Json, Text, metadata

_Position = BigInteger().with_variant(Integer(), "sqlite")

events = Table(
    "events",
    metadata,
    # SQLite has one writer: `position` is its row number (integer primary key). On PostgreSQL an identity column `ord` is
    # the order of
    # writing and the sequencer sets `position` once the row is committed. The first migration says both.
    Column("id", Id, primary_key=True),
    Column("position", _Position, unique=True),
    Column("type", Text, nullable=False),
    Column("user_id", Id, comment="whose it is now; reads use this"),
    Column("recorded_user_id", Id, comment="whose it was at its place in the log; handlers use this"),
    Column("channel_id", Id),
    Column("occurred_at", Instant, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("business_date", Date, nullable=False),
    Column("amount_minor", BigInteger),
    Column("currency", Text),
    Column("properties", Json, nullable=False),
    Column("source", Text, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("late", Boolean(create_constraint=False), nullable=False),
    Column("digest", Text, nullable=False, comment="of what the caller said, to tell a repeat from a conflict"),
    Column("cause_id", Id, comment="the event that a plugin's announcement follows from"),
    Column("depth", SmallInteger, nullable=False, server_default="0"),
    Column("backfill", Boolean(create_constraint=False), nullable=False, server_default=sa.false()),
    UniqueConstraint("source", "external_id"),
    Index("ix_events_user_id", "user_id", "occurred_at", "id"),
    Index("ix_events_type", "type", "occurred_at"),
    Index("ix_events_occurred_at", "occurred_at", "id"),
)

log_head = Table(
    "log_head",
    metadata,
    Column("one", SmallInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False),
)

consumers = Table(
    "consumers",
    metadata,
    Column("plugin", Text, primary_key=True),
    Column("cursor", BigInteger, nullable=False, comment="every event up to here is applied or parked"),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("since", Instant, nullable=False),
    Column("backfill_to", BigInteger, nullable=False, comment="events up to here were history when the plugin was enabled"),
    Column("failures", Integer, nullable=False, server_default="0", comment="failed batches in a row, for the breaker"),
    Column("next_attempt_at", Instant),
    Column("moved_at", Instant, comment="when the cursor last moved"),
    CheckConstraint("state in ('ACTIVE', 'DEGRADED', 'PAUSED')", name="state"),
)

parked_events = Table(
    "parked_events",
    metadata,
    Column("plugin", Text, primary_key=True),
    Column("event_id", Id, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("key", Text, nullable=False, comment="whose later events wait behind this one"),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text),
    Column("parked_at", Instant, nullable=False),
    Column("next_attempt_at", Instant),
    CheckConstraint("state in ('RETRYING', 'DEAD', 'BEHIND', 'SKIPPED')", name="state"),
    Index("ix_parked_events_key", "plugin", "key", "position"),
    Index("ix_parked_events_next_attempt_at", "plugin", "next_attempt_at"),
)

out_of_turn = Table(
    "out_of_turn",
    metadata,
    Column("n", _Position, primary_key=True, autoincrement=True),
    Column("plugin", Text, nullable=False),
    Column("event_id", Id, nullable=False),
    Column("after", BigInteger, nullable=False, comment="the plugin's cursor when the event was applied"),
    UniqueConstraint("plugin", "event_id"),
    Index("ix_out_of_turn_after", "plugin", "after", "n"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Id, primary_key=True),
    Column("kind", Text, nullable=False, server_default="WORKER", comment="SERVER or WORKER"),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("plugins", Json, nullable=False, server_default="[]", comment="names of the plugins it was started with"),
    Column("started_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),
)

event_types = Table(
    "event_types",
    metadata,
    Column("type", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column(
        "personal",
        Json,
        nullable=False,
        comment="names of properties that are about a person; kept for erase after a plugin is gone",
    ),
    Column(
        "own",
        Boolean(create_constraint=False),
        nullable=False,
        server_default=sa.false(),
        comment="only its owner can say that it happened; so while it is disabled, until it is purged",
    ),
)
