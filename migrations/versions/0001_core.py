"""The core's first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.db import Id, Instant, Json, Text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Flag = sa.Boolean(create_constraint=False)
Counter = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    channels()
    users()
    identities()
    merges()
    merge_suggestions()
    tags()
    events()
    log_head()
    event_types()
    consumers()
    keys_and_audit()
    work()


def channels() -> None:
    op.create_table(
        "channels",
        sa.Column("id", Id, nullable=False),
        sa.Column("key", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("kind", Text, nullable=False),
        sa.Column("role", Text, nullable=False),
        sa.Column("enabled", Flag, nullable=False),
        sa.Column("config", Json, nullable=False),
        sa.Column("parent_id", Id),
        sa.Column("created_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_channels"),
        sa.UniqueConstraint("key", name="uq_channels_key"),
        sa.ForeignKeyConstraint(["parent_id"], ["channels.id"], name="fk_channels_parent_id"),
        sa.CheckConstraint("role in ('MAIN', 'AUXILIARY')", name=op.f("ck_channels_role")),
    )
    op.create_index("ix_channels_parent_id", "channels", ["parent_id"])


def users() -> None:
    op.create_table(
        "users",
        sa.Column("id", Id, nullable=False),
        sa.Column("display_name", Text),
        sa.Column("phone", Text),
        sa.Column("email", Text),
        sa.Column("gender", Text),
        sa.Column("birthday", sa.Date),
        sa.Column("country", Text),
        sa.Column("region", Text),
        sa.Column("city", Text),
        sa.Column("language", Text),
        sa.Column("attributes", Json, nullable=False),
        sa.Column("acquisition_channel_id", Id),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("updated_at", Instant, nullable=False),
        sa.Column("first_seen_at", Instant),
        sa.Column("last_seen_at", Instant),
        sa.Column("merged_into", Id),
        sa.Column("erased_at", Instant),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.ForeignKeyConstraint(["acquisition_channel_id"], ["channels.id"], name="fk_users_acquisition_channel_id"),
        sa.ForeignKeyConstraint(["merged_into"], ["users.id"], name="fk_users_merged_into"),
        sa.CheckConstraint("gender in ('FEMALE', 'MALE', 'OTHER')", name=op.f("ck_users_gender")),
    )
    op.create_index("ix_users_created_at", "users", ["created_at", "id"])
    op.create_index("ix_users_last_seen_at", "users", ["last_seen_at", "id"])
    op.create_index("ix_users_city", "users", ["city"])
    op.create_index("ix_users_merged_into", "users", ["merged_into"])


def identities() -> None:
    op.create_table(
        "identities",
        sa.Column("id", Id, nullable=False),
        sa.Column("user_id", Id, nullable=False),
        sa.Column("channel_id", Id, nullable=False),
        sa.Column("external_id", Text, nullable=False),
        sa.Column("union_id", Text),
        sa.Column("linked_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identities"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_identities_user_id"),
        sa.ForeignKeyConstraint(["channel_id"], ["channels.id"], name="fk_identities_channel_id"),
        sa.UniqueConstraint("channel_id", "external_id", name="uq_identities_channel_id_external_id"),
    )
    op.create_index("ix_identities_user_id", "identities", ["user_id"])
    op.create_index("ix_identities_union_id", "identities", ["union_id"])


def merges() -> None:
    op.create_table(
        "merges",
        sa.Column("id", Id, nullable=False),
        sa.Column("kept_id", Id, nullable=False),
        sa.Column("absorbed_id", Id, nullable=False),
        sa.Column("reason", Text, nullable=False),
        sa.Column("moved", Json, nullable=False),
        sa.Column("merged_at", Instant, nullable=False),
        sa.Column("event_id", Id),
        sa.Column("undone_at", Instant),
        sa.Column("undone_by", Id),
        sa.PrimaryKeyConstraint("id", name="pk_merges"),
        sa.ForeignKeyConstraint(["kept_id"], ["users.id"], name="fk_merges_kept_id"),
        sa.ForeignKeyConstraint(["absorbed_id"], ["users.id"], name="fk_merges_absorbed_id"),
    )
    op.create_index("ix_merges_kept_id", "merges", ["kept_id"])
    op.create_index("ix_merges_absorbed_id", "merges", ["absorbed_id"])


def merge_suggestions() -> None:
    op.create_table(
        "merge_suggestions",
        sa.Column("user_id", Id, nullable=False),
        sa.Column("other_id", Id, nullable=False),
        sa.Column("reason", Text, nullable=False),
        sa.Column("suggested_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "other_id", name="pk_merge_suggestions"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_merge_suggestions_user_id"),
        sa.ForeignKeyConstraint(["other_id"], ["users.id"], name="fk_merge_suggestions_other_id"),
    )


def tags() -> None:
    op.create_table(
        "tag_groups",
        sa.Column("id", Id, nullable=False),
        sa.Column("key", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("exclusive", Flag, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tag_groups"),
        sa.UniqueConstraint("key", name="uq_tag_groups_key"),
    )
    op.create_table(
        "tags",
        sa.Column("id", Id, nullable=False),
        sa.Column("key", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("kind", Text, nullable=False),
        sa.Column("group_id", Id),
        sa.Column("rule", Json),
        sa.Column("archived", Flag, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tags"),
        sa.UniqueConstraint("key", name="uq_tags_key"),
        sa.ForeignKeyConstraint(["group_id"], ["tag_groups.id"], name="fk_tags_group_id"),
        sa.CheckConstraint("kind in ('BASIC', 'BEHAVIOR', 'INTENT')", name=op.f("ck_tags_kind")),
    )
    op.create_index("ix_tags_group_id", "tags", ["group_id"])
    op.create_table(
        "user_tags",
        sa.Column("user_id", Id, nullable=False),
        sa.Column("tag_id", Id, nullable=False),
        sa.Column("source", Text, nullable=False),
        sa.Column("actor", Text),
        sa.Column("reason", Text),
        sa.Column("tagged_at", Instant, nullable=False),
        sa.Column("expires_at", Instant),
        sa.PrimaryKeyConstraint("user_id", "tag_id", name="pk_user_tags"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_user_tags_user_id"),
        sa.ForeignKeyConstraint(["tag_id"], ["tags.id"], name="fk_user_tags_tag_id"),
        sa.CheckConstraint("source in ('MANUAL', 'RULE', 'IMPORT', 'PLUGIN')", name=op.f("ck_user_tags_source")),
    )
    op.create_index("ix_user_tags_tag_id", "user_tags", ["tag_id", "user_id"])


def events() -> None:
    said = (
        sa.Column("type", Text, nullable=False),
        sa.Column("user_id", Id, comment="whose it is now; reads use this"),
        sa.Column("recorded_user_id", Id, comment="whose it was at its place in the log; handlers use this"),
        sa.Column("channel_id", Id),
        sa.Column("occurred_at", Instant, nullable=False),
        sa.Column("received_at", Instant, nullable=False),
        sa.Column("business_date", sa.Date, nullable=False),
        sa.Column("amount_minor", sa.BigInteger),
        sa.Column("currency", Text),
        sa.Column("properties", Json, nullable=False),
        sa.Column("source", Text, nullable=False),
        sa.Column("external_id", Text, nullable=False),
        sa.Column("late", Flag, nullable=False),
        sa.Column("digest", Text, nullable=False, comment="of what the caller said, to tell a repeat from a conflict"),
        sa.Column("cause_id", Id, comment="the event that a plugin's announcement follows from"),
        sa.Column("depth", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("backfill", Flag, nullable=False, server_default=sa.false()),
        sa.UniqueConstraint("source", "external_id", name="uq_events_source_external_id"),
    )
    if op.get_bind().dialect.name == "sqlite":
        # One writer: the order of the row numbers is the order of the commits.
        op.create_table(
            "events",
            sa.Column("position", sa.Integer, nullable=False),
            sa.Column("id", Id, nullable=False),
            *said,
            sa.PrimaryKeyConstraint("position", name="pk_events"),
            sa.UniqueConstraint("id", name="uq_events_id"),
        )
    else:
        # `ord` is the order of writing; `position` comes from the sequencer once the row is committed.
        # The last index is where the sequencer finds its work.
        op.create_table(
            "events",
            sa.Column("id", Id, nullable=False),
            sa.Column("ord", sa.BigInteger, sa.Identity(always=True), nullable=False),
            sa.Column("position", sa.BigInteger),
            *said,
            sa.PrimaryKeyConstraint("id", name="pk_events"),
            sa.UniqueConstraint("ord", name="uq_events_ord"),
            sa.UniqueConstraint("position", name="uq_events_position"),
        )
        op.create_index("ix_events_unnumbered", "events", ["ord"], postgresql_where=sa.text("position is null"))
    op.create_index("ix_events_user_id", "events", ["user_id", "occurred_at", "id"])
    op.create_index("ix_events_type", "events", ["type", "occurred_at"])
    op.create_index("ix_events_occurred_at", "events", ["occurred_at", "id"])


def log_head() -> None:
    made = op.create_table(
        "log_head",
        sa.Column("one", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("one", name="pk_log_head"),
    )
    op.bulk_insert(made, [{"one": 1, "position": 0}])


def event_types() -> None:
    op.create_table(
        "event_types",
        sa.Column("type", Text, nullable=False),
        sa.Column("owner", Text, nullable=False),
        sa.Column(
            "personal",
            Json,
            nullable=False,
            comment="names of properties that are about a person; kept for erase after a plugin is gone",
        ),
        sa.PrimaryKeyConstraint("type", name="pk_event_types"),
    )


def consumers() -> None:
    op.create_table(
        "consumers",
        sa.Column("plugin", Text, nullable=False),
        sa.Column("cursor", sa.BigInteger, nullable=False, comment="every event up to here is applied or parked"),
        sa.Column("state", Text, nullable=False),
        sa.Column("reason", Text),
        sa.Column("since", Instant, nullable=False),
        sa.Column(
            "backfill_to", sa.BigInteger, nullable=False, comment="events up to here were history when the plugin was enabled"
        ),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0", comment="failed batches in a row, for the breaker"),
        sa.Column("next_attempt_at", Instant),
        sa.Column("moved_at", Instant, comment="when the cursor last moved"),
        sa.PrimaryKeyConstraint("plugin", name="pk_consumers"),
        sa.CheckConstraint("state in ('ACTIVE', 'DEGRADED', 'PAUSED')", name=op.f("ck_consumers_state")),
    )
    op.create_table(
        "parked_events",
        sa.Column("plugin", Text, nullable=False),
        sa.Column("event_id", Id, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("key", Text, nullable=False, comment="whose later events wait behind this one"),
        sa.Column("state", Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", Text),
        sa.Column("parked_at", Instant, nullable=False),
        sa.Column("next_attempt_at", Instant),
        sa.PrimaryKeyConstraint("plugin", "event_id", name="pk_parked_events"),
        sa.CheckConstraint("state in ('RETRYING', 'DEAD', 'BEHIND', 'SKIPPED')", name=op.f("ck_parked_events_state")),
    )
    op.create_index("ix_parked_events_key", "parked_events", ["plugin", "key", "position"])
    op.create_index("ix_parked_events_next_attempt_at", "parked_events", ["plugin", "next_attempt_at"])
    op.create_table(
        "out_of_turn",
        sa.Column("n", Counter, autoincrement=True, nullable=False),
        sa.Column("plugin", Text, nullable=False),
        sa.Column("event_id", Id, nullable=False),
        sa.Column("after", sa.BigInteger, nullable=False, comment="the plugin's cursor when the event was applied"),
        sa.PrimaryKeyConstraint("n", name="pk_out_of_turn"),
        sa.UniqueConstraint("plugin", "event_id", name="uq_out_of_turn_plugin_event_id"),
    )
    op.create_index("ix_out_of_turn_after", "out_of_turn", ["plugin", "after", "n"])
    op.create_table(
        "workers",
        sa.Column("id", Id, nullable=False),
        sa.Column("host", Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started_at", Instant, nullable=False),
        sa.Column("seen_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )


def keys_and_audit() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column(
            "hash",
            sa.LargeBinary,
            nullable=False,
            comment="keyed BLAKE2b of the key; the key itself is shown once and never kept",
        ),
        sa.Column("scopes", Json, nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("expires_at", Instant),
        sa.Column("revoked_at", Instant),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
        sa.UniqueConstraint("name", name="uq_api_keys_name"),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", Id, nullable=False),
        sa.Column("at", Instant, nullable=False),
        sa.Column("actor", Text, nullable=False),
        sa.Column("action", Text, nullable=False),
        sa.Column("subject", Text),
        sa.Column("detail", Json, nullable=False, comment="names of fields, never personal values"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"])


def work() -> None:
    op.create_table(
        "jobs",
        sa.Column("name", Text, nullable=False),
        sa.Column("next_run_at", Instant, nullable=False),
        sa.Column("last_run_at", Instant),
        sa.Column("last_error", Text),
        sa.PrimaryKeyConstraint("name", name="pk_jobs"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", Id, nullable=False),
        sa.Column("plugin", Text, nullable=False),
        sa.Column("kind", Text, nullable=False),
        sa.Column("payload", Json, nullable=False),
        sa.Column("state", Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", Text),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("next_attempt_at", Instant),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_next_attempt_at", "outbox", ["state", "next_attempt_at"])
    op.create_table(
        "imports",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("kind", Text, nullable=False),
        sa.Column("state", Text, nullable=False),
        sa.Column(
            "fingerprint",
            Text,
            nullable=False,
            comment="of the file and its mapping; a second run of the same resumes or is counted again",
        ),
        sa.Column("rows_read", sa.BigInteger, nullable=False),
        sa.Column("rows_total", sa.BigInteger),
        sa.Column("accepted", sa.BigInteger, nullable=False),
        sa.Column("duplicates", sa.BigInteger, nullable=False),
        sa.Column("rejected", sa.BigInteger, nullable=False),
        sa.Column("started_at", Instant, nullable=False),
        sa.Column("finished_at", Instant),
        sa.Column("error", Text),
        sa.PrimaryKeyConstraint("id", name="pk_imports"),
    )
    op.create_index("ix_imports_fingerprint", "imports", ["fingerprint"])
