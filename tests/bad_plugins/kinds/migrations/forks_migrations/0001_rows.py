import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0001", None, None, None


def upgrade():
    op.create_table("forks_rows", sa.Column("id", sa.Integer, primary_key=True))
