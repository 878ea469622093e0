import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0001", None, None, None


def upgrade():
    op.create_table("renames_rows", sa.Column("id", sa.Integer, primary_key=True))
    op.create_table("renames_t", sa.Column("id", sa.Integer))
    op.rename_table("renames_t", "users2")
