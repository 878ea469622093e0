"""SQLite: a copy of one state of a file that others write to, and a file put in the place of another."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from scrm.backup import Done
from scrm.backup.figures import PASSING, Figures, read_figures
from scrm.backup.manifest import synced
from scrm.db import Tx
from scrm.errors import ScrmError

P = ParamSpec("P")
T = TypeVar("T")

UNREADABLE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_PAGES = 1000
_BESIDE = ("-wal", "-shm", "-journal")
_GONE = b"replaced by scrm restore".ljust(100, b"\0")


def copy(live: Path, target: Path, done: Done) -> Figures:
    """Write the state that the file has now to a new file, while others write on; returns what the copy holds.

    Raises: ScrmError BACKUP_FAILED when the copy is not sound.
    """
    with contextlib.closing(_open(live, "ro")) as source, contextlib.closing(_open(target, "rwc")) as copied:
        copied.execute("pragma synchronous = off")
        # With a snapshot held the copy is of one state and is never begun again, however much is written meanwhile.
        source.execute("begin")
        source.execute("select 1 from sqlite_master").fetchall()
        source.backup(copied, pages=_PAGES, progress=lambda _status, left, total: done(total - left, total))
        source.execute("rollback")
        copied.execute("pragma journal_mode = delete")
        for table in PASSING:
            copied.execute(f"delete from {table}")
        [problem] = copied.execute("pragma quick_check(1)").fetchone()
    if problem != "ok":
        raise ScrmError("BACKUP_FAILED", f"{live} is damaged: {problem.splitlines()[-1]}; restore the last good backup")
    return look(target, read_figures)


def look(file: Path, call: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call with a transaction that reads the file, and leaves it as it is."""
    engine = sa.create_engine("sqlite://", creator=lambda: _open(file, "ro"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("begin")
        return call(Tx(connection), *args, **kwargs)


def put_in_place(file: Path, target: Path) -> Path | None:
    """Let a finished file, which lies in the same directory, take the target's place in one step, or fail and change nothing.

    A target that is no database any more is moved aside first, and its new name returned.

    Raises: ScrmError DATABASE_IN_USE.
    """
    aside = None
    if not target.exists():
        _remove_leftovers(target)
        file.rename(target)
    else:
        try:
            with _alone(target):
                file.rename(target)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in UNREADABLE:
                raise
            aside = _move_aside(target)
            file.rename(target)
    synced(target.parent)
    return aside


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Nobody else has the file open, and whoever opens it while the block replaces it finds no database in the old one."""
    with contextlib.closing(_open(target, "rw", timeout=1)) as connection, target.open("r+b", buffering=0) as old:
        try:
            connection.execute("pragma locking_mode = exclusive")
            # Only whoever is alone can leave the write-ahead log, and then neither -wal nor -shm is left.
            connection.execute("pragma journal_mode = delete").fetchone()
            connection.execute("begin exclusive")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _BUSY:
                raise
            raise ScrmError(
                "DATABASE_IN_USE", f"{target} is open in another process; stop the server, the workers and imports first"
            ) from None
        yield
        os.pwrite(old.fileno(), _GONE, 0)
        connection.close()


def _remove_leftovers(target: Path) -> None:
    """A log without its database would be read into the new one."""
    for end in _BESIDE:
        target.with_name(target.name + end).unlink(missing_ok=True)


def _move_aside(target: Path) -> Path:
    for number in range(1, 1000):
        aside = target.with_name(f"{target.name}.damaged-{number}")
        if not aside.exists():
            break
    for end in ("", *_BESIDE):
        with contextlib.suppress(FileNotFoundError):
            target.with_name(target.name + end).rename(aside.with_name(aside.name + end))
    return aside


@contextlib.contextmanager
def side_copy(data: Path, target: Path) -> Iterator[Path]:
    """A copy of the backup's file beside the target, on the disk, with the target's owner; removed if it is still there after."""
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.restoring")
    beside.touch(mode=0o600, exist_ok=False)
    try:
        shutil.copyfile(data, beside)
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, beside)
            with contextlib.suppress(PermissionError):
                os.chown(beside, target.stat().st_uid, target.stat().st_gid)
        synced(beside)
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def _open(file: Path, mode: str, timeout: float = 60) -> sqlite3.Connection:
    uri = f"{file.resolve().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=timeout)
