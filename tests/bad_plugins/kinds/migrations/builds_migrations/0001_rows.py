import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0001", None, None, None


def upgrade():
    op.create_table("builds_rows", sa.Column("id", sa.Integer, primary_key=True))
    if op.get_bind().dialect.name == "postgresql":
        op.execute("create schema elsewhere")
        op.execute("create type mood as enum ('good')")
    else:
        op.execute("create view mood as select 1")
