"""Tables of the RFM layering.

A run is a snapshot of everybody as of an instant. Only the same run touches it again, made anew where something came late.
Each row of `rfm_people` belongs to whom it was computed for (`user_id`); `holder_id` is whose it counts as now: after a merge the
survivor's, where the survivor has none of that run. What is counted of a run (segments, cells, moves) is kept when the people's
rows are gone.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Date, Index, Integer, SmallInteger, Table

from scrm.api import MEASURED, Id, Instant, Json, Text, plugin_metadata

metadata = plugin_metadata()

runs = Table(
    "rfm_runs",
    metadata,
    Column("id", Id, primary_key=True, comment="follows from the instant and the settings"),
    Column("as_of", Instant, nullable=False),
    Column("day", Date, nullable=False, comment="the business day of as_of"),
    Column("digest", Text, nullable=False, comment="of the settings"),
    Column(
        "standing", Boolean(create_constraint=False), nullable=False, comment="whether the mode and window are the rules' own"
    ),
    Column("mode", Text, nullable=False),
    Column("every", Text, nullable=False, comment="after which periods runs are made"),
    Column("currency", Text, nullable=False),
    Column("settings", Json, nullable=False),
    Column("state", Text, nullable=False),
    Column("wanted_id", Id, nullable=False, comment="the event that last asked for it"),
    Column("made_by_id", Id, comment="the last event that it was made by, or found to be as it would be made"),
    Column("position", BigInteger, comment="the place in the log up to which it was read"),
    Column("computed_at", Instant, comment="when the event that it was made by was recorded"),
    Column("population", Integer, nullable=False, comment="how many buyers were compared"),
    Column("other_currency_events", BigInteger, nullable=False),
    Column("bounds", Json, nullable=False),
    Column("weight_interactions", SmallInteger, nullable=False),
    Column("weight_spending", SmallInteger, nullable=False),
    Column("weight_active_days", SmallInteger, nullable=False),
    Column("previous_id", Id, comment="the run that it is compared with"),
    Column("kept", Boolean(create_constraint=False), nullable=False, comment="whether the rows of people are still there"),
    Column("duration_ms", Integer, info=MEASURED),
    CheckConstraint("state in ('PENDING', 'DONE', 'INSUFFICIENT_DATA')", name="state"),
    CheckConstraint("mode in ('QUINTILE', 'THRESHOLD')", name="mode"),
    Index("ix_rfm_runs_as_of", "as_of", "id"),
)

people = Table(
    "rfm_people",
    metadata,
    Column("run_id", Id, primary_key=True),
    Column("holder_id", Id, primary_key=True, comment="whose it counts as now"),
    Column("user_id", Id, nullable=False, comment="for whom it was computed"),
    Column("recency_days", Integer, comment="null: no purchase in the window"),
    Column("frequency", Integer, nullable=False),
    Column("monetary", BigInteger, nullable=False, comment="minor units"),
    Column("r", SmallInteger),
    Column("f", SmallInteger),
    Column("m", SmallInteger),
    Column("segment", Text, nullable=False),
    Column("value_layer", Text, nullable=False),
    Column("behavior_layer", Text, nullable=False),
    Column("health", SmallInteger),
    Column("interactions", Integer, nullable=False),
    Column("spending", BigInteger, nullable=False, comment="minor units"),
    Column("active_days", Integer, nullable=False),
    Column("interactions_rank", SmallInteger, comment="percentile rank"),
    Column("spending_rank", SmallInteger),
    Column("active_days_rank", SmallInteger),
    Column("other_currency_events", Integer, nullable=False),
    sqlite_with_rowid=False,
)

run_segments = Table(
    "rfm_run_segments",
    metadata,
    Column("run_id", Id, primary_key=True),
    Column("segment", Text, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("revenue", BigInteger, nullable=False),
)

run_cells = Table(
    "rfm_run_cells",
    metadata,
    Column("run_id", Id, primary_key=True),
    Column("r", SmallInteger, primary_key=True, autoincrement=False),
    Column("f", SmallInteger, primary_key=True, autoincrement=False),
    Column("count", Integer, nullable=False),
    Column("revenue", BigInteger, nullable=False),
)

run_moves = Table(
    "rfm_run_moves",
    metadata,
    Column("run_id", Id, primary_key=True),
    Column("from_segment", Text, primary_key=True),
    Column("to_segment", Text, primary_key=True),
    Column("count", Integer, nullable=False),
)

current = Table(
    "rfm_current",
    metadata,
    Column("one", SmallInteger, primary_key=True, autoincrement=False),
    Column("run_id", Id, nullable=False, comment="the run by which everybody stands"),
)

requests = Table(
    "rfm_requests",
    metadata,
    Column("id", Id, primary_key=True, comment="the event that asked"),
    Column("run_id", Id, nullable=False),
)

segments = Table(
    "rfm_segments",
    metadata,
    Column("key", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("names", Text, nullable=False, comment="a JSON object: names by language tag"),
    Column("description", Text, nullable=False),
    Column("descriptions", Text, nullable=False),
    Column("place", SmallInteger, nullable=False, comment="from 1; 0: the map does not have it any more"),
)

merges = Table(
    "rfm_merges",
    metadata,
    Column("id", Id, primary_key=True, comment="the event of the merge"),
    Column("kept_id", Id, nullable=False),
    Column("absorbed_id", Id, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("undone_at", BigInteger, comment="the position at which it was undone"),
    Index("ix_rfm_merges_absorbed_id", "absorbed_id"),
    Index("ix_rfm_merges_kept_id", "kept_id"),
)

erased = Table("rfm_erased", metadata, Column("user_id", Id, primary_key=True))
