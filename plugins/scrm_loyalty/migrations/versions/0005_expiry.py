"""What has expired is found by when it did."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_loyalty_lots_expires_at", "loyalty_lots", ["expires_at"])
