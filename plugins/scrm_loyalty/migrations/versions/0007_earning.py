"""What limits earning: what a member's level multiplies points by, and what has earned once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.api import Id, Text

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    said = "what the member's level multiplies points by, a decimal number"
    op.add_column("loyalty_accounts", sa.Column("multiplier", Text, nullable=False, server_default="1", comment=said))
    op.create_table(
        "loyalty_uses",
        sa.Column("account_id", Id, nullable=False),
        sa.Column("rule", Text, nullable=False),
        sa.Column("value", Text, nullable=False, comment="what has earned by the rule and does not again"),
        sa.Column("event_id", Id, nullable=False, comment="the event that it earned with"),
        sa.PrimaryKeyConstraint("account_id", "rule", "value", name="pk_loyalty_uses"),
        sa.ForeignKeyConstraint(["account_id"], ["loyalty_accounts.id"], name="fk_loyalty_uses_account_id"),
    )
