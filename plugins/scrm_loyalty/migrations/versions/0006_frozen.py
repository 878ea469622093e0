"""Accounts that are frozen because their numbers did not agree."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    said = "nothing can be spent, for its numbers did not agree"
    op.add_column("loyalty_accounts", sa.Column("frozen", sa.Boolean, nullable=False, server_default=sa.false(), comment=said))
