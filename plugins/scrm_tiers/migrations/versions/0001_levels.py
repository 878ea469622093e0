"""Accounts, days, orders, tasks, changes of level, merges, and the scheme."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.api import Id, Instant, Json, Text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    accounts()
    benefits()
    bounds()
    levels()
    scheme()
    days()
    merges()
    orders()
    tasks()
    transitions()
    transition_values()


def accounts() -> None:
    op.create_table(
        "tiers_accounts",
        sa.Column("id", Id, nullable=False),
        sa.Column("user_id", Id, nullable=False, comment="whose events it takes; a pseudonym once the person is erased"),
        sa.Column("holder_id", Id, nullable=False, comment="whose it counts as now: after a merge the survivor"),
        sa.Column("tier", Text, comment="key of the level that was given; null: none, or the one that everybody has"),
        sa.Column("since", Instant),
        sa.Column("valid_until", Instant, comment="the first review at which the level may fall"),
        sa.Column("pin", Text, comment="key of the level below which nothing lowers"),
        sa.Column("pinned_until", Instant),
        sa.Column("failures", sa.Integer(), nullable=False, comment="reviews failed in a row and let pass"),
        sa.Column("changes", sa.Integer(), nullable=False, comment="how often the level has changed"),
        sa.Column("seen_on", sa.Date(), nullable=False, comment="the newest day of which something is known"),
        sa.Column("reviewed_on", sa.Date(), nullable=False, comment="the newest review that was done"),
        sa.CheckConstraint("(pin is null) = (pinned_until is null)", name=op.f("ck_tiers_accounts_pin")),
        sa.CheckConstraint("failures >= 0", name=op.f("ck_tiers_accounts_failures")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tiers_accounts")),
        sa.UniqueConstraint("user_id", name=op.f("uq_tiers_accounts_user_id")),
    )
    op.create_index("ix_tiers_accounts_holder_id", "tiers_accounts", ["holder_id"])
    op.create_index("ix_tiers_accounts_reviewed_on", "tiers_accounts", ["reviewed_on"])
    op.create_index("ix_tiers_accounts_tier", "tiers_accounts", ["tier"])


def benefits() -> None:
    op.create_table(
        "tiers_benefits",
        sa.Column("level", Text, nullable=False),
        sa.Column("place", sa.SmallInteger(), nullable=False),
        sa.Column("key", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("names", Text, nullable=False, comment="a JSON object: names by language tag"),
        sa.Column("value", Json),
        sa.PrimaryKeyConstraint("level", "place", name=op.f("pk_tiers_benefits")),
    )


def bounds() -> None:
    op.create_table(
        "tiers_bounds",
        sa.Column("level", Text, nullable=False),
        sa.Column("metric", Text, nullable=False),
        sa.Column("place", sa.SmallInteger(), nullable=False),
        sa.Column("bound", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("level", "metric", name=op.f("pk_tiers_bounds")),
    )


def levels() -> None:
    op.create_table(
        "tiers_levels",
        sa.Column("id", Id, nullable=False, comment="follows from the key"),
        sa.Column("key", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("names", Text, nullable=False, comment="a JSON object: names by language tag"),
        sa.Column(
            "rank",
            sa.SmallInteger(),
            nullable=False,
            comment="its place from 1, the lowest; 0: the scheme does not have it any more",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tiers_levels")),
        sa.UniqueConstraint("key", name=op.f("uq_tiers_levels_key")),
    )


def scheme() -> None:
    op.create_table(
        "tiers_scheme",
        sa.Column("one", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", Text, nullable=False, comment="of the rules that it is made of"),
        sa.Column("match_kind", Text, nullable=False),
        sa.Column("window_kind", Text, nullable=False),
        sa.Column("currency", Text, nullable=False),
        sa.Column("base", Text, comment="key of the level that everybody has"),
        sa.Column("lowest", Text, nullable=False, comment="key of the lowest level"),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_tiers_scheme")),
    )


def days() -> None:
    op.create_table(
        "tiers_days",
        sa.Column("account_id", Id, nullable=False),
        sa.Column("counted_on", sa.Date(), nullable=False, comment="the day it counts on; of a refund, its order's"),
        sa.Column("known_on", sa.Date(), nullable=False, comment="the day it happened"),
        sa.Column("spend", sa.BigInteger(), nullable=False, comment="minor units"),
        sa.Column("orders", sa.BigInteger(), nullable=False),
        sa.Column("points_earned", sa.BigInteger(), nullable=False),
        sa.Column("growth", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["tiers_accounts.id"], name=op.f("fk_tiers_days_account_id")),
        sa.PrimaryKeyConstraint("account_id", "counted_on", "known_on", name=op.f("pk_tiers_days")),
    )


def merges() -> None:
    op.create_table(
        "tiers_merges",
        sa.Column("id", Id, nullable=False, comment="the event of the merge"),
        sa.Column("kept_id", Id, nullable=False),
        sa.Column("absorbed_id", Id, nullable=False),
        sa.Column("took_pin", sa.Boolean(), nullable=False, comment="whether the survivor's pin is the absorbed one's"),
        sa.Column("undone_by", Id, comment="the event that undid it"),
        sa.ForeignKeyConstraint(["absorbed_id"], ["tiers_accounts.id"], name=op.f("fk_tiers_merges_absorbed_id")),
        sa.ForeignKeyConstraint(["kept_id"], ["tiers_accounts.id"], name=op.f("fk_tiers_merges_kept_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tiers_merges")),
    )
    op.create_index("ix_tiers_merges_absorbed_id", "tiers_merges", ["absorbed_id"])
    op.create_index("ix_tiers_merges_kept_id", "tiers_merges", ["kept_id"])


def orders() -> None:
    op.create_table(
        "tiers_orders",
        sa.Column("id", Id, nullable=False),
        sa.Column("account_id", Id, nullable=False),
        sa.Column("order_id", Text, nullable=False),
        sa.Column("counted_on", sa.Date(), comment="the day of its first payment; null while only a refund is known"),
        sa.Column("paid", sa.BigInteger(), nullable=False),
        sa.Column("refunded", sa.BigInteger(), nullable=False),
        sa.Column("refunded_on", sa.Date(), comment="the latest refund"),
        sa.Column("points", sa.BigInteger(), nullable=False, comment="points announced for it in all"),
        sa.CheckConstraint("paid >= 0 and refunded >= 0 and points >= 0", name=op.f("ck_tiers_orders_amounts")),
        sa.ForeignKeyConstraint(["account_id"], ["tiers_accounts.id"], name=op.f("fk_tiers_orders_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tiers_orders")),
        sa.UniqueConstraint("account_id", "order_id", name=op.f("uq_tiers_orders_account_id_order_id")),
    )


def tasks() -> None:
    op.create_table(
        "tiers_tasks",
        sa.Column("account_id", Id, nullable=False),
        sa.Column("task", Text, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.CheckConstraint("times > 0", name=op.f("ck_tiers_tasks_times")),
        sa.ForeignKeyConstraint(["account_id"], ["tiers_accounts.id"], name=op.f("fk_tiers_tasks_account_id")),
        sa.PrimaryKeyConstraint("account_id", "task", "day", name=op.f("pk_tiers_tasks")),
    )


def transitions() -> None:
    op.create_table(
        "tiers_transitions",
        sa.Column("id", Id, nullable=False),
        sa.Column("account_id", Id, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="the account's first is 1"),
        sa.Column("from_tier", Text),
        sa.Column("to_tier", Text),
        sa.Column("at", Instant, nullable=False),
        sa.Column("cause", Text, nullable=False),
        sa.Column("event_id", Id, nullable=False, comment="the event it follows from"),
        sa.Column("counted_from", sa.Date(), comment="the first day of the window; null: from ever"),
        sa.Column("counted_to", sa.Date(), nullable=False, comment="the last day of the window"),
        sa.CheckConstraint("cause in ('UPGRADE', 'REVIEW', 'PIN', 'UNPIN', 'MERGE')", name=op.f("ck_tiers_transitions_cause")),
        sa.ForeignKeyConstraint(["account_id"], ["tiers_accounts.id"], name=op.f("fk_tiers_transitions_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tiers_transitions")),
    )
    op.create_index("ix_tiers_transitions_account_id", "tiers_transitions", ["account_id", "at", "number"])


def transition_values() -> None:
    op.create_table(
        "tiers_transition_values",
        sa.Column("transition_id", Id, nullable=False),
        sa.Column("metric", Text, nullable=False),
        sa.Column("place", sa.SmallInteger(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("required", sa.BigInteger(), comment="what the new level asks for; null where there is none"),
        sa.Column("currency", Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["transition_id"], ["tiers_transitions.id"], name=op.f("fk_tiers_transition_values_transition_id")
        ),
        sa.PrimaryKeyConstraint("transition_id", "metric", name=op.f("pk_tiers_transition_values")),
    )
