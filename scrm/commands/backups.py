"""`scrm backup` and `scrm restore`."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from scrm import migrate
from scrm.backup import Done
from scrm.backup.manifest import Manifest
from scrm.backup.service import restore_backup, take_backup
from scrm.commands.session import AsJson, Session, note, say, session
from scrm.errors import ScrmError, StartupError

_FAILED = frozenset({"BACKUP_DAMAGED", "BACKUP_FAILED", "RESTORE_FAILED"})
"""What went wrong with a backup, and not with what was asked for."""


def backup(
    ctx: typer.Context,
    destination: Annotated[Path, typer.Argument(help="A directory that does not exist yet.")],
    as_json: AsJson = False,
) -> None:
    """Write the database as it is now to a directory, while servers, workers and imports go on."""
    settings = session(ctx).settings()
    with _coded("BACKUP_FAILED"), _progress(destination.name) as done:
        manifest = take_backup(settings, destination, done)
    if as_json:
        say(manifest.text().rstrip())
    else:
        say(f"{destination}: {_summary(manifest)}")


def restore(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(help="What scrm backup wrote.")],
    replace: Annotated[bool, typer.Option("--replace", help="Though the database is not empty: what it holds is lost.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of the database, and compare; stop servers, workers and imports first."""
    opened = session(ctx)
    settings = opened.settings()
    with _coded("RESTORE_FAILED"), _progress(source.name) as done:
        restored = restore_backup(settings, source, done, replace=replace)
    if restored.aside is not None:
        note(f"what was no database any more lies in {restored.aside}")
    if not restored.keys_work:
        note("API keys were made under another secret; bring scrm.secret or SCRM_SECRET_KEY along, or make new keys")
    for line in _pending(opened):
        note(line)
    for line in restored.differences:
        note(line)
    if as_json:
        say(restored.manifest.text().rstrip())
    else:
        say(f"{source}: {_summary(restored.manifest)}")
    if restored.differences:
        raise typer.Exit(1)


def _summary(manifest: Manifest) -> str:
    said = manifest.figures
    return f"{said.users} users, {said.events} events, position {said.position}, {manifest.bytes} bytes of {manifest.engine}"


def _pending(opened: Session) -> list[str]:
    """What is to be upgraded: the backup may be older than the program."""
    settings = opened.settings()
    try:
        stands = asyncio.run(migrate.status(settings.database_url, opened.plugins(settings, "skip")))
    except StartupError as error:
        return error.problems
    return [f"{one.pending} migrations of {one.owner} are pending; run scrm db upgrade" for one in stands if one.pending]


@contextmanager
def _coded(code: str) -> Iterator[None]:
    """What goes wrong is said with its code; 1 where a backup is not good or could not be finished."""
    try:
        yield
    except ScrmError as error:
        note(f"{error.code}: {error.message}")
        raise typer.Exit(1 if error.code in _FAILED else 2) from None
    except ConnectionError:
        raise
    except (sqlite3.Error, OSError) as error:
        note(f"{code}: {error}")
        raise typer.Exit(1) from None


@contextmanager
def _progress(title: str) -> Iterator[Done]:
    """A bar on standard error while a person watches; silent where nobody does."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None)

        def move(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield move
