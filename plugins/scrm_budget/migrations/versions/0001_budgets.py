"""Budgets, lines, what they name, people, commitments, entries, thresholds, revenue and merges; entries cannot be changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.api import Id, Instant, Json, Text, append_only

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    budgets()
    guard()
    people()
    lines()
    earned()
    merges()
    revenue()
    commitments()
    crossings()
    sources()
    entries()
    op.bulk_insert(sa.table("budget_guard", sa.column("one", sa.SmallInteger())), [{"one": 1}])
    append_only("budget_entries")


def budgets() -> None:
    op.create_table(
        "budget_budgets",
        sa.Column("id", Id, nullable=False),
        sa.Column("chain_id", Id, nullable=False, comment="the first budget of those that follow one another"),
        sa.Column("previous_id", Id),
        sa.Column("name", Text, nullable=False),
        sa.Column("opens_on", sa.Date(), nullable=False),
        sa.Column("ends_on", sa.Date(), nullable=False, comment="the first day after it"),
        sa.Column(
            "closes_on", sa.Date(), nullable=False, comment="the first day on which it is closed, if nobody closes it before"
        ),
        sa.Column("closed_on", sa.Date(), comment="the day on which somebody closed it"),
        sa.Column("currency", Text, nullable=False),
        sa.Column("timezone", Text, nullable=False),
        sa.Column("rollover", Text, nullable=False, comment="what its lines take over from those before"),
        sa.Column("rollover_cap", sa.BigInteger(), comment="at most so much for each line"),
        sa.Column("ranges", Json, nullable=False, comment="category to lowest and highest percent"),
        sa.Column("cause_percent", sa.SmallInteger(), nullable=False),
        sa.CheckConstraint("rollover in ('NONE', 'REMAINING', 'CAPPED', 'NEGATIVE')", name=op.f("ck_budget_budgets_rollover")),
        sa.CheckConstraint("opens_on < ends_on and ends_on <= closes_on", name=op.f("ck_budget_budgets_days")),
        sa.ForeignKeyConstraint(["previous_id"], ["budget_budgets.id"], name=op.f("fk_budget_budgets_previous_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_budgets")),
        sa.UniqueConstraint("previous_id", name=op.f("uq_budget_budgets_previous_id")),
    )
    op.create_index("ix_budget_budgets_chain_id", "budget_budgets", ["chain_id", "opens_on"])
    op.create_index("ix_budget_budgets_opens_on", "budget_budgets", ["opens_on"])


def guard() -> None:
    op.create_table(
        "budget_guard",
        sa.Column("one", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_budget_guard")),
        comment="its row is locked while lines are given their channels and campaigns, which no two may share",
    )


def people() -> None:
    op.create_table(
        "budget_people",
        sa.Column("id", Id, nullable=False),
        sa.Column("user_id", Id, nullable=False, comment="whose events it takes; a pseudonym once the person is erased"),
        sa.Column("holder_id", Id, nullable=False, comment="whose it counts as now: after a merge the survivor"),
        sa.Column("touched_at", Instant, comment="the last touch"),
        sa.Column("channel_id", Id, comment="its channel"),
        sa.Column("campaign", Text, comment="its campaign"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_people")),
        sa.UniqueConstraint("user_id", name=op.f("uq_budget_people_user_id")),
    )
    op.create_index("ix_budget_people_holder_id", "budget_people", ["holder_id"])


def lines() -> None:
    op.create_table(
        "budget_lines",
        sa.Column("id", Id, nullable=False),
        sa.Column("budget_id", Id, nullable=False),
        sa.Column("previous_id", Id, comment="the line whose rest it takes over"),
        sa.Column("category", Text, nullable=False),
        sa.Column("place", sa.SmallInteger(), nullable=False, comment="its place among the lines; 0: the reserve"),
        sa.Column("planned", sa.BigInteger(), nullable=False),
        sa.Column("allocated", sa.BigInteger(), nullable=False),
        sa.Column("carrying", sa.BigInteger(), nullable=False, comment="what it takes over once the budget before is closed"),
        sa.Column(
            "committed", sa.BigInteger(), nullable=False, comment="what open commitments keep, those included whose time is over"
        ),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("policy", Text, nullable=False),
        sa.Column("cap_per_day", sa.BigInteger()),
        sa.Column("cap_per_user", sa.BigInteger()),
        sa.Column("expected_roi", sa.BigInteger(), comment="in ten-thousandths"),
        sa.Column("cause", Text),
        sa.Column("note", Text),
        sa.CheckConstraint("cause in ('MARKET', 'CAMPAIGN', 'OVERRUN')", name=op.f("ck_budget_lines_cause")),
        sa.CheckConstraint("policy in ('BLOCK', 'WARN', 'ALLOW')", name=op.f("ck_budget_lines_policy")),
        sa.CheckConstraint("committed >= 0", name=op.f("ck_budget_lines_committed")),
        sa.ForeignKeyConstraint(["budget_id"], ["budget_budgets.id"], name=op.f("fk_budget_lines_budget_id")),
        sa.ForeignKeyConstraint(["previous_id"], ["budget_lines.id"], name=op.f("fk_budget_lines_previous_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_lines")),
        sa.UniqueConstraint("budget_id", "category", name=op.f("uq_budget_lines_budget_id_category")),
    )
    op.create_index("ix_budget_lines_previous_id", "budget_lines", ["previous_id"])


def earned() -> None:
    op.create_table(
        "budget_earned",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("currency", Text, nullable=False),
        sa.Column("touch", Text, nullable=False, comment="the channel's id and the campaign, as one key"),
        sa.Column("channel_id", Id),
        sa.Column("campaign", Text),
        sa.Column("amount", sa.BigInteger(), nullable=False, comment="what the known rows of budget_revenue sum to"),
        sa.PrimaryKeyConstraint("day", "currency", "touch", name=op.f("pk_budget_earned")),
    )


def merges() -> None:
    op.create_table(
        "budget_merges",
        sa.Column("id", Id, nullable=False, comment="the event of the merge"),
        sa.Column("kept_id", Id, nullable=False),
        sa.Column("absorbed_id", Id, nullable=False),
        sa.Column("undone_by", Id, comment="the event that undid it"),
        sa.ForeignKeyConstraint(["absorbed_id"], ["budget_people.id"], name=op.f("fk_budget_merges_absorbed_id")),
        sa.ForeignKeyConstraint(["kept_id"], ["budget_people.id"], name=op.f("fk_budget_merges_kept_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_merges")),
    )
    op.create_index("ix_budget_merges_kept_id", "budget_merges", ["kept_id"])


def revenue() -> None:
    op.create_table(
        "budget_revenue",
        sa.Column("id", Id, nullable=False),
        sa.Column("person_id", Id, nullable=False),
        sa.Column("order_id", Text, nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False, comment="paid, or below 0 refunded; minor units"),
        sa.Column("currency", Text, nullable=False),
        sa.Column("occurred_at", Instant, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("known", sa.Boolean(), nullable=False, comment="whether its order has come"),
        sa.Column("channel_id", Id, comment="of the last touch before the order"),
        sa.Column("campaign", Text, comment="of the last touch before the order"),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_budget_revenue_amount")),
        sa.ForeignKeyConstraint(["person_id"], ["budget_people.id"], name=op.f("fk_budget_revenue_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_revenue")),
    )
    op.create_index("ix_budget_revenue_day", "budget_revenue", ["day"])
    op.create_index("ix_budget_revenue_person_id", "budget_revenue", ["person_id", "order_id"])


def commitments() -> None:
    op.create_table(
        "budget_commitments",
        sa.Column("id", Id, nullable=False),
        sa.Column("line_id", Id, nullable=False),
        sa.Column("person_id", Id),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False, comment="of these the part that was spent"),
        sa.Column("released", sa.BigInteger(), nullable=False, comment="of these the part that is free again"),
        sa.Column("state", Text, nullable=False, comment="OPEN, also past its deadline, when it keeps nothing any more"),
        sa.Column("counts_on", sa.Date(), nullable=False, comment="the business day it counts on for caps"),
        sa.Column("reference", Text),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("expires_at", Instant, nullable=False, comment="the first instant at which it keeps nothing"),
        sa.Column("resolved_at", Instant),
        sa.CheckConstraint("state in ('OPEN', 'SPENT', 'RELEASED', 'EXPIRED')", name=op.f("ck_budget_commitments_state")),
        sa.CheckConstraint(
            "amount > 0 and spent >= 0 and released >= 0 and spent + released <= amount",
            name=op.f("ck_budget_commitments_amounts"),
        ),
        sa.ForeignKeyConstraint(["line_id"], ["budget_lines.id"], name=op.f("fk_budget_commitments_line_id")),
        sa.ForeignKeyConstraint(["person_id"], ["budget_people.id"], name=op.f("fk_budget_commitments_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_commitments")),
    )
    op.create_index("ix_budget_commitments_counts_on", "budget_commitments", ["line_id", "counts_on"])
    op.create_index("ix_budget_commitments_line_id", "budget_commitments", ["line_id", "state", "expires_at"])
    op.create_index("ix_budget_commitments_person_id", "budget_commitments", ["person_id"])


def crossings() -> None:
    op.create_table(
        "budget_crossings",
        sa.Column("id", Id, nullable=False),
        sa.Column("budget_id", Id, nullable=False),
        sa.Column("line_id", Id, comment="null: the whole budget"),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("at", Instant, nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("funds", sa.BigInteger(), nullable=False),
        sa.Column("event_id", Id, nullable=False),
        sa.ForeignKeyConstraint(["budget_id"], ["budget_budgets.id"], name=op.f("fk_budget_crossings_budget_id")),
        sa.ForeignKeyConstraint(["line_id"], ["budget_lines.id"], name=op.f("fk_budget_crossings_line_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_crossings")),
    )
    op.create_index("ix_budget_crossings_budget_id", "budget_crossings", ["budget_id"])


def sources() -> None:
    op.create_table(
        "budget_sources",
        sa.Column("line_id", Id, nullable=False),
        sa.Column("key", Text, nullable=False, comment="the campaign, or the channel's id"),
        sa.Column("channel_id", Id, comment="null: it is a campaign"),
        sa.ForeignKeyConstraint(["line_id"], ["budget_lines.id"], name=op.f("fk_budget_sources_line_id")),
        sa.PrimaryKeyConstraint("line_id", "key", name=op.f("pk_budget_sources")),
    )
    op.create_index("ix_budget_sources_channel_id", "budget_sources", ["channel_id"])
    op.create_index("ix_budget_sources_key", "budget_sources", ["key"])


def entries() -> None:
    op.create_table(
        "budget_entries",
        sa.Column("id", Id, nullable=False),
        sa.Column("budget_id", Id, nullable=False),
        sa.Column("line_id", Id, nullable=False),
        sa.Column("person_id", Id),
        sa.Column("commitment_id", Id),
        sa.Column("kind", Text, nullable=False),
        sa.Column(
            "amount", sa.BigInteger(), nullable=False, comment="minor units; below 0 what an adjustment or a transfer takes"
        ),
        sa.Column("occurred_at", Instant, nullable=False),
        sa.Column("recorded_at", Instant, nullable=False),
        sa.Column("counts_on", sa.Date(), nullable=False, comment="the business day"),
        sa.Column("cap_day", sa.Date(), nullable=False, comment="the business day for caps; of a refund, its spending's"),
        sa.Column("reference", Text),
        sa.Column("event_id", Id, nullable=False, comment="the event it follows from"),
        sa.Column("reverses", Id, comment="the spending that a refund takes back"),
        sa.Column("pair_id", Id, comment="the other half of a transfer"),
        sa.CheckConstraint(
            "kind in ('ALLOCATE', 'COMMIT', 'RELEASE', 'SPEND', 'REFUND', 'TRANSFER_IN', 'TRANSFER_OUT', 'ADJUST')",
            name=op.f("ck_budget_entries_kind"),
        ),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_budget_entries_amount")),
        sa.ForeignKeyConstraint(["budget_id"], ["budget_budgets.id"], name=op.f("fk_budget_entries_budget_id")),
        sa.ForeignKeyConstraint(["commitment_id"], ["budget_commitments.id"], name=op.f("fk_budget_entries_commitment_id")),
        sa.ForeignKeyConstraint(["line_id"], ["budget_lines.id"], name=op.f("fk_budget_entries_line_id")),
        sa.ForeignKeyConstraint(["person_id"], ["budget_people.id"], name=op.f("fk_budget_entries_person_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_entries")),
    )
    op.create_index("ix_budget_entries_budget_id", "budget_entries", ["budget_id", "occurred_at", "id"])
    op.create_index("ix_budget_entries_cap_day", "budget_entries", ["line_id", "cap_day"])
    op.create_index("ix_budget_entries_event_id", "budget_entries", ["event_id"])
    op.create_index("ix_budget_entries_line_id", "budget_entries", ["line_id", "counts_on"])
    op.create_index("ix_budget_entries_person_id", "budget_entries", ["person_id"])
    op.create_index("ix_budget_entries_reverses", "budget_entries", ["reverses"])
