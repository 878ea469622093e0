import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0001", None, None, None


def upgrade():
    op.create_table("refers_rows", sa.Column("id", sa.Integer, primary_key=True))
    op.create_table("refers_more", sa.Column("user_id", sa.Uuid(), sa.ForeignKey("users.id"), primary_key=True))
