"""What each level was last announced to give."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.api import Text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    said = "a digest of what the level was last announced to give; null: nothing"
    op.add_column("tiers_accounts", sa.Column("announced", Text, comment=said))
