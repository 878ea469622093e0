"""`scrm restore` as people and machines run it: what it refuses, what it replaces, and when it is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.backup.figures import read_figures
from scrm.db import Database, new_id
from scrm.events.models import workers
from tests.core import backups
from tests.core.backups import EVENTS, Kept, data_of, figures, killed, read, write
from tests.core.shell import LOYALTY, Answer


def change(**said: Any) -> None:
    file = Path("first/manifest.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), **said}))


def flip() -> None:
    data = bytearray(data_of(Path("first")).read_bytes())
    data[len(data) // 2] ^= 1
    data_of(Path("first")).write_bytes(data)


def cut() -> None:
    data_of(Path("first")).write_bytes(data_of(Path("first")).read_bytes()[:-1])


def say(text: str) -> None:
    Path("first/manifest.json").write_text(text)


BROKEN: list[tuple[Callable[[], object], int, str]] = [
    (flip, 1, "BACKUP_DAMAGED: first/DATA is not what was written: its SHA-256 differs; use another backup"),
    (cut, 1, "BACKUP_DAMAGED: first/DATA has BYTES bytes and had BYTES; use another backup"),
    (lambda: data_of(Path("first")).unlink(), 1, "BACKUP_DAMAGED: first/DATA is missing; use another backup"),
    (
        lambda: change(figures={}),
        1,
        "BACKUP_DAMAGED: first/manifest.json: figures.position is not what it should be; use another backup",
    ),
    (lambda: say("{"), 1, "BACKUP_DAMAGED: first/manifest.json is not JSON; use another backup"),
    (
        lambda: Path("first/manifest.json").unlink(),
        2,
        "BACKUP_FOREIGN: first is no finished backup: there is no manifest.json in it",
    ),
    (lambda: say("[]"), 2, "BACKUP_FOREIGN: first/manifest.json is not the manifest of a backup that scrm made"),
    (
        lambda: change(format=2, scrm="9.0"),
        2,
        "BACKUP_FOREIGN: first/manifest.json has format 2; this version of scrm reads 1, so install 9.0",
    ),
    (
        lambda: change(engine="oracle"),
        2,
        "BACKUP_FOREIGN: first/manifest.json is of the database 'oracle'; known are sqlite, postgresql",
    ),
]


def test_a_damaged_or_foreign_backup_touches_nothing(kept: Kept) -> None:
    before = figures(kept.url)
    shutil.copytree("first", "good")
    for harm, code, line in BROKEN:
        harm()
        said = kept("restore", "first", "--replace")
        shown = [re.sub(r"data\.\w+", "DATA", re.sub(r"\d{3,}", "BYTES", one.replace("SHA-256", "SHA"))) for one in said.err]
        assert (said.code, said.out, shown) == (code, "", [line.replace("SHA-256", "SHA")])
        shutil.rmtree("first")
        shutil.copytree("good", "first")
    assert figures(kept.url) == before
    assert kept("restore", "first", "--replace").code == 0


def test_a_backup_of_another_engine_schema_or_version_is_refused(kept: Kept) -> None:
    manifest = json.loads(Path("first/manifest.json").read_text())
    engine, other = ("sqlite", "postgresql") if kept.on_sqlite else ("postgresql", "sqlite")
    said = kept("restore", "first", at="postgresql://u@127.0.0.1:1/n" if kept.on_sqlite else "sqlite:///n.db")
    assert (said.code, said.err) == (2, [f"BACKUP_FOREIGN: first is of {engine}, and this database is {other}"])
    change(scrm="9.0", figures={**manifest["figures"], "migrations": {"core": "9999"}})
    said = kept("restore", "first", at=kept.empty_url)
    assert (said.code, said.err) == (
        2,
        ["BACKUP_FOREIGN: first is of scrm 9.0, whose tables this version does not know; install that version"],
    )
    if not kept.on_sqlite:
        change(schema="other", figures=manifest["figures"])
        said = kept("restore", "first", at=kept.empty_url)
        assert said.err == ["BACKUP_FOREIGN: first is of the schema other, and the tables are to be in public here"]


def test_a_database_that_is_not_empty_is_replaced_as_a_whole_when_that_is_said(kept: Kept) -> None:
    before = figures(kept.url)
    write(
        kept.url,
        "delete from events where type = 'plugin.configured'",
        "create table other_things (a int)",
        "create view other_view as select a from other_things",
    )
    if not kept.on_sqlite:
        write(kept.url, "create type mood as enum ('good')", "create function f(a mood) returns int language sql return 1")
    later = figures(kept.url)
    assert later != before
    said = kept("restore", "first")
    assert (said.code, said.out) == (2, "")
    [line] = said.err
    assert line.startswith("DATABASE_NOT_EMPTY: the database is not empty (users: 3, events: 14, channels: 1, API keys: 2, ")
    assert "tables that are not scrm's: other_things" in line
    assert figures(kept.url) == later

    for _ in range(2):
        said = kept("restore", "first", "--replace")
        assert (said.code, said.err) == (0, [])
        assert figures(kept.url) == before
    if not kept.on_sqlite:
        write(kept.url, "create type mood as enum ('good')", "create function f(a mood) returns int language sql return 1")


def test_a_database_with_tables_and_no_rows_is_empty(kept: Kept) -> None:
    assert kept("db", "upgrade", at=kept.empty_url).code == 0
    assert kept("restore", "first", at=kept.empty_url).code == 0


def arrive(url: str, host: str, pid: int, seen: timedelta) -> None:
    at = datetime.now(UTC) - seen
    row = {"id": new_id(), "host": host, "pid": pid, "started_at": at, "seen_at": at}

    async def inside() -> None:
        db = Database(url)
        await db.write(lambda tx: tx.execute(sa.delete(workers)))
        await db.write(lambda tx: tx.execute(sa.insert(workers).values(row)))
        await db.close()

    asyncio.run(inside())


def test_nobody_may_be_at_work(kept: Kept) -> None:
    before = figures(kept.url)

    async def while_open() -> Answer:
        db = Database(kept.url)
        try:
            await db.read(read_figures)
            return await asyncio.to_thread(kept, "restore", "first", "--replace")
        finally:
            await db.close()

    said = asyncio.run(while_open())
    assert (said.code, said.out, len(said.err)) == (2, "", 1)
    open_there = "is open in another process; stop the server, the workers and imports first"
    assert said.err[0].endswith(open_there if kept.on_sqlite else "; stop servers, workers and imports first")
    assert said.err[0].startswith("DATABASE_IN_USE: ")

    for host, pid in (("elsewhere", 7), (socket.gethostname(), os.getpid())):
        arrive(kept.url, host, pid, timedelta(seconds=20))
        said = kept("restore", "first", "--replace")
        assert (said.code, said.out) == (2, "")
        assert said.err == [
            f"DATABASE_IN_USE: a worker is at work ({host} process {pid}); stop it first, or wait half a minute if it was killed"
        ]
    assert figures(kept.url) == before


def test_workers_that_are_gone_do_not_count(kept: Kept) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    arrive(kept.url, socket.gethostname(), gone.pid, timedelta(seconds=1))
    assert kept("backup", "second").code == 0
    assert kept("restore", "second", "--replace").code == 0
    assert read(kept.url, lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(workers))) == 0
    arrive(kept.url, "elsewhere", 7, timedelta(seconds=40))
    assert kept("restore", "second", "--replace").code == 0


PART = "lambda source, target, *_: (target.write(source.read()[:30_000]), target.flush(), die())"
ALL = "lambda source, target, *_: (target.write(source.read()), target.flush(), die())"
MOMENTS = {"sqlite": [("shutil.copymode", "die"), ("Path.rename", "die")], "postgresql": [("_pump", PART), ("_pump", ALL)]}


def test_a_restore_that_is_killed_leaves_the_old_database_whole(kept: Kept) -> None:
    write(kept.url, "delete from events where type = 'points.earned'")
    before = figures(kept.url)
    module = "sqlite" if kept.on_sqlite else "postgresql"
    for moment in MOMENTS[module]:
        killed(kept.url, module, *moment, "restore", "first", "--replace")
        assert figures(kept.url) == before
    assert kept("restore", "first", "--replace").code == 0
    assert figures(kept.url) != before


def test_figures_that_differ_are_named(kept: Kept) -> None:
    before = figures(kept.url)
    counted = json.loads(Path("first/manifest.json").read_text())["figures"]
    change(figures={**counted, "events": 99, "amounts": {"CNY": 1, "USD": 700}})
    said = kept("restore", "first", "--replace")
    wrong = [f"events: 99 in the backup, {EVENTS} in the database", "amounts CNY: 1 in the backup, 10520 in the database"]
    assert said.code == 1
    whole = f"BACKUP_DAMAGED: first does not hold what its manifest says: {'; '.join(wrong)}"
    assert said.err == ([whole] if kept.on_sqlite else wrong)
    assert figures(kept.url) == before


def test_keys_of_another_secret_and_pending_migrations_are_said(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    write(kept.url, "delete from alembic_version_loyalty")
    assert kept("backup", "second").code == 0
    change_secret = "API keys were made under another secret; bring scrm.secret or SCRM_SECRET_KEY along, or make new keys"
    monkeypatch.setattr(backups, "SECRET", "another " * 6)
    said = kept("restore", "second", at=kept.empty_url)
    pending = f"{len(LOYALTY)} migrations of loyalty are pending; run scrm db upgrade"
    assert (said.code, said.err) == (0, [change_secret, pending])


@pytest.mark.parametrize("kept", ["sqlite"], indirect=True)
def test_who_opened_a_file_that_is_replaced_does_not_go_on_with_it(kept: Kept) -> None:
    with contextlib.closing(sqlite3.connect("scrm.db")) as late:
        assert kept("restore", "first", "--replace").code == 0
        with pytest.raises(sqlite3.DatabaseError, match="file is not a database"):
            late.execute("pragma journal_mode = wal")
    assert kept("restore", "first", "--replace").code == 0


@pytest.mark.parametrize("kept", ["sqlite"], indirect=True)
def test_a_log_without_its_database_does_not_get_into_the_new_one(kept: Kept) -> None:
    before = figures(kept.url)
    with contextlib.closing(sqlite3.connect("scrm.db", isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("update events set amount_minor = 1")
        shutil.copyfile("scrm.db-wal", "other/scrm.db-wal")
    assert Path("other/scrm.db-wal").stat().st_size > 0
    assert kept("restore", "first", at=kept.empty_url).code == 0
    assert figures(kept.empty_url) == before


@pytest.mark.parametrize("kept", ["sqlite"], indirect=True)
def test_a_file_that_is_no_database_is_moved_aside(kept: Kept) -> None:
    before = figures(kept.url)
    Path("scrm.db").write_bytes(b"broken" * 1000)
    said = kept("restore", "first")
    assert (said.code, said.err) == (
        2,
        [
            "DATABASE_NOT_EMPTY: the database is not empty (SQLite cannot read it);"
            " with --replace all of it makes place for the backup"
        ],
    )
    said = kept("restore", "first", "--replace")
    assert (said.code, said.err) == (0, [f"what was no database any more lies in {Path('scrm.db.damaged-1').resolve()}"])
    assert Path("scrm.db.damaged-1").read_bytes() == b"broken" * 1000
    assert figures(kept.url) == before
