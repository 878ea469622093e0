"""Marks, their moves, and reviews."""

import sqlalchemy as sa
from alembic import op

from scrm.api import Id, Instant, Text

revision, down_revision, branch_labels, depends_on = "0001", None, None, None


def upgrade() -> None:
    op.create_table(
        "everything_marks",
        sa.Column("id", Id, nullable=False),
        sa.Column("owner_id", Id, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("note", Text),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("made_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_everything_marks"),
    )
    op.create_index("ix_everything_marks_owner_id", "everything_marks", ["owner_id"])
    op.create_table(
        "everything_moves",
        sa.Column("merge_id", Id, nullable=False),
        sa.Column("mark_id", Id, nullable=False),
        sa.PrimaryKeyConstraint("merge_id", "mark_id", name="pk_everything_moves"),
    )
    op.create_table(
        "everything_reviews",
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("people", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("day", name="pk_everything_reviews"),
    )
