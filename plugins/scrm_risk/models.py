"""Tables of risk.

An alert hangs on a rule and a scope; what the machine knows of both is a row of its own, so that a scope can be snoozed while
there is no alert. Alerts about a person name whose they are now; which a merge moved is kept, so that it can be undone. Rules are
kept as they were last applied or saved. The register's risks are written by people alone.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import Boolean, CheckConstraint, Column, Date, Float, ForeignKey, Index, Integer, SmallInteger, Table
from sqlalchemy import UniqueConstraint as Unique

from scrm.api import Id, Instant, Json, Text, plugin_metadata

metadata = plugin_metadata()


def _flag(name: str, comment: str | None = None) -> Column[bool]:
    return Column(name, Boolean(create_constraint=False), nullable=False, comment=comment)


settings = Table(
    "risk_settings",
    metadata,
    Column("one", SmallInteger, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False, comment="of the rules of the settings as they were last kept"),
)

guard = Table(
    "risk_guard",
    metadata,
    Column("one", SmallInteger, primary_key=True, autoincrement=False),
    comment="its row is locked by who decides on alerts or rules: one at a time",
)

rules = Table(
    "risk_rules",
    metadata,
    Column("id", Id, primary_key=True, comment="follows from the key"),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("names", Text, nullable=False, comment="a JSON object: names by language tag"),
    Column("indicator", Text, nullable=False),
    Column("condition", Json, nullable=False),
    Column("severity", Text, nullable=False),
    Column("for_periods", Integer, nullable=False),
    Column("period", Text, nullable=False),
    Column("per", Text, nullable=False, comment="all, or user"),
    Column("playbook", Text),
    Column("assignee", Text),
    _flag("enabled"),
    _flag("saved", "by a mutation; else it is the settings'"),
    _flag("removed", "it is kept for its alerts"),
    Column("said", Json, nullable=False, comment="the whole rule"),
    Unique("key"),
)

scopes = Table(
    "risk_scopes",
    metadata,
    Column("rule_key", Text, primary_key=True),
    Column("scope_key", Text, primary_key=True),
    Column("scope", Json, nullable=False),
    Column("user_id", Id, comment="whose scope it is, if it is somebody's"),
    Column("state", Text, nullable=False),
    Column("alert_id", Id, comment="the open alert"),
    Column("snoozed_until", Instant),
    Column("held_at", Instant),
    Column("fired", Json, nullable=False, comment="when it fired lately"),
    Column("fired_on", Date),
    Column("settled", Date),
    Column("newest", Date, comment="the newest period that was judged"),
    Column("problem", Text, comment="why it could not be evaluated the last time"),
    Index("ix_risk_scopes_user_id", "user_id"),
)

alerts = Table(
    "risk_alerts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("rule_id", Id, ForeignKey("risk_rules.id"), nullable=False),
    Column("rule_key", Text, nullable=False),
    Column("scope_key", Text, nullable=False),
    Column("scope", Json, nullable=False),
    Column("user_id", Id, comment="whom it is about; after a merge the survivor, a pseudonym once the person is erased"),
    Column("state", Text, nullable=False, comment="without snoozing, which is a time"),
    Column("severity", Text, nullable=False),
    Column("value", Float),
    Column("threshold", Float),
    Column("reason", Text, nullable=False, comment="a JSON object: what is said of it"),
    Column("started_at", Instant, nullable=False),
    Column("fired_at", Instant),
    Column("due_at", Instant),
    Column("breached_at", Instant, comment="the last due time that was missed"),
    Column("escalations", Integer, nullable=False),
    Column("assignee", Text),
    Column("acknowledged_at", Instant),
    Column("acknowledged_by", Text),
    Column("resolved_at", Instant),
    Column("snoozed_until", Instant),
    Column("phase", Text, nullable=False),
    Column("points", Integer, nullable=False, comment="what it adds to a person's risk while it is open"),
    Column("changes", Integer, nullable=False, comment="lines of its timeline"),
    CheckConstraint("state in ('PENDING', 'FIRING', 'ACKNOWLEDGED', 'RESOLVED')", name="state"),
    CheckConstraint("(state = 'RESOLVED') = (resolved_at is not null)", name="resolved"),
    Index("ix_risk_alerts_due_at", "due_at"),
    Index("ix_risk_alerts_user_id", "user_id"),
    Index(
        "ix_risk_alerts_open",
        "rule_key",
        "scope_key",
        unique=True,
        sqlite_where=sa.text("resolved_at is null"),
        postgresql_where=sa.text("resolved_at is null"),
    ),
)

transitions = Table(
    "risk_transitions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("alert_id", Id, ForeignKey("risk_alerts.id"), nullable=False),
    Column("number", Integer, nullable=False, comment="the alert's first is 1"),
    Column("at", Instant, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("phase", Text),
    Column("actor", Text, comment="null: the evaluation"),
    Column("value", Float),
    Column("comment", Text),
    Column("event_id", Id, nullable=False, comment="the event it follows from"),
    Unique("alert_id", "number"),
)

samples = Table(
    "risk_samples",
    metadata,
    Column("rule_key", Text, primary_key=True),
    Column("scope_key", Text, primary_key=True),
    Column("start", Date, primary_key=True),
    Column("holds", Boolean(create_constraint=False), comment="null: a value was missing"),
    Column("streak", Integer, nullable=False, comment="for how many periods in a row by then"),
    _flag("cut", "nothing before them was judged: there may be more"),
)

evaluations = Table(
    "risk_evaluations",
    metadata,
    Column("id", Id, primary_key=True, comment="the event"),
    Column("as_of", Instant, nullable=False),
    Column("rules", Integer, nullable=False),
    Column("fired", Integer, nullable=False),
    Column("resolved", Integer, nullable=False),
    Column("problems", Json, nullable=False),
    Index("ix_risk_evaluations_as_of", "as_of"),
)

messages = Table(
    "risk_messages",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Instant, nullable=False),
    Index("ix_risk_messages_at", "at"),
)

held = Table(
    "risk_held",
    metadata,
    Column("to_name", Text, primary_key=True),
    Column("alert_id", Id, ForeignKey("risk_alerts.id"), primary_key=True),
    Column("what", Text, nullable=False),
    Column("at", Instant, nullable=False),
)

people = Table(
    "risk_people",
    metadata,
    Column("user_id", Id, primary_key=True),
    Column("holder_id", Id, nullable=False, comment="who the person became: the survivor of a merge, or a pseudonym"),
    _flag("erased"),
)

moves = Table(
    "risk_moves",
    metadata,
    Column("merge_id", Id, primary_key=True, comment="the event of the merge"),
    Column("alert_id", Id, ForeignKey("risk_alerts.id"), primary_key=True),
)

register = Table(
    "risk_register",
    metadata,
    Column("id", Id, primary_key=True, comment="follows from the key"),
    Column("key", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("description", Text),
    Column("probability", SmallInteger, nullable=False),
    Column("impact", SmallInteger, nullable=False),
    Column("residual_probability", SmallInteger),
    Column("residual_impact", SmallInteger),
    _flag("closed"),
    Column("accepted_at", Instant),
    Column("accepted_by", Text),
    Column("accepted_until", Date, comment="the last day on which it is accepted"),
    Column("acceptance_reason", Text),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Unique("key"),
    CheckConstraint("probability between 1 and 5 and impact between 1 and 5", name="score"),
    CheckConstraint("residual_probability between 1 and 5 and residual_impact between 1 and 5", name="residual"),
    CheckConstraint("(residual_probability is null) = (residual_impact is null)", name="residual_whole"),
)
