"""Which budgets are in the plugin's own currency: the others enter no indicator."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    said = "whether its currency is the plugin's own"
    kind = sa.Boolean(create_constraint=False)
    op.add_column("budget_budgets", sa.Column("home", kind, nullable=False, server_default=sa.true(), comment=said))
