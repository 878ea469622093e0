"""The row that decisions lock, so that one of them is made at a time; and how long a condition has held at least."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "risk_guard",
        sa.Column("one", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_risk_guard")),
        comment="its row is locked by who decides on alerts or rules: one at a time",
    )
    said = "nothing before them was judged: there may be more"
    op.add_column("risk_samples", sa.Column("cut", sa.Boolean(), nullable=False, server_default=sa.false(), comment=said))
    op.bulk_insert(sa.table("risk_guard", sa.column("one", sa.SmallInteger())), [{"one": 1}])
