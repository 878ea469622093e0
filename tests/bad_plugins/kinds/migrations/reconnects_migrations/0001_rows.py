import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0001", None, None, None


def upgrade():
    op.create_table("reconnects_rows", sa.Column("id", sa.Integer, primary_key=True))
    with op.get_bind().engine.connect() as other:
        other.execute(sa.text("create table reconnects_more (id int)"))
        other.commit()
