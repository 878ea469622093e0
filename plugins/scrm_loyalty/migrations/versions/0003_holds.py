"""Holds, and which lots they keep how much of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.api import Id, Instant, Text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "loyalty_holds",
        sa.Column("id", Id, nullable=False),
        sa.Column("account_id", Id, nullable=False, comment="whose points it keeps"),
        sa.Column("home_id", Id, nullable=False, comment="who asked for it"),
        sa.Column("points", sa.BigInteger, nullable=False),
        sa.Column("captured", sa.BigInteger, nullable=False, comment="of these the part that was spent"),
        sa.Column("state", Text, nullable=False, comment="OPEN, also past its deadline, when nothing is held any more"),
        sa.Column("reason", Text, comment="why, in somebody's words; gone when the person is erased"),
        sa.Column("reference", Text),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("expires_at", Instant, nullable=False, comment="the first instant at which it holds nothing"),
        sa.Column("resolved_at", Instant, comment="when it was captured or released"),
        sa.PrimaryKeyConstraint("id", name="pk_loyalty_holds"),
        sa.ForeignKeyConstraint(["account_id"], ["loyalty_accounts.id"], name="fk_loyalty_holds_account_id"),
        sa.ForeignKeyConstraint(["home_id"], ["loyalty_accounts.id"], name="fk_loyalty_holds_home_id"),
        sa.CheckConstraint("points > 0 and 0 <= captured and captured <= points", name=op.f("ck_loyalty_holds_captured")),
        sa.CheckConstraint("state in ('OPEN', 'CAPTURED', 'RELEASED')", name=op.f("ck_loyalty_holds_state")),
    )
    op.create_index("ix_loyalty_holds_account_id", "loyalty_holds", ["account_id"])
    op.create_index("ix_loyalty_holds_home_id", "loyalty_holds", ["home_id"])
    op.create_table(
        "loyalty_held_lots",
        sa.Column("hold_id", Id, nullable=False),
        sa.Column("lot_id", Id, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("hold_id", "lot_id", name="pk_loyalty_held_lots"),
        sa.ForeignKeyConstraint(["hold_id"], ["loyalty_holds.id"], name="fk_loyalty_held_lots_hold_id"),
        sa.ForeignKeyConstraint(["lot_id"], ["loyalty_lots.id"], name="fk_loyalty_held_lots_lot_id"),
        sa.CheckConstraint("amount > 0", name=op.f("ck_loyalty_held_lots_amount")),
    )
    op.create_index("ix_loyalty_held_lots_lot_id", "loyalty_held_lots", ["lot_id"])
