import sqlalchemy as sa
from alembic import op

from scrm.api import Id

revision, down_revision, branch_labels, depends_on = "0001", None, None, None


def upgrade():
    op.create_table("good_counts", sa.Column("user_id", Id, primary_key=True), sa.Column("orders", sa.Integer, nullable=False))
