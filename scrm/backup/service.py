"""Taking a backup, and putting one in the place of a database."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy.engine import make_url
from sqlalchemy.exc import DatabaseError

from scrm import __version__
from scrm.auth import secret_mark
from scrm.backup import Done, postgresql, sqlite
from scrm.backup.figures import Present, contents, differences, present_workers, read_figures
from scrm.backup.manifest import DATA, FORMAT, MANIFEST, Manifest, digest, read_backup, writing
from scrm.config import Settings
from scrm.db import Database, Tx
from scrm.errors import ScrmError, StartupError
from scrm.events.sequencer import head
from scrm.migrate import CORE, knows

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Restored:
    """What was put in place. `differences` are figures that are not those of the backup; `aside` is where a file lies that was no
    database any more; `keys_work` says whether API keys are hashed here under the secret that they were made with."""

    manifest: Manifest
    differences: Sequence[str]
    aside: Path | None
    keys_work: bool


def take_backup(settings: Settings, destination: Path, done: Done) -> Manifest:
    """Write one state of the database to a new directory; who writes meanwhile is not held up.

    Raises:
        ScrmError: BACKUP_EXISTS, BACKUP_FAILED, PROGRAM_MISSING, NO_SCHEMA.
        StartupError: there is no database.
    """
    url = make_url(settings.database_url)
    engine = url.get_backend_name()
    live = _file(settings)
    if live is not None and not live.is_file():
        raise StartupError(f"the database is not ready: there is no file {live}")
    _read(settings, head)
    with writing(destination) as draft:
        data, at = draft / DATA[engine], datetime.now(UTC)
        schema = None if live is not None else _read(settings, postgresql.schema_of)
        figures = sqlite.copy(live, data, done) if live is not None else _read(settings, postgresql.dump, url, data, done)
        manifest = Manifest(
            format=FORMAT,
            scrm=__version__,
            engine=engine,
            schema=schema,
            at=at,
            secret=secret_mark(settings),
            bytes=data.stat().st_size,
            sha256=digest(data),
            figures=figures,
        )
        (draft / MANIFEST).write_text(manifest.text(), encoding="utf-8")
    return manifest


def restore_backup(settings: Settings, source: Path, done: Done, *, replace: bool) -> Restored:
    """Put a backup in the place of the database, as a whole or not at all, and compare what is there then with the manifest.

    Raises:
        ScrmError: BACKUP_FOREIGN, BACKUP_DAMAGED, DATABASE_NOT_EMPTY, DATABASE_IN_USE, RESTORE_FAILED, PROGRAM_MISSING,
            NO_SCHEMA.
    """
    manifest, data = read_backup(source)
    _fits(manifest, settings, source)
    target, aside = _file(settings), None
    _free(settings, replace)
    if target is not None:
        with sqlite.side_copy(data, target) as beside:
            wrong = differences(manifest.figures, sqlite.look(beside, read_figures))
            if wrong:
                raise ScrmError("BACKUP_DAMAGED", f"{source} does not hold what its manifest says: {'; '.join(wrong)}")
            aside = sqlite.put_in_place(beside, target)
    else:
        schema = _read(settings, postgresql.schema_of)
        if schema != manifest.schema:
            raise ScrmError(
                "BACKUP_FOREIGN", f"{source} is of the schema {manifest.schema}, and the tables are to be in {schema} here"
            )
        version = _read(settings, postgresql.server_version)
        postgresql.load(make_url(settings.database_url), version, schema, data, done)
    found = _read(settings, read_figures)
    keys_work = manifest.secret in (None, secret_mark(settings))
    return Restored(manifest, differences(manifest.figures, found), aside, keys_work)


def _fits(manifest: Manifest, settings: Settings, source: Path) -> None:
    engine = make_url(settings.database_url).get_backend_name()
    if manifest.engine != engine:
        raise ScrmError("BACKUP_FOREIGN", f"{source} is of {manifest.engine}, and this database is {engine}")
    revision = manifest.figures.migrations.get(CORE)
    if revision is None or not knows(revision):
        raise ScrmError(
            "BACKUP_FOREIGN",
            f"{source} is of scrm {manifest.scrm}, whose tables this version does not know; install that version",
        )


def _free(settings: Settings, replace: bool) -> None:
    """Nothing is lost that is not meant to be, and nobody is at work."""
    file = _file(settings)
    if file is not None and not file.exists():
        if not file.parent.is_dir():
            raise StartupError(f"there is no directory {file.parent} for the database")
        return
    try:
        held = _read(settings, contents)
        at_work = [one for one in _read(settings, present_workers, datetime.now(UTC)) if _lives(one)]
        others = _read(settings, postgresql.others_connected) if file is None else []
    except DatabaseError as error:
        if not (isinstance(error.orig, sqlite3.DatabaseError) and error.orig.sqlite_errorcode & 0xFF in sqlite.UNREADABLE):
            raise
        held, at_work, others = ["SQLite cannot read it"], [], []
    if held and not replace:
        raise ScrmError(
            "DATABASE_NOT_EMPTY",
            f"the database is not empty ({', '.join(held)}); with --replace all of it makes place for the backup",
        )
    if at_work:
        who = ", ".join(f"{one.host} process {one.pid}" for one in at_work)
        raise ScrmError("DATABASE_IN_USE", f"a worker is at work ({who}); stop it first, or wait half a minute if it was killed")
    if others:
        raise ScrmError("DATABASE_IN_USE", f"others are connected ({', '.join(others)}); stop servers, workers and imports first")


def _lives(worker: Present) -> bool:
    """Whether it may be there still: of another machine nothing more is known."""
    if worker.host != socket.gethostname():
        return True
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _file(settings: Settings) -> Path | None:
    """The file of a SQLite database."""
    url = make_url(settings.database_url)
    return Path(url.database or "").resolve() if url.get_backend_name() == "sqlite" else None


def _read(settings: Settings, function: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Ask the database for one state of it, and change nothing: it may be somebody else's."""
    file = _file(settings)
    if file is not None:
        return sqlite.look(file, function, *args, **kwargs)

    async def call() -> T:
        db = Database(settings.database_url)
        try:
            return await db.read(function, *args, **kwargs)
        finally:
            await db.close()

    return asyncio.run(call())
