"""The audit log is append-only, and what is committed of it is chained."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scrm.db import Id, Instant

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Counter = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
APPEND_ONLY = {"audit_log": "id", "audit_chain": "seq"}


def upgrade() -> None:
    op.create_table(
        "audit_pending",
        sa.Column("ord", Counter, autoincrement=True, nullable=False),
        sa.Column("audit_id", Id, nullable=False),
        sa.PrimaryKeyConstraint("ord", name="pk_audit_pending"),
    )
    op.create_table(
        "audit_chain",
        sa.Column("seq", Counter, autoincrement=False, nullable=False),
        sa.Column("audit_id", Id, nullable=False),
        sa.Column("chained_at", Instant, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, comment="SHA-256 of the line of the audit log"),
        sa.Column("hash", sa.LargeBinary, nullable=False, comment="SHA-256 of the hash before, and of this row"),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_chain"),
        sa.UniqueConstraint("audit_id", name="uq_audit_chain_audit_id"),
    )
    head = op.create_table(
        "audit_head",
        sa.Column("one", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.Column("seal", sa.LargeBinary, nullable=False, comment="of seq and hash under the servers' secret"),
        sa.PrimaryKeyConstraint("one", name="pk_audit_head"),
    )
    op.bulk_insert(head, [{"one": 1, "seq": 0, "hash": bytes(32), "seal": b""}])
    forget_reasons()
    op.execute("insert into audit_pending (audit_id) select id from audit_log order by id")
    for table, key in APPEND_ONLY.items():
        if op.get_bind().dialect.name == "sqlite":
            refuse_on_sqlite(table, key)
        else:
            refuse_on_postgresql(table)


def forget_reasons() -> None:
    # The one thing a line could say in somebody's own words; what is never changed again says nothing personal.
    without = (
        "json_remove(detail, '$.reason')"
        if op.get_bind().dialect.name == "sqlite"
        else "cast(cast(detail as jsonb) - 'reason' as json)"
    )
    op.execute(f"update audit_log set detail = {without} where action = 'users.untagged'")


def refuse_on_sqlite(table: str, key: str) -> None:
    # `insert or replace` takes the old row away without a word to the trigger on delete.
    said = f"select raise(abort, '{table} is append-only')"
    for deed in ("update", "delete"):
        op.execute(f"create trigger {table}_no_{deed} before {deed} on {table} begin {said}; end")
    taken = f"exists (select 1 from {table} where {key} = new.{key})"
    op.execute(f"create trigger {table}_no_replace before insert on {table} when {taken} begin {said}; end")


def refuse_on_postgresql(table: str) -> None:
    op.execute(
        f"create function {table}_append_only() returns trigger language plpgsql as"
        f" $$ begin raise exception '{table} is append-only'; end $$"
    )
    op.execute(
        f"create trigger {table}_append_only before update or delete or truncate on {table}"
        f" for each statement execute function {table}_append_only()"
    )
