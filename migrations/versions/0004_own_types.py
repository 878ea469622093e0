"""The database knows which event types only their plugin may record, so that they stay its own while it is disabled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    own = "only its owner can say that it happened; so while it is disabled, until it is purged"
    op.add_column("event_types", sa.Column("own", sa.Boolean, nullable=False, server_default=sa.false(), comment=own))


def downgrade() -> None:
    op.drop_column("event_types", "own")
