"""Tables that belong to no room of the core: keys, audit, jobs, outbox, imports."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, SmallInteger, Table, UniqueConstraint

from scrm.db import Id, Instant, Json, Text, metadata

_Counter = BigInteger().with_variant(Integer(), "sqlite")

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False, comment="keyed BLAKE2b of the key; the key itself is shown once and never kept"),
    Column("scopes", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("revoked_at", Instant),
    UniqueConstraint("hash"),
    UniqueConstraint("name"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text),
    Column("detail", Json, nullable=False, comment="names of fields, never personal values"),
    Index("ix_audit_log_at", "at"),
)
"""Append-only by triggers, as `audit_chain` is: a migration that rebuilds one of them makes its triggers again."""

audit_pending = Table(
    "audit_pending",
    metadata,
    Column("ord", _Counter, primary_key=True, autoincrement=True),
    Column("audit_id", Id, nullable=False),
)

audit_chain = Table(
    "audit_chain",
    metadata,
    Column("seq", _Counter, primary_key=True, autoincrement=False),
    Column("audit_id", Id, nullable=False),
    Column("chained_at", Instant, nullable=False),
    Column("digest", LargeBinary, nullable=False, comment="SHA-256 of the line of the audit log"),
    Column("hash", LargeBinary, nullable=False, comment="SHA-256 of the hash before, and of this row"),
    UniqueConstraint("audit_id"),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("one", SmallInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("seal", LargeBinary, nullable=False, comment="of seq and hash under the servers' secret"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("name", Text, primary_key=True),
    Column("next_run_at", Instant, nullable=False),
    Column("last_run_at", Instant),
    Column("last_error", Text),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Id, primary_key=True),
    Column("plugin", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("payload", Json, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text),
    Column("created_at", Instant, nullable=False),
    Column("next_attempt_at", Instant),
    Index("ix_outbox_next_attempt_at", "state", "next_attempt_at"),
)

imports = Table(
    "imports",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column(
        "fingerprint",
        Text,
        nullable=False,
        comment="of the file and its mapping; a second run of the same resumes or is counted again",
    ),
    Column("rows_read", BigInteger, nullable=False),
    Column("rows_total", BigInteger),
    Column("accepted", BigInteger, nullable=False),
    Column("duplicates", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("error", Text),
    Column("alive_until", Instant, comment="a RUNNING one that has not moved this on by then was cut off"),
    Index("ix_imports_fingerprint", "fingerprint"),
)
