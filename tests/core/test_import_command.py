"""`scrm import` as people and machines run it: exit codes, words, and a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from scrm.db import Database
from scrm.events.models import events
from scrm.models import imports

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

def advance(tx, import_id, tally, real=run.advance):
    if tally.rows_read >= 3000:
        os.kill(os.getpid(), signal.SIGKILL)
    real(tx, import_id, tally)

run.advance = advance
sys.argv = ["scrm", *sys.argv[1:]]
main()
"""


@pytest.fixture
def scrm(migrated_url: str, tmp_path: Path) -> Any:
    """Runs the command in a process of its own, in an empty directory."""

    def command(*arguments: str, code: str = "import sys; from scrm.cli import main; sys.argv[0] = 'scrm'; main()") -> Any:
        path = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
        env = {**os.environ, "SCRM_DATABASE_URL": migrated_url, "PYTHONPATH": path, "SCRM_CURRENCY": "USD"}
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


def test_rows_that_fail_are_named_and_the_exit_is_1(scrm: Any, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("identity.externalId,occurredAt,amount\nann,2026-01-02,1.50\nbob,tomorrow,2\n")
    flags = ("--set", "type=order.paid", "--set", "identity.channel=shop", "--create-channel", "STORE", "--errors", "bad.ndjson")
    run = scrm("import", "events", str(path), *flags)
    assert run.returncode == 1
    message = 'the time "tomorrow" does not read YYYYMMDD, YYYY-MM-DD or RFC 3339'
    assert run.stderr.splitlines() == [f"row 2 (occurredAt): {message}"]
    assert orjson.loads((tmp_path / "bad.ndjson").read_bytes()) == {
        "row": 2, "line": 3, "code": "INVALID_TIME", "message": message, "field": "occurredAt", "column": "occurredAt",
    }  # fmt: skip


def test_wrong_usage_is_2_and_a_line_for_each_problem(scrm: Any) -> None:
    run = scrm("import", "users", "gone.csv", "--delimiter", "::", "--encoding", "klingon")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.splitlines() == [
        "there is no file gone.csv",
        'the delimiter "::" is not one character',
        'the encoding "klingon" is unknown; most files are utf-8 or gb18030',
    ]
