"""`scrm backup` as people and machines run it: while others write, and when it is cut off."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from scrm import __version__
from scrm.backup import programs
from scrm.testing.client import Client, drain
from tests.core.backups import EVENTS, Kept, data_of, figures, killed, order, process, serve, write
from tests.core.shell import CORE, LOYALTY

WRITER = """
import asyncio, itertools, sys
from datetime import UTC, datetime
from scrm.config import load_settings
from scrm.db import Database
from scrm.events.ingest import Ingest
from scrm.events.records import IdentityRef, NewEvent
from scrm.loader import load_plugins
from scrm.provision import all_event_types

def order(n):
    return NewEvent("order.paid", "writer", f"o-{n}", datetime.now(UTC), identity=IdentityRef("shop", f"c-{n}"),
                    amount_minor=10**15, currency="CNY", properties={"orderId": f"o-{n}"})

async def main():
    settings = load_settings()
    db = Database(settings.database_url)
    ingest = Ingest(db, settings, all_event_types(load_plugins(settings)))
    for n in itertools.count():
        await ingest.record([order(n * 100 + m) for m in range(100)])
        print(n, flush=True)

asyncio.run(main())
"""


def test_a_backup_is_restored_and_goes_on_where_it_was(kept: Kept) -> None:
    said = kept("backup", "second", "--json")
    assert (said.code, said.err) == (0, [])
    manifest = json.loads(Path("second/manifest.json").read_text())
    assert said.manifest == manifest
    assert (manifest["engine"], manifest["scrm"]) == ("sqlite" if kept.on_sqlite else "postgresql", __version__)
    counted = manifest["figures"]
    assert counted["amounts"] == {"CNY": 2 * (1050 + 1051 + 1052 + 1053 + 1054), "USD": 700}
    assert counted["migrations"] == {"core": CORE[-1], "loyalty": LOYALTY[-1]}
    assert counted["cursors"] == {"core": counted["position"], "loyalty": counted["position"]}
    assert (counted["users"], counted["rows"]["users"], counted["rows"]["loyalty_accounts"]) == (3, 3, 3)
    assert counted["events"] == counted["position"] == EVENTS
    assert stat.S_IMODE(Path("second").stat().st_mode) == 0o700

    said = kept("restore", "second", "--json", at=kept.empty_url)
    assert (said.code, said.err, said.manifest) == (0, [], manifest)
    assert kept("db", "check", at=kept.empty_url).code == 0

    async def ask(client: Client) -> Any:
        known = client.with_key(kept.key)
        assert (await known.events([order(0), order(77)]))["accepted"] == 1
        await drain(client)
        return await known.data(
            '{ events(first: 1, filter: { type: ["order.paid"] }, orderBy: [{ position: DESC }]) { nodes { position } }'
            " users(first: 9) { nodes { points { balance } } } }"
        )

    found = serve(kept.empty_url, ask)
    assert found["events"]["nodes"] == [{"position": counted["position"] + 1}]
    assert sum(user["points"]["balance"] for user in found["users"]["nodes"]) == 10 * 5 + 11


def test_a_backup_is_one_state_however_much_is_written(kept: Kept) -> None:
    with process(kept.url, WRITER) as writer:
        try:
            assert writer.stdout is not None
            taken = []
            for name in ("second", "third"):
                assert writer.stdout.readline() != ""
                taken.append(kept("backup", name, "--json"))
            assert writer.poll() is None
        finally:
            writer.kill()
    assert [(one.code, one.err) for one in taken] == [(0, [])] * 2
    second, third = (one.manifest["figures"] for one in taken)
    assert EVENTS < second["events"] < third["events"]
    for counted in (second, third):
        written = counted["users"] - 3
        assert written > 0
        assert written % 100 == 0
        assert counted["amounts"]["CNY"] == 10_520 + written * 10**15
        assert counted["rows"]["identities"] == counted["users"]
    assert kept("restore", "third", at=kept.empty_url).code == 0
    assert figures(kept.empty_url).amounts == third["amounts"]


def test_sums_may_be_larger_than_the_databases_numbers(kept: Kept) -> None:
    write(kept.url, f"update events set amount_minor = {2**63 - 1} where currency = 'CNY'")
    said = kept("backup", "second", "--json")
    assert said.manifest["figures"]["amounts"] == {"CNY": 10 * (2**63 - 1), "USD": 700}
    assert kept("restore", "second", at=kept.empty_url).code == 0


def test_a_backup_is_never_written_over(kept: Kept) -> None:
    Path("kept").write_text("mine")
    said = kept("backup", "kept")
    assert (said.code, said.out) == (2, "")
    assert said.err == ["BACKUP_EXISTS: kept exists; a backup is never written over, so choose another name"]
    assert Path("kept").read_text() == "mine"


def test_there_is_nothing_to_back_up(kept: Kept) -> None:
    said = kept("backup", "second", at=kept.empty_url)
    assert (said.code, said.out, len(said.err)) == (2, "", 1)
    assert said.err[0].startswith("the database is not ready: ")
    assert list(Path().glob("*second*")) == []
    assert not Path("other/scrm.db").exists()


def test_a_database_without_tables_makes_no_backup(kept: Kept) -> None:
    if kept.on_sqlite:
        Path("other/scrm.db").touch()
    said = kept("backup", "second", at=kept.empty_url)
    assert (said.code, said.out, len(said.err)) == (2, "", 1)
    assert said.err[0].endswith("; run scrm db upgrade")
    assert list(Path().glob("*second*")) == []


def test_a_backup_that_is_killed_leaves_nothing_that_looks_like_one(kept: Kept) -> None:
    before = figures(kept.url)
    killed(kept.url, "sqlite" if kept.on_sqlite else "postgresql", "read_figures", "die", "backup", "second")
    assert not Path("second").exists()
    [draft] = Path().glob(".second.*.partial")
    assert data_of(draft).is_file()
    said = kept("restore", str(draft), "--replace")
    assert (said.code, said.err) == (2, [f"BACKUP_FOREIGN: {draft} is no finished backup: there is no manifest.json in it"])
    assert figures(kept.url) == before
    assert kept("backup", "second").code == 0


@pytest.mark.parametrize("kept", ["sqlite"], indirect=True)
def test_a_damaged_database_makes_no_backup(kept: Kept) -> None:
    with contextlib.closing(sqlite3.connect("scrm.db", isolation_level=None)) as connection:
        [root] = connection.execute("select rootpage from sqlite_master where name = 'identities'").fetchone()
        [size] = connection.execute("pragma page_size").fetchone()
    with Path("scrm.db").open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    said = kept("backup", "second")
    assert (said.code, said.out, len(said.err)) == (1, "", 1)
    assert said.err[0].startswith("BACKUP_FAILED: ")
    assert list(Path().glob("*second*")) == []


def recording(name: str, directory: Path) -> None:
    """A program in front of PostgreSQL's own that writes its arguments down."""
    real = programs.program(name, 1)
    script = directory / name
    script.write_text(f'#!/bin/sh\nprintf \'%s\\n\' "$@" >> {directory}/arguments\nexec {real} "$@"\n')
    script.chmod(0o755)


@pytest.mark.parametrize("kept", ["postgresql"], indirect=True)
def test_the_password_is_in_no_command_line(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pg_dump", "pg_restore", "psql"):
        recording(name, tmp_path)
    monkeypatch.setattr(programs, "INSTALLED", tmp_path)
    monkeypatch.setattr(programs, "PACKAGE", "no_such_package")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert kept("backup", "second").code == 0
    assert kept("restore", "second", at=kept.empty_url).code == 0
    said = (tmp_path / "arguments").read_text()
    password = make_url(kept.url).password
    assert password
    assert str(password) not in said
    assert "--format=custom" in said
    assert "--no-owner" in said
    assert "--no-psqlrc" in said


@pytest.mark.parametrize("kept", ["postgresql"], indirect=True)
def test_a_program_that_is_missing_or_too_old_is_named(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "INSTALLED", tmp_path)
    monkeypatch.setattr(programs, "PACKAGE", "no_such_package")
    monkeypatch.setenv("PATH", str(tmp_path))
    said = kept("backup", "second")
    assert (said.code, said.out, len(said.err)) == (2, "", 1)
    assert said.err[0].startswith("PROGRAM_MISSING: pg_dump ")
    assert "(found none); install the client programs of PostgreSQL " in said.err[0]
    (tmp_path / "pg_restore").write_text("#!/bin/sh\necho 'pg_restore (PostgreSQL) 9.6.1'\n")
    (tmp_path / "pg_restore").chmod(0o755)
    said = kept("restore", "first", at=kept.empty_url)
    assert (said.code, said.out, len(said.err)) == (2, "", 1)
    assert said.err[0].startswith("PROGRAM_MISSING: pg_restore ")
    assert f"(found {tmp_path}/pg_restore of 9)" in said.err[0]
    assert list(tmp_path.glob("*second*")) == []
    assert figures(kept.url).events == EVENTS


@pytest.mark.parametrize("kept", ["postgresql"], indirect=True)
def test_a_program_that_fails_is_quoted_and_nothing_is_left(kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = figures(kept.url)
    for name in ("pg_dump", "pg_restore"):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\n[ $1 = --version ] && exec echo '{name} (PostgreSQL) 99.1'\necho 'select 1;'\n"
                          "echo 'note' >&2; echo 'error: no luck' >&2; exit 1\n")  # fmt: skip
        script.chmod(0o755)
    monkeypatch.setattr(programs, "INSTALLED", tmp_path / "none")
    monkeypatch.setattr(programs, "PACKAGE", "no_such_package")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    said = kept("backup", "second")
    assert (said.code, said.out, said.err) == (1, "", ["BACKUP_FAILED: pg_dump failed: error: no luck"])
    assert list(tmp_path.glob("*second*")) == []
    said = kept("restore", "first", "--replace")
    assert (said.code, said.out, said.err) == (1, "", ["RESTORE_FAILED: pg_restore failed: error: no luck"])
    assert figures(kept.url) == before
