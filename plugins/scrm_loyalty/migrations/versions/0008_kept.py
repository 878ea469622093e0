"""Allocations are kept as entries are, neither can be replaced, and orders know what of a refund was let go."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.api import append_only

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    said = "of these the part that was spent, and that the policy let go"
    op.add_column("loyalty_orders", sa.Column("forgiven", sa.BigInteger, nullable=False, server_default="0", comment=said))
    append_only("loyalty_entries")
    append_only("loyalty_allocations", "entry_id", "lot_id")
