"""Servers are seen beside workers, and each says which plugins it runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.db import Json, Text

revision = "0003"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("kind", Text, nullable=False, server_default="WORKER", comment="SERVER or WORKER"))
    started = "names of the plugins it was started with"
    op.add_column("workers", sa.Column("plugins", Json, nullable=False, server_default="[]", comment=started))
