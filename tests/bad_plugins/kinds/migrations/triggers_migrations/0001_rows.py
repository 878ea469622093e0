import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "0001", None, None, None


def upgrade():
    op.create_table("triggers_rows", sa.Column("id", sa.Integer, primary_key=True))
    if op.get_bind().dialect.name == "sqlite":
        op.execute("create trigger triggers_all after insert on events begin insert into triggers_rows (id) values (1); end")
    else:
        op.execute("create function triggers_all() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$")
        op.execute("create trigger triggers_all after insert on events for each row execute function triggers_all()")
