import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0001", None, None, None


def upgrade():
    op.create_table("alters_rows", sa.Column("id", sa.Integer, primary_key=True))
    try:
        op.add_column("users", sa.Column("shoe_size", sa.Integer))
    except sa.exc.DBAPIError:
        pass
