"""What people write beside an entry has a table of its own, which forgets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.api import Id, Text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "loyalty_notes",
        sa.Column("entry_id", Id, nullable=False),
        sa.Column("reason", Text, nullable=False, comment="why, in somebody's words; gone when the person is erased"),
        sa.PrimaryKeyConstraint("entry_id", name="pk_loyalty_notes"),
        sa.ForeignKeyConstraint(["entry_id"], ["loyalty_entries.id"], name="fk_loyalty_notes_entry_id"),
    )
