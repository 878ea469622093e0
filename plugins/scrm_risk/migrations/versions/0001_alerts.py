"""Rules, alerts with their timelines, what was judged, messages, people, and the register."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.api import Id, Instant, Json, Text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    evaluations()
    messages()
    people()
    register()
    rules()
    samples()
    scopes()
    settings()
    alerts()
    held()
    moves()
    transitions()


def evaluations() -> None:
    op.create_table(
        "risk_evaluations",
        sa.Column("id", Id, nullable=False, comment="the event"),
        sa.Column("as_of", Instant, nullable=False),
        sa.Column("rules", sa.Integer(), nullable=False),
        sa.Column("fired", sa.Integer(), nullable=False),
        sa.Column("resolved", sa.Integer(), nullable=False),
        sa.Column("problems", Json, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_risk_evaluations")),
    )
    op.create_index("ix_risk_evaluations_as_of", "risk_evaluations", ["as_of"])


def messages() -> None:
    op.create_table(
        "risk_messages",
        sa.Column("id", Id, nullable=False),
        sa.Column("at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_risk_messages")),
    )
    op.create_index("ix_risk_messages_at", "risk_messages", ["at"])


def people() -> None:
    op.create_table(
        "risk_people",
        sa.Column("user_id", Id, nullable=False),
        sa.Column("holder_id", Id, nullable=False, comment="who the person became: the survivor of a merge, or a pseudonym"),
        sa.Column("erased", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_risk_people")),
    )


def register() -> None:
    op.create_table(
        "risk_register",
        sa.Column("id", Id, nullable=False, comment="follows from the key"),
        sa.Column("key", Text, nullable=False),
        sa.Column("title", Text, nullable=False),
        sa.Column("category", Text, nullable=False),
        sa.Column("owner", Text, nullable=False),
        sa.Column("description", Text, nullable=True),
        sa.Column("probability", sa.SmallInteger(), nullable=False),
        sa.Column("impact", sa.SmallInteger(), nullable=False),
        sa.Column("residual_probability", sa.SmallInteger(), nullable=True),
        sa.Column("residual_impact", sa.SmallInteger(), nullable=True),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.Column("accepted_at", Instant, nullable=True),
        sa.Column("accepted_by", Text, nullable=True),
        sa.Column("accepted_until", sa.Date(), nullable=True, comment="the last day on which it is accepted"),
        sa.Column("acceptance_reason", Text, nullable=True),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("updated_at", Instant, nullable=False),
        sa.CheckConstraint(
            "(residual_probability is null) = (residual_impact is null)", name=op.f("ck_risk_register_residual_whole")
        ),
        sa.CheckConstraint("probability between 1 and 5 and impact between 1 and 5", name=op.f("ck_risk_register_score")),
        sa.CheckConstraint(
            "residual_probability between 1 and 5 and residual_impact between 1 and 5", name=op.f("ck_risk_register_residual")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_risk_register")),
        sa.UniqueConstraint("key", name=op.f("uq_risk_register_key")),
    )


def rules() -> None:
    op.create_table(
        "risk_rules",
        sa.Column("id", Id, nullable=False, comment="follows from the key"),
        sa.Column("key", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("names", Text, nullable=False, comment="a JSON object: names by language tag"),
        sa.Column("indicator", Text, nullable=False),
        sa.Column("condition", Json, nullable=False),
        sa.Column("severity", Text, nullable=False),
        sa.Column("for_periods", sa.Integer(), nullable=False),
        sa.Column("period", Text, nullable=False),
        sa.Column("per", Text, nullable=False, comment="all, or user"),
        sa.Column("playbook", Text, nullable=True),
        sa.Column("assignee", Text, nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("saved", sa.Boolean(), nullable=False, comment="by a mutation; else it is the settings'"),
        sa.Column("removed", sa.Boolean(), nullable=False, comment="it is kept for its alerts"),
        sa.Column("said", Json, nullable=False, comment="the whole rule"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_risk_rules")),
        sa.UniqueConstraint("key", name=op.f("uq_risk_rules_key")),
    )


def samples() -> None:
    op.create_table(
        "risk_samples",
        sa.Column("rule_key", Text, nullable=False),
        sa.Column("scope_key", Text, nullable=False),
        sa.Column("start", sa.Date(), nullable=False),
        sa.Column("holds", sa.Boolean(), nullable=True, comment="null: a value was missing"),
        sa.Column("streak", sa.Integer(), nullable=False, comment="for how many periods in a row by then"),
        sa.PrimaryKeyConstraint("rule_key", "scope_key", "start", name=op.f("pk_risk_samples")),
    )


def scopes() -> None:
    op.create_table(
        "risk_scopes",
        sa.Column("rule_key", Text, nullable=False),
        sa.Column("scope_key", Text, nullable=False),
        sa.Column("scope", Json, nullable=False),
        sa.Column("user_id", Id, nullable=True, comment="whose scope it is, if it is somebody's"),
        sa.Column("state", Text, nullable=False),
        sa.Column("alert_id", Id, nullable=True, comment="the open alert"),
        sa.Column("snoozed_until", Instant, nullable=True),
        sa.Column("held_at", Instant, nullable=True),
        sa.Column("fired", Json, nullable=False, comment="when it fired lately"),
        sa.Column("fired_on", sa.Date(), nullable=True),
        sa.Column("settled", sa.Date(), nullable=True),
        sa.Column("newest", sa.Date(), nullable=True, comment="the newest period that was judged"),
        sa.Column("problem", Text, nullable=True, comment="why it could not be evaluated the last time"),
        sa.PrimaryKeyConstraint("rule_key", "scope_key", name=op.f("pk_risk_scopes")),
    )
    op.create_index("ix_risk_scopes_user_id", "risk_scopes", ["user_id"])


def settings() -> None:
    op.create_table(
        "risk_settings",
        sa.Column("one", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", Text, nullable=False, comment="of the rules of the settings as they were last kept"),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_risk_settings")),
    )


def alerts() -> None:
    op.create_table(
        "risk_alerts",
        sa.Column("id", Id, nullable=False),
        sa.Column("rule_id", Id, nullable=False),
        sa.Column("rule_key", Text, nullable=False),
        sa.Column("scope_key", Text, nullable=False),
        sa.Column("scope", Json, nullable=False),
        sa.Column(
            "user_id",
            Id,
            nullable=True,
            comment="whom it is about; after a merge the survivor, a pseudonym once the person is erased",
        ),
        sa.Column("state", Text, nullable=False, comment="without snoozing, which is a time"),
        sa.Column("severity", Text, nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("reason", Text, nullable=False, comment="a JSON object: what is said of it"),
        sa.Column("started_at", Instant, nullable=False),
        sa.Column("fired_at", Instant, nullable=True),
        sa.Column("due_at", Instant, nullable=True),
        sa.Column("breached_at", Instant, nullable=True, comment="the last due time that was missed"),
        sa.Column("escalations", sa.Integer(), nullable=False),
        sa.Column("assignee", Text, nullable=True),
        sa.Column("acknowledged_at", Instant, nullable=True),
        sa.Column("acknowledged_by", Text, nullable=True),
        sa.Column("resolved_at", Instant, nullable=True),
        sa.Column("snoozed_until", Instant, nullable=True),
        sa.Column("phase", Text, nullable=False),
        sa.Column("points", sa.Integer(), nullable=False, comment="what it adds to a person's risk while it is open"),
        sa.Column("changes", sa.Integer(), nullable=False, comment="lines of its timeline"),
        sa.CheckConstraint("(state = 'RESOLVED') = (resolved_at is not null)", name=op.f("ck_risk_alerts_resolved")),
        sa.CheckConstraint("state in ('PENDING', 'FIRING', 'ACKNOWLEDGED', 'RESOLVED')", name=op.f("ck_risk_alerts_state")),
        sa.ForeignKeyConstraint(["rule_id"], ["risk_rules.id"], name=op.f("fk_risk_alerts_rule_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_risk_alerts")),
    )
    op.create_index("ix_risk_alerts_due_at", "risk_alerts", ["due_at"])
    op.create_index(
        "ix_risk_alerts_open",
        "risk_alerts",
        ["rule_key", "scope_key"],
        unique=True,
        sqlite_where=sa.text("resolved_at is null"),
        postgresql_where=sa.text("resolved_at is null"),
    )
    op.create_index("ix_risk_alerts_user_id", "risk_alerts", ["user_id"])


def held() -> None:
    op.create_table(
        "risk_held",
        sa.Column("to_name", Text, nullable=False),
        sa.Column("alert_id", Id, nullable=False),
        sa.Column("what", Text, nullable=False),
        sa.Column("at", Instant, nullable=False),
        sa.ForeignKeyConstraint(["alert_id"], ["risk_alerts.id"], name=op.f("fk_risk_held_alert_id")),
        sa.PrimaryKeyConstraint("to_name", "alert_id", name=op.f("pk_risk_held")),
    )


def moves() -> None:
    op.create_table(
        "risk_moves",
        sa.Column("merge_id", Id, nullable=False, comment="the event of the merge"),
        sa.Column("alert_id", Id, nullable=False),
        sa.ForeignKeyConstraint(["alert_id"], ["risk_alerts.id"], name=op.f("fk_risk_moves_alert_id")),
        sa.PrimaryKeyConstraint("merge_id", "alert_id", name=op.f("pk_risk_moves")),
    )


def transitions() -> None:
    op.create_table(
        "risk_transitions",
        sa.Column("id", Id, nullable=False),
        sa.Column("alert_id", Id, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="the alert's first is 1"),
        sa.Column("at", Instant, nullable=False),
        sa.Column("from_state", Text, nullable=True),
        sa.Column("to_state", Text, nullable=False),
        sa.Column("phase", Text, nullable=True),
        sa.Column("actor", Text, nullable=True, comment="null: the evaluation"),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("comment", Text, nullable=True),
        sa.Column("event_id", Id, nullable=False, comment="the event it follows from"),
        sa.ForeignKeyConstraint(["alert_id"], ["risk_alerts.id"], name=op.f("fk_risk_transitions_alert_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_risk_transitions")),
        sa.UniqueConstraint("alert_id", "number", name=op.f("uq_risk_transitions_alert_id_number")),
    )
