"""The table of the plugin that the contract's tests read."""

import sqlalchemy as sa
from alembic import op

from scrm.db import Id, Instant, Json, Text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reads_notes",
        sa.Column("id", Id, primary_key=True),
        sa.Column("user_id", Id, nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("score", sa.BigInteger()),
        sa.Column("weight", sa.Float()),
        sa.Column("label", Text),
        sa.Column("mood", Text, nullable=False),
        sa.Column("pinned", sa.Boolean(create_constraint=False)),
        sa.Column("written_at", Instant),
        sa.Column("day", sa.Date()),
        sa.Column("data", Json),
    )
    op.create_index("ix_reads_notes_user_id", "reads_notes", ["user_id"])
