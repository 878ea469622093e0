"""The audit log is never changed; what is committed is chained once, whoever writes and chains meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.ext.asyncio import create_async_engine

from scrm.audit import audit
from scrm.audit_chain import chain, chaining
from scrm.audit_verify import Verified, verify
from scrm.config import Settings
from scrm.db import Database, Tx, new_id
from scrm.migrate import _in_transaction, core_owner, upgrade
from scrm.models import audit_chain, audit_log, audit_pending
from scrm.testing import PostgresServer
from scrm.worker import run_worker
from tests.core.auditing import AT, SECRET, opened, unguarded, written

DEEDS = (
    "update audit_log set actor = 'somebody else'",
    "delete from audit_log",
    "update audit_chain set seq = seq + 10",
    "delete from audit_chain where seq = 2",
)
ONLY_ON = {
    "sqlite": (
        "insert or replace into audit_log select id, at, 'somebody else', action, subject, detail from audit_log",
        "insert or replace into audit_chain select seq, audit_id, chained_at, digest, digest from audit_chain",
    ),
    "postgresql": ("truncate audit_log", "truncate audit_chain"),
}


def done(tx: Tx, deed: str) -> None:
    tx.execute(sa.text(deed))


async def test_no_line_and_no_link_is_changed_or_taken_away(database: Database) -> None:
    await database.write(written, 3)
    assert await database.write(chain, SECRET.encode(), at=AT) == 3
    before = await database.read(verify, SECRET.encode())
    assert before.breaks == []
    for deed in (*DEEDS, *ONLY_ON[database.dialect]):
        with pytest.raises(sa.exc.DBAPIError, match=r"audit_(log|chain) is append-only"):
            await database.write(done, deed)
    assert await database.read(verify, SECRET.encode()) == before


async def test_what_is_rolled_back_is_in_neither(database: Database) -> None:
    def failing(tx: Tx) -> None:
        audit(tx, "shop", "tag.created", None, at=AT)
        raise RuntimeError("no luck")

    await database.write(audit, "shop", "tag.created", None, at=AT)
    with pytest.raises(RuntimeError):
        await database.write(failing)
    assert await database.write(chain, b"s", at=AT) == 1
    counts = [sa.select(sa.func.count()).select_from(table) for table in (audit_log, audit_chain, audit_pending)]
    assert await database.read(lambda tx: [tx.scalar(count) for count in counts]) == [1, 1, 0]


TAMPERED: dict[str, tuple[str, list[tuple[str, int | None, int | None]]]] = {
    "the actor": ("update audit_log set actor = 'boss' where id = :line2", [("changed", 2, 2)]),
    "the time": ("update audit_log set at = (select at from audit_log where id = :line1) where id = :line2", [("changed", 2, 2)]),
    "the detail": ('update audit_log set detail = \'{"key": "t9"}\' where id = :line4', [("changed", 4, 4)]),
    "the subject": ("update audit_log set subject = null where id = :line5", [("changed", 5, 5)]),
    "a line taken away": ("delete from audit_log where id = :line3", [("missing", 3, 3)]),
    "the last line taken away": ("delete from audit_log where id = :line5", [("missing", 5, 5)]),
    "a line and its link": (
        "delete from audit_log where id = :line3; delete from audit_chain where seq = 3",
        [("missing", 3, None)],
    ),
    "the first line and its link": (
        "delete from audit_log where id = :line1; delete from audit_chain where seq = 1",
        [("missing", 1, None)],
    ),
    "the end cut off": (
        "delete from audit_log where id = :line5; delete from audit_chain where seq = 5",
        [("head", None, None)],
    ),
    "a link alone": ("delete from audit_chain where seq = 4", [("missing", 4, None), ("inserted", None, 4)]),
    "two links in each other's place": (
        "update audit_chain set seq = 900 where seq = 2; update audit_chain set seq = 2 where seq = 3;"
        " update audit_chain set seq = 3 where seq = 900",
        [("re-ordered", 2, None), ("re-ordered", 3, None), ("re-ordered", 4, None)],
    ),
    "two links with each other's line": (
        "update audit_chain set audit_id = :free where seq = 2; update audit_chain set audit_id = :line2 where seq = 4;"
        " update audit_chain set audit_id = :line4 where seq = 2",
        [("re-ordered", 2, None), ("re-ordered", 4, None), ("re-ordered", 2, 4), ("re-ordered", 4, 2)],
    ),
    "a link's time": (
        "update audit_chain set chained_at = (select at from audit_log where id = :line4) where seq = 3",
        [("re-ordered", 3, None)],
    ),
    "a link before the first": (
        "insert into audit_chain select 0, :free, chained_at, digest, hash from audit_chain where seq = 1",
        [("inserted", 0, 0)],
    ),
    "a link after the last": (
        "insert into audit_chain select 6, :free, chained_at, digest, hash from audit_chain where seq = 5",
        [("re-ordered", 6, None), ("missing", 6, 0), ("head", None, None)],
    ),
    "the head": ("delete from audit_head", [("head", None, None)]),
    "the head's place": ("update audit_head set seq = 4", [("head", None, None), ("seal", None, None)]),
}


class Undone(Exception):
    """Takes back what was changed to see what is found of it."""

    def __init__(self, found: Verified) -> None:
        self.found = found


async def test_what_is_changed_past_the_triggers_is_named(database: Database) -> None:
    ids = await database.write(written, 5)
    assert await database.write(chain, SECRET.encode(), at=AT) == 5
    lines = [new_id().hex, *ids]

    def tamper(tx: Tx, statements: str) -> None:
        for number, line in enumerate(lines):
            statements = statements.replace(f":line{number}", f"'{line}'")
        unguarded(tx, *statements.replace(":free", f"'{lines[0]}'").split("; "))
        raise Undone(verify(tx, SECRET.encode()))

    for name, (statements, expected) in TAMPERED.items():
        with pytest.raises(Undone) as caught:
            await database.write(tamper, statements)
        wanted = [(kind, seq, lines[line] if line is not None else None) for kind, seq, line in expected]
        breaks = caught.value.found.breaks
        assert sorted(((each.kind, each.seq, each.audit_id) for each in breaks), key=str) == sorted(wanted, key=str), name
        assert all(each.audit_id is None or each.audit_id in each.message for each in breaks), name
    assert (await database.read(verify, SECRET.encode())).breaks == []


async def test_writers_and_several_chains_at_once_chain_each_line_once(migrated_url: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(opened(migrated_url)) for _ in range(3)]
        done = asyncio.Event()

        async def write(db: Database, name: str) -> None:
            for number in range(25):
                await db.write(audit, name, "tag.created", None, {"number": number}, at=AT)

        async def follow(db: Database) -> int:
            chained = 0
            while True:
                over = done.is_set()
                made = await db.write(chain, SECRET.encode(), at=AT, limit=7)
                chained += made
                if over and not made:
                    return chained

        following = [asyncio.create_task(follow(db)) for db in databases]
        await asyncio.gather(*(write(db, f"{number}") for number in range(2) for db in databases))
        done.set()
        assert sum(await asyncio.gather(*following)) == 150
        seqs = await databases[0].read(lambda tx: [row.seq for row in tx.rows(sa.select(audit_chain.c.seq))])
    assert sorted(seqs) == list(range(1, 151))


async def test_lines_are_chained_in_the_order_of_their_commit_and_nobody_waits(
    postgres: PostgresServer, postgres_template: str
) -> None:
    def say(connection: sa.Connection, actor: str) -> None:
        audit(Tx(connection), actor, "tag.created", None, at=AT)

    with postgres.database(postgres_template) as url:
        engine = create_async_engine(url, poolclass=sa.NullPool)
        async with opened(url) as db:
            async with engine.begin() as slow:
                await slow.run_sync(say, "slow")
                await db.write(audit, "quick", "tag.created", None, at=AT)
                assert await db.write(chain, SECRET.encode(), at=AT) == 1
            async with engine.begin() as holder:
                assert await holder.run_sync(lambda connection: chain(Tx(connection), SECRET.encode(), at=AT)) == 1
                await db.write(audit, "later", "tag.created", None, at=AT)
                assert await db.write(chain, SECRET.encode(), at=AT) == 0, "another is at it"
            assert await db.write(chain, SECRET.encode(), at=AT) == 1
            order = sa.select(audit_log.c.actor).join(audit_chain, audit_chain.c.audit_id == audit_log.c.id)
            actors = await db.read(lambda tx: [row.actor for row in tx.rows(order.order_by(audit_chain.c.seq))])
        await engine.dispose()
    assert actors == ["quick", "slow", "later"]


async def test_several_workers_chain_what_is_written(migrated_url: str) -> None:
    class Nothing:
        active = ()

    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(opened(migrated_url)) for _ in range(3)]
        chores = [chaining(SECRET.encode())]
        settings = Settings(database_url=migrated_url)
        working = [asyncio.create_task(run_worker(db, settings, Nothing(), (), stop, chores=chores)) for db in databases]
        try:
            for number in range(30):
                await databases[number % 3].write(audit, "shop", "tag.created", None, at=AT)
            waiting = sa.select(sa.func.count()).select_from(audit_pending)
            async with asyncio.timeout(60):
                while await databases[0].read(lambda tx: tx.scalar(waiting)):  # noqa: ASYNC110  # workers have no event for it
                    await asyncio.sleep(0.02)
        finally:
            stop.set()
            await asyncio.gather(*working)
        chained = sa.select(sa.func.count(), sa.func.max(audit_chain.c.seq))
        assert tuple(await databases[0].read(lambda tx: tx.rows(chained)[0])) == (30, 30)


async def test_lines_from_before_the_chain_are_chained_without_what_somebody_typed(database_url: str) -> None:
    owner = core_owner()
    await _in_transaction(database_url, lambda connection: command.upgrade(owner.config(connection), "0001"), create=True)
    async with opened(database_url) as db:
        rows: list[dict[str, Any]] = [
            {"id": new_id(), "at": AT, "actor": f"a{number}", "action": "tag.created", "subject": None, "detail": {}}
            for number in range(3)
        ]
        rows[1] |= {"action": "users.untagged", "detail": {"tags": ["vip"], "reason": "what somebody typed of a person"}}
        await db.write(lambda tx: tx.execute(audit_log.insert(), rows))
        await upgrade(database_url)
        assert await db.write(chain, SECRET.encode(), at=AT) == 3
        query = sa.select(audit_log.c.id, audit_log.c.detail).join(audit_chain, audit_chain.c.audit_id == audit_log.c.id)
        found = await db.read(lambda tx: tx.rows(query.order_by(audit_chain.c.seq)))
    assert [tuple(row) for row in found] == [(rows[0]["id"], {}), (rows[1]["id"], {"tags": ["vip"]}), (rows[2]["id"], {})]
