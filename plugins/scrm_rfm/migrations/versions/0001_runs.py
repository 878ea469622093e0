"""Runs with their people, segments, cells and moves; the segments' words; merges and who was erased."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.api import Id, Instant, Json, Text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    current()
    erased()
    merges()
    people()
    requests()
    run_cells()
    run_moves()
    run_segments()
    runs()
    segments()


def current() -> None:
    op.create_table(
        "rfm_current",
        sa.Column("one", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("run_id", Id, nullable=False, comment="the run by which everybody stands"),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_rfm_current")),
    )


def erased() -> None:
    op.create_table(
        "rfm_erased", sa.Column("user_id", Id, nullable=False), sa.PrimaryKeyConstraint("user_id", name=op.f("pk_rfm_erased"))
    )


def merges() -> None:
    op.create_table(
        "rfm_merges",
        sa.Column("id", Id, nullable=False, comment="the event of the merge"),
        sa.Column("kept_id", Id, nullable=False),
        sa.Column("absorbed_id", Id, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("undone_at", sa.BigInteger(), comment="the position at which it was undone"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rfm_merges")),
    )
    op.create_index("ix_rfm_merges_absorbed_id", "rfm_merges", ["absorbed_id"])
    op.create_index("ix_rfm_merges_kept_id", "rfm_merges", ["kept_id"])


def people() -> None:
    op.create_table(
        "rfm_people",
        sa.Column("run_id", Id, nullable=False),
        sa.Column("holder_id", Id, nullable=False, comment="whose it counts as now"),
        sa.Column("user_id", Id, nullable=False, comment="for whom it was computed"),
        sa.Column("recency_days", sa.Integer(), comment="null: no purchase in the window"),
        sa.Column("frequency", sa.Integer(), nullable=False),
        sa.Column("monetary", sa.BigInteger(), nullable=False, comment="minor units"),
        sa.Column("r", sa.SmallInteger()),
        sa.Column("f", sa.SmallInteger()),
        sa.Column("m", sa.SmallInteger()),
        sa.Column("segment", Text, nullable=False),
        sa.Column("value_layer", Text, nullable=False),
        sa.Column("behavior_layer", Text, nullable=False),
        sa.Column("health", sa.SmallInteger()),
        sa.Column("interactions", sa.Integer(), nullable=False),
        sa.Column("spending", sa.BigInteger(), nullable=False, comment="minor units"),
        sa.Column("active_days", sa.Integer(), nullable=False),
        sa.Column("interactions_rank", sa.SmallInteger(), comment="percentile rank"),
        sa.Column("spending_rank", sa.SmallInteger()),
        sa.Column("active_days_rank", sa.SmallInteger()),
        sa.Column("other_currency_events", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "holder_id", name=op.f("pk_rfm_people")),
        sqlite_with_rowid=False,
    )


def requests() -> None:
    op.create_table(
        "rfm_requests",
        sa.Column("id", Id, nullable=False, comment="the event that asked"),
        sa.Column("run_id", Id, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rfm_requests")),
    )


def run_cells() -> None:
    op.create_table(
        "rfm_run_cells",
        sa.Column("run_id", Id, nullable=False),
        sa.Column("r", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("f", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("revenue", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "r", "f", name=op.f("pk_rfm_run_cells")),
    )


def run_moves() -> None:
    op.create_table(
        "rfm_run_moves",
        sa.Column("run_id", Id, nullable=False),
        sa.Column("from_segment", Text, nullable=False),
        sa.Column("to_segment", Text, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "from_segment", "to_segment", name=op.f("pk_rfm_run_moves")),
    )


def run_segments() -> None:
    op.create_table(
        "rfm_run_segments",
        sa.Column("run_id", Id, nullable=False),
        sa.Column("segment", Text, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("revenue", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "segment", name=op.f("pk_rfm_run_segments")),
    )


def runs() -> None:
    op.create_table(
        "rfm_runs",
        sa.Column("id", Id, nullable=False, comment="follows from the instant and the settings"),
        sa.Column("as_of", Instant, nullable=False),
        sa.Column("day", sa.Date(), nullable=False, comment="the business day of as_of"),
        sa.Column("digest", Text, nullable=False, comment="of the settings"),
        sa.Column("standing", sa.Boolean(), nullable=False, comment="whether the mode and window are the rules' own"),
        sa.Column("mode", Text, nullable=False),
        sa.Column("every", Text, nullable=False, comment="after which periods runs are made"),
        sa.Column("currency", Text, nullable=False),
        sa.Column("settings", Json, nullable=False),
        sa.Column("state", Text, nullable=False),
        sa.Column("wanted_id", Id, nullable=False, comment="the event that last asked for it"),
        sa.Column("made_by_id", Id, comment="the last event that it was made by, or found to be as it would be made"),
        sa.Column("position", sa.BigInteger(), comment="the place in the log up to which it was read"),
        sa.Column("computed_at", Instant, comment="when the event that it was made by was recorded"),
        sa.Column("population", sa.Integer(), nullable=False, comment="how many buyers were compared"),
        sa.Column("other_currency_events", sa.BigInteger(), nullable=False),
        sa.Column("bounds", Json, nullable=False),
        sa.Column("weight_interactions", sa.SmallInteger(), nullable=False),
        sa.Column("weight_spending", sa.SmallInteger(), nullable=False),
        sa.Column("weight_active_days", sa.SmallInteger(), nullable=False),
        sa.Column("previous_id", Id, comment="the run that it is compared with"),
        sa.Column("kept", sa.Boolean(), nullable=False, comment="whether the rows of people are still there"),
        sa.Column("duration_ms", sa.Integer()),
        sa.CheckConstraint("mode in ('QUINTILE', 'THRESHOLD')", name=op.f("ck_rfm_runs_mode")),
        sa.CheckConstraint("state in ('PENDING', 'DONE', 'INSUFFICIENT_DATA')", name=op.f("ck_rfm_runs_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rfm_runs")),
    )
    op.create_index("ix_rfm_runs_as_of", "rfm_runs", ["as_of", "id"])


def segments() -> None:
    op.create_table(
        "rfm_segments",
        sa.Column("key", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("names", Text, nullable=False, comment="a JSON object: names by language tag"),
        sa.Column("description", Text, nullable=False),
        sa.Column("descriptions", Text, nullable=False),
        sa.Column("place", sa.SmallInteger(), nullable=False, comment="from 1; 0: the map does not have it any more"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rfm_segments")),
    )
