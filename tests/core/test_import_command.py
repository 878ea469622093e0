"""`scrm import` as people and machines run it: exit codes, words, and a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from scrm.db import Database
from scrm.events.models import events
from scrm.models import imports
from scrm.testing.client import serving
from scrm.testing.commands import commands

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "data" / "CDNOW_sample.txt"
CDNOW = [
    "--format", "fixed", "--columns", "customer:1:5,date:12:8,amount:24:7", "--map", "identity.externalId=customer",
    "--map", "occurredAt=date", "--set", "type=order.paid", "--set", "source=cdnow", "--set", "identity.channel=shop",
    "--set", "currency=USD", "--create-channel", "WEBSITE",
]  # fmt: skip
KILLED = """
import os, signal, sys
from scrm import importer
from scrm.cli import main
from scrm.importing import run

def advance(tx, import_id, tally, *, at, real=run.advance):
    if tally.rows_read >= 3000:
        os.kill(os.getpid(), signal.SIGKILL)
    real(tx, import_id, tally, at=at)

run.advance = advance
sys.argv = ["scrm", *sys.argv[1:]]
main()
"""


@pytest.fixture
def scrm(migrated_url: str, tmp_path: Path) -> Any:
    """Runs the command in an empty directory; what else there is to run first (`code`), in a process of its own."""
    settings = {"SCRM_DATABASE_URL": migrated_url, "SCRM_CURRENCY": "USD"}

    def command(*arguments: str, code: str | None = None) -> Any:
        if code is None:
            [said] = commands(arguments, directory=tmp_path, **settings)
            return subprocess.CompletedProcess(arguments, said.code, said.out, "".join(f"{line}\n" for line in said.err))
        path = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
        env = {**os.environ, **settings, "PYTHONPATH": path}
        run = [sys.executable, "-c", code, *arguments]
        return subprocess.run(run, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    return command


async def paid(url: str) -> tuple[int, int]:
    """How many orders there are, and their sum."""
    db = Database(url)
    try:
        query = sa.select(sa.func.count().label("orders"), sa.func.sum(events.c.amount_minor).label("total"))
        row = await db.read(lambda tx: tx.execute(query.where(events.c.source == "cdnow")).one())
        return int(row.orders), int(row.total)
    finally:
        await db.close()


async def test_a_killed_import_is_finished_by_running_it_again(scrm: Any, migrated_url: str) -> None:
    killed = scrm("import", "events", str(SAMPLE), *CDNOW, code=KILLED)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (await paid(migrated_url))[0] == 3000
    db = Database(migrated_url)
    rows = await db.read(lambda tx: [(row.state, row.rows_read) for row in tx.rows(imports.select())])
    await db.close()
    assert rows == [("RUNNING", 2000)]

    again = scrm("import", "events", str(SAMPLE), *CDNOW, "--json")
    assert (again.returncode, again.stderr) == (0, "")
    said = orjson.loads(again.stdout)
    assert (said["state"], said["resumedAfter"]) == ("DONE", 2000)
    assert said["tally"] == {"rowsRead": 6919, "accepted": 5919, "duplicates": 1000, "rejected": 0}
    assert await paid(migrated_url) == (6919, 24_409_194)


async def test_a_killed_import_of_a_file_that_was_edited_since_is_interrupted(
    scrm: Any, migrated_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "orders.txt"
    file.write_bytes(SAMPLE.read_bytes())
    assert scrm("import", "events", str(file), *CDNOW, code=KILLED).returncode == -signal.SIGKILL
    query = "{ imports { nodes { state finishedAt } } running: imports(filter: {state: [RUNNING]}) { totalCount } }"

    async def seen(seconds: int) -> tuple[list[Any], int]:
        async with serving(migrated_url, clock=lambda: datetime.now(UTC) + timedelta(seconds=seconds)) as client:
            data = await client.data(query)
            return [(each["state"], bool(each["finishedAt"])) for each in data["imports"]["nodes"]], data["running"]["totalCount"]

    assert await seen(20) == ([("RUNNING", False)], 1)
    assert await seen(90) == ([("INTERRUPTED", False)], 0)
    db = Database(migrated_url)
    passed = imports.update().values(alive_until=datetime.now(UTC) - timedelta(seconds=1))
    await db.write(lambda tx: tx.execute(passed).rowcount)
    await db.close()
    file.write_bytes(b"\n".join(SAMPLE.read_bytes().split(b"\n")[:100]))
    assert scrm("import", "events", str(file), *CDNOW, "--json").returncode == 0
    assert await seen(0) == ([("DONE", True), ("INTERRUPTED", True)], 0)


ROWS = [f"c{n},{'tomorrow' if n % 2 else '2026-01-02'},{n}.50,x" for n in range(1, 17)]
SET = ("--set", "type=order.paid", "--set", "identity.channel=shop", "--create-channel", "STORE")


async def test_refused_rows_are_kept_in_a_file_mended_and_imported_from_there(
    scrm: Any, migrated_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("\n".join(["who,occurredAt,properties.n:number,shoe", *ROWS, "short,2026-01-02"]) + "\n")
    flags = ("--map", "identity.externalId=who", *SET)
    run = scrm("import", "events", str(path), *flags)
    message = 'the time "tomorrow" does not read YYYYMMDD, YYYY-MM-DD or RFC 3339'
    assert (run.returncode, run.stderr.splitlines()) == (
        1,
        [
            "columns taken: who → identity.externalId; occurredAt → occurredAt; properties.n:number → properties.n",
            "columns ignored: shoe",
            *(f"row {n} (occurredAt): {message}" for n in (1, 3, 5, 7, 9)),
            "4 more in orders.errors.ndjson; mend them there, and import that file with the same fields",
        ],
    )
    kept = tmp_path / "orders.errors.ndjson"
    lines = [orjson.loads(line) for line in kept.read_bytes().splitlines()]
    assert lines[0] == {
        "#row": 1,
        "#line": 2,
        "#errors": [{"code": "INVALID_TIME", "message": message, "field": "occurredAt", "column": "occurredAt"}],
        "who": "c1", "occurredAt": "tomorrow", "properties.n:number": "1.50", "shoe": "x",
    }  # fmt: skip
    assert [line["#row"] for line in lines] == [1, 3, 5, 7, 9, 11, 13, 15, 17]
    problem = {"code": "MALFORMED_ROW", "message": "the row has 2 cells and the header 4"}
    assert lines[-1] == {"#row": 17, "#line": 18, "#errors": [problem], "#text": "short,2026-01-02"}

    kept.write_bytes(b"\n".join(kept.read_bytes().replace(b'"tomorrow"', b'"2026-01-03"').splitlines()[:-1]))
    mended = scrm("import", "events", str(kept), *flags, "--name", "orders.csv", "--json")
    assert (mended.returncode, mended.stderr) == (0, "")
    assert orjson.loads(mended.stdout)["tally"] == {"rowsRead": 8, "accepted": 8, "duplicates": 0, "rejected": 0}
    path.write_text(path.read_text().replace("tomorrow", "2026-01-03").replace("short,2026-01-02\n", ""))
    again = scrm("import", "events", str(path), *flags, "--json")
    assert orjson.loads(again.stdout)["tally"] == {"rowsRead": 16, "accepted": 0, "duplicates": 16, "rejected": 0}
    db = Database(migrated_url)
    found = await db.read(lambda tx: tx.rows(sa.select(events.c.properties).where(events.c.type == "order.paid")))
    await db.close()
    assert sorted(row.properties["n"] for row in found) == [n + 0.5 for n in range(1, 17)]


def test_a_named_file_of_refused_rows_is_there_at_once(scrm: Any, tmp_path: Path) -> None:
    path = tmp_path / "orders.ndjson"
    path.write_text('{"identity": {"externalId": "ann"}, "occurredAt": "2026-01-02", "amount": 1.10, "shoe": [1]}\n')
    (tmp_path / "bad.ndjson").write_text("from before")
    run = scrm("import", "events", str(path), *SET, "--errors", "bad.ndjson")
    assert (run.returncode, run.stderr.splitlines()) == (
        0,
        [
            "columns of the first row taken: identity.externalId → identity.externalId; occurredAt → occurredAt; amount → amount",
            "columns of the first row ignored: shoe",
        ],
    )
    assert (tmp_path / "bad.ndjson").read_bytes() == b""
    path.write_text('{"identity": {"externalId": "ann"}, "occurredAt": "soon", "amount": 1.10, "shoe": [1]}\n')
    run = scrm("import", "events", str(path), *SET, "--errors", "bad.ndjson", "--json")
    assert (run.returncode, orjson.loads(run.stdout)["errorsFile"]) == (1, "bad.ndjson")
    assert b'"identity.externalId":"ann","occurredAt":"soon","amount":1.10,"shoe":[1]}' in (tmp_path / "bad.ndjson").read_bytes()
    assert not (tmp_path / "orders.errors.ndjson").exists()


@pytest.mark.parametrize(
    ("place", "problem"),
    [("none/x", "there is no directory none"), (".", "that is a directory"), ("orders.csv", "that is the file to import")],
)
def test_where_refused_rows_cannot_go_is_said_before_anything_is_read(
    scrm: Any, migrated_url: str, tmp_path: Path, place: str, problem: str
) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("identity.externalId,occurredAt\nann,2026-01-02\n")
    run = scrm("import", "events", str(path), *SET, "--errors", place)
    said = f"refused rows cannot be written to {place}: {problem}; name another file with --errors"
    assert (run.returncode, run.stdout, run.stderr.splitlines()) == (2, "", [said])
    assert path.read_text() == "identity.externalId,occurredAt\nann,2026-01-02\n"


def test_another_mapping_of_rows_that_were_recorded_is_explained(scrm: Any, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("externalId,identity.externalId,occurredAt,cds\no1,ann,2026-01-02,3\no2,bob,2026-01-02,4\n")
    assert scrm("import", "events", str(path), *SET).returncode == 0
    (tmp_path / "more.toml").write_text('[map]\nproperties.cds = "cds"\n')
    run = scrm("import", "events", str(path), *SET, "--mapping", "more.toml")
    assert run.returncode == 1
    advice = run.stderr.splitlines()[-1]
    assert advice.startswith("rows of orders.csv were recorded on 20")
    assert "with another mapping or other contents, and an event stays as it was recorded" in advice
    assert scrm("import", "events", str(path), *SET, "--mapping", "more.toml", "--set", "source=again").returncode == 0


def test_wrong_usage_is_2_and_a_line_for_each_problem(scrm: Any) -> None:
    run = scrm("import", "users", "gone.csv", "--delimiter", "::", "--encoding", "klingon")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.splitlines() == [
        "there is no file gone.csv",
        'the delimiter "::" is not one character',
        'the encoding "klingon" is unknown; most files are utf-8 or gb18030',
    ]
