"""Servers are seen beside workers, each says which plugins it runs, and an import until when it is taken to be under way."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.db import Instant, Json, Text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("kind", Text, nullable=False, server_default="WORKER", comment="SERVER or WORKER"))
    started = "names of the plugins it was started with"
    op.add_column("workers", sa.Column("plugins", Json, nullable=False, server_default="[]", comment=started))
    alive = "a RUNNING one that has not moved this on by then was cut off"
    op.add_column("imports", sa.Column("alive_until", Instant, comment=alive))
