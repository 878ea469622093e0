"""Accounts, entries, orders, lots, allocations and merges; entries cannot be changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.api import Id, Instant, Text, append_only

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KINDS = "'EARN', 'ACTIVATE', 'REDEEM', 'EXPIRE', 'ADJUST', 'REVERSE', 'RESTORE', 'TRANSFER_IN', 'TRANSFER_OUT', 'DEBT_REPAID'"


def upgrade() -> None:
    accounts_and_entries()
    orders()
    lots_and_allocations()
    merges()
    append_only("loyalty_entries")


def number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def to_account(table: str, column: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], ["loyalty_accounts.id"], name=f"fk_{table}_{column}")


def accounts_and_entries() -> None:
    op.create_table(
        "loyalty_accounts",
        sa.Column("id", Id, nullable=False),
        sa.Column("user_id", Id, nullable=False, comment="whose events it takes; a pseudonym once the person is erased"),
        sa.Column("holder_id", Id, nullable=False, comment="whose it counts as now: after a merge the survivor"),
        sa.Column(
            "debt", sa.BigInteger, nullable=False, comment="points spent and then taken back; the next credit pays it first"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_loyalty_accounts"),
        sa.UniqueConstraint("user_id", name="uq_loyalty_accounts_user_id"),
        sa.CheckConstraint("debt >= 0", name=op.f("ck_loyalty_accounts_debt")),
    )
    op.create_index("ix_loyalty_accounts_holder_id", "loyalty_accounts", ["holder_id"])
    op.create_table(
        "loyalty_entries",
        sa.Column("id", Id, nullable=False),
        sa.Column("account_id", Id, nullable=False),
        sa.Column("kind", Text, nullable=False),
        sa.Column("points", sa.BigInteger, nullable=False, comment="positive credits, negative debits"),
        sa.Column("occurred_at", Instant, nullable=False),
        sa.Column("recorded_at", Instant, nullable=False),
        sa.Column("reason", Text),
        sa.Column("reference", Text),
        sa.Column("rule", Text, comment="the earn rule of a credit"),
        sa.Column("event_id", Id, nullable=False, comment="the event it follows from"),
        sa.Column("expires_at", Instant),
        sa.Column("reverses", Id, comment="the entry that a reversal takes back"),
        sa.Column("pair_id", Id, comment="the other half of a transfer"),
        sa.PrimaryKeyConstraint("id", name="pk_loyalty_entries"),
        to_account("loyalty_entries", "account_id"),
        sa.CheckConstraint("points <> 0", name=op.f("ck_loyalty_entries_points")),
        sa.CheckConstraint(f"kind in ({KINDS})", name=op.f("ck_loyalty_entries_kind")),
    )
    op.create_index("ix_loyalty_entries_account_id", "loyalty_entries", ["account_id", "occurred_at", "id"])
    op.create_index("ix_loyalty_entries_event_id", "loyalty_entries", ["event_id"])


def orders() -> None:
    op.create_table(
        "loyalty_orders",
        sa.Column("id", Id, nullable=False),
        sa.Column("account_id", Id, nullable=False),
        sa.Column("order_id", Text, nullable=False),
        sa.Column("entry_id", Id, comment="its first credit; null while only a refund is known"),
        number("paid"),
        sa.Column("points", sa.BigInteger, nullable=False, comment="credited for it in all"),
        number("refunded"),
        sa.Column("refunded_at", Instant, comment="the latest refund"),
        sa.Column("reversed", sa.BigInteger, nullable=False, comment="points taken back for refunds so far, in whatever form"),
        sa.Column(
            "waived", sa.BigInteger, nullable=False, comment="of these the part that had expired, or that the policy let go"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_loyalty_orders"),
        to_account("loyalty_orders", "account_id"),
        sa.UniqueConstraint("account_id", "order_id", name="uq_loyalty_orders_account_id_order_id"),
        sa.CheckConstraint("0 <= waived and waived <= reversed and reversed <= points", name=op.f("ck_loyalty_orders_reversed")),
        sa.CheckConstraint("paid >= 0 and refunded >= 0", name=op.f("ck_loyalty_orders_amounts")),
    )


def lots_and_allocations() -> None:
    op.create_table(
        "loyalty_lots",
        sa.Column("id", Id, nullable=False),
        sa.Column("account_id", Id, nullable=False, comment="who may spend it"),
        sa.Column("home_id", Id, nullable=False, comment="who earned it"),
        sa.Column("entry_id", Id, nullable=False, comment="the credit that made it"),
        sa.Column("order_id", Id, comment="the order it was earned with"),
        number("original"),
        number("remaining"),
        sa.Column("earned_at", Instant, nullable=False),
        sa.Column("available_at", Instant, nullable=False),
        sa.Column("expires_at", Instant, comment="the first instant at which it cannot be spent any more; null: never"),
        sa.Column("expires_on", sa.Date, comment="the business day of expires_at"),
        sa.PrimaryKeyConstraint("id", name="pk_loyalty_lots"),
        to_account("loyalty_lots", "account_id"),
        to_account("loyalty_lots", "home_id"),
        sa.ForeignKeyConstraint(["entry_id"], ["loyalty_entries.id"], name="fk_loyalty_lots_entry_id"),
        sa.ForeignKeyConstraint(["order_id"], ["loyalty_orders.id"], name="fk_loyalty_lots_order_id"),
        sa.CheckConstraint("original > 0 and 0 <= remaining and remaining <= original", name=op.f("ck_loyalty_lots_remaining")),
    )
    op.create_index("ix_loyalty_lots_account_id", "loyalty_lots", ["account_id", "expires_at", "earned_at", "id"])
    op.create_index("ix_loyalty_lots_home_id", "loyalty_lots", ["home_id"])
    op.create_index("ix_loyalty_lots_order_id", "loyalty_lots", ["order_id"])
    op.create_table(
        "loyalty_allocations",
        sa.Column("entry_id", Id, nullable=False),
        sa.Column("lot_id", Id, nullable=False),
        number("amount"),
        sa.PrimaryKeyConstraint("entry_id", "lot_id", name="pk_loyalty_allocations"),
        sa.ForeignKeyConstraint(["entry_id"], ["loyalty_entries.id"], name="fk_loyalty_allocations_entry_id"),
        sa.ForeignKeyConstraint(["lot_id"], ["loyalty_lots.id"], name="fk_loyalty_allocations_lot_id"),
        sa.CheckConstraint("amount > 0", name=op.f("ck_loyalty_allocations_amount")),
    )
    op.create_index("ix_loyalty_allocations_lot_id", "loyalty_allocations", ["lot_id"])


def merges() -> None:
    op.create_table(
        "loyalty_merges",
        sa.Column("id", Id, nullable=False, comment="the event of the merge"),
        sa.Column("kept_id", Id, nullable=False),
        sa.Column("absorbed_id", Id, nullable=False),
        sa.Column(
            "debt", sa.BigInteger, nullable=False, comment="debt that came with the absorbed account and has not gone back"
        ),
        sa.Column("undone_by", Id, comment="the event that undid it"),
        sa.PrimaryKeyConstraint("id", name="pk_loyalty_merges"),
        to_account("loyalty_merges", "kept_id"),
        to_account("loyalty_merges", "absorbed_id"),
        sa.CheckConstraint("debt >= 0", name=op.f("ck_loyalty_merges_debt")),
    )
    op.create_index("ix_loyalty_merges_kept_id", "loyalty_merges", ["kept_id"])
    op.create_index("ix_loyalty_merges_absorbed_id", "loyalty_merges", ["absorbed_id"])
