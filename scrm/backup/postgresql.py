"""PostgreSQL: `pg_dump` of one snapshot, and one transaction in which a dump replaces the whole schema."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import sqlalchemy as sa
from sqlalchemy.engine import URL

from scrm.backup import Done
from scrm.backup.figures import PASSING, Figures, read_figures
from scrm.backup.programs import environment, program
from scrm.db import Tx
from scrm.errors import ScrmError

_PIECE = 256 * 1024
_LOOK = 0.2
_SINCE_17 = b"SET transaction_timeout = 0;\n"
"""Said by programs from version 17 on, and unknown to earlier servers."""

_WHOLE = b"commit;\n\\set ON_ERROR_STOP off\nanalyze;\n"

# Whatever is in the schema, but what belongs to an extension; named before the first is dropped.
_EMPTY = """
set lock_timeout = '20s';
set statement_timeout = 0;
set client_min_messages = warning;
begin;
do $$
declare one text;
begin
  foreach one in array (
    select coalesce(array_agg(said order by rank, said), '{}') from (
      select case c.relkind when 'v' then 0 when 'm' then 1 when 'S' then 4 else 2 end as rank,
             format('drop %s if exists %I.%I cascade',
                    case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence'
                                   when 'f' then 'foreign table' else 'table' end, s.nspname, c.relname) as said
        from pg_class c join pg_namespace s on s.oid = c.relnamespace
       where s.nspname = current_schema() and c.relkind in ('r', 'p', 'v', 'm', 'S', 'f')
         and not exists (select from pg_depend d where d.objid = c.oid and d.classid = 'pg_class'::regclass and d.deptype = 'e')
      union all
      select 5, format('drop routine if exists %I.%I(%s) cascade',
                       s.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
        from pg_proc p join pg_namespace s on s.oid = p.pronamespace
       where s.nspname = current_schema()
         and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
      union all
      select 6, format('drop type if exists %I.%I cascade', s.nspname, t.typname)
        from pg_type t join pg_namespace s on s.oid = t.typnamespace
       where s.nspname = current_schema() and t.typtype in ('e', 'd')
         and not exists (select from pg_depend d where d.objid = t.oid and d.classid = 'pg_type'::regclass and d.deptype = 'e')
    ) as what
  ) loop
    execute one;
  end loop;
end $$;
"""


def schema_of(tx: Tx) -> str:
    """The schema in which the tables live.

    Raises: ScrmError NO_SCHEMA.
    """
    found = tx.scalar(sa.select(sa.func.current_schema()))
    if found is None:
        raise ScrmError("NO_SCHEMA", "none of the schemas on the search_path exists; create one, or mend the role's search_path")
    return str(found)


def others_connected(tx: Tx) -> list[str]:
    """Who else is connected to the database as this user, as `program at address`."""
    query = sa.text(
        "select distinct coalesce(nullif(application_name, ''), 'a program') || coalesce(' at ' || host(client_addr), '')"
        " from pg_stat_activity where datname = current_database() and usename = current_user and pid <> pg_backend_pid()"
        " and backend_type = 'client backend' order by 1"
    )
    return [row[0] for row in tx.rows(query)]


def server_version(tx: Tx) -> int:
    """The server's major version."""
    return int(tx.scalar(sa.text("show server_version_num"))) // 10_000


def dump(tx: Tx, url: URL, target: Path, done: Done) -> Figures:
    """Write what this transaction sees to a new file; returns what that is.

    Raises: ScrmError PROGRAM_MISSING, BACKUP_FAILED.
    """
    pg_dump = program("pg_dump", server_version(tx))
    tx.execute(sa.text("set local idle_in_transaction_session_timeout = 0"))
    snapshot, schema = tx.scalar(sa.text("select pg_export_snapshot()")), _quoted(schema_of(tx))
    command = [pg_dump, "--format=custom", f"--snapshot={snapshot}", f"--schema={schema}", "--no-password"]
    command += [f"--exclude-table-data={schema}.{table}" for table in PASSING]
    with _Running([*command, f"--file={target}"], url) as dumping:
        figures = read_figures(tx)
        while dumping.runs():
            done(target.stat().st_size if target.exists() else 0, None)
        dumping.check(code="BACKUP_FAILED")
    return figures


def load(url: URL, server: int, schema: str, data: Path, done: Done) -> None:
    """Replace everything in the schema by what a dump holds, in one transaction: a failure or an end by force changes nothing.

    Raises: ScrmError PROGRAM_MISSING, RESTORE_FAILED.
    """
    pg_restore, psql = program("pg_restore", server), program("psql", server)
    read = [pg_restore, "--file=-", f"--schema={schema}", "--no-owner", "--no-privileges", str(data)]
    write = [psql, "--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", "--output=/dev/null", "--file=-"]
    with _Running(write, url, stdin=subprocess.PIPE) as writing, _Running(read, url, stdout=subprocess.PIPE) as reading:
        with contextlib.suppress(BrokenPipeError), writing.input as target:
            target.write(_EMPTY.encode())
            _pump(reading.output, target, server, done)
            # Without this word, which only a whole dump is followed by, psql's end takes everything back.
            if reading.process.wait() == 0:
                target.write(_WHOLE)
        writing.check(code="RESTORE_FAILED")
        reading.check(code="RESTORE_FAILED")


def _pump(source: IO[bytes], target: IO[bytes], server: int, done: Done) -> None:
    written = 0
    while piece := source.read(_PIECE):
        if not written and server < 17:
            piece = piece.replace(_SINCE_17, b"", 1)
        target.write(piece)
        written += len(piece)
        done(written, None)


def _quoted(name: str) -> str:
    """A name as a pattern that fits nothing else."""
    return '"' + name.replace('"', '""') + '"'


class _Running:
    """One of PostgreSQL's programs at work on a database; ended with the block."""

    def __init__(self, command: Sequence[str], url: URL, *, stdin: int = subprocess.DEVNULL, stdout: int | None = None) -> None:
        self._name = Path(command[0]).name
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the block
        self.process = subprocess.Popen(command, env=environment(url), stdin=stdin, stdout=stdout, stderr=self._said)

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.process.wait()
        self._said.close()

    @property
    def input(self) -> IO[bytes]:
        """Where to write to it."""
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def output(self) -> IO[bytes]:
        """Where to read from it."""
        assert self.process.stdout is not None
        return self.process.stdout

    def runs(self) -> bool:
        """Whether it is still at work, after a moment."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_LOOK)
        return self.process.returncode is None

    def check(self, *, code: str) -> None:
        """Wait for its end.

        Raises: ScrmError of this code with its last words when it did not end well.
        """
        status = self.process.wait()
        if status:
            self._said.seek(0)
            lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
            wrong = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
            said = (wrong or lines or [f"it ended with status {status}"])[0]
            raise ScrmError(code, f"{self._name} failed: {said.strip()}")
