import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0001", None, None, None


def upgrade():
    op.create_table("commits_rows", sa.Column("id", sa.Integer, primary_key=True))
    op.get_bind().commit()
    raise RuntimeError("too late")
