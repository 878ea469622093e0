"""What an undone redemption gives back is an allocation below 0; an entry is found by the one that takes it back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.api import Id

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_loyalty_entries_reverses", "loyalty_entries", ["reverses"])
    if op.get_bind().dialect.name == "sqlite":
        anew()
        return
    op.drop_constraint(op.f("ck_loyalty_allocations_amount"), "loyalty_allocations", type_="check")
    op.create_check_constraint(op.f("ck_loyalty_allocations_amount"), "loyalty_allocations", "amount <> 0")


def anew() -> None:
    """SQLite changes no constraint: the table is made anew."""
    op.create_table(
        "loyalty_allocations_made",
        sa.Column("entry_id", Id, nullable=False),
        sa.Column("lot_id", Id, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("entry_id", "lot_id", name="pk_loyalty_allocations"),
        sa.ForeignKeyConstraint(["entry_id"], ["loyalty_entries.id"], name="fk_loyalty_allocations_entry_id"),
        sa.ForeignKeyConstraint(["lot_id"], ["loyalty_lots.id"], name="fk_loyalty_allocations_lot_id"),
        sa.CheckConstraint("amount <> 0", name=op.f("ck_loyalty_allocations_amount")),
    )
    op.execute(
        "insert into loyalty_allocations_made (entry_id, lot_id, amount) select entry_id, lot_id, amount from loyalty_allocations"
    )
    op.drop_table("loyalty_allocations")
    op.rename_table("loyalty_allocations_made", "loyalty_allocations")
    op.create_index("ix_loyalty_allocations_lot_id", "loyalty_allocations", ["lot_id"])
