"""`scrm import`: files of events and of users."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from scrm.commands.session import AsJson, Session, note, plain, say, say_json, session
from scrm.config import Settings
from scrm.db import Database
from scrm.importer import BatchDone, ImportOptions, Tell, import_events, import_users, progress_bar
from scrm.importing.run import ImportReport
from scrm.memory import settle
from scrm.provision import all_event_types, ready_plugins

app = typer.Typer(help="Import files of events and of users.", no_args_is_help=True)
Call = Callable[[Database, Settings, BatchDone], Awaitable[ImportReport]]

File = Annotated[Path, typer.Argument(help="CSV, NDJSON or fixed width; gzip is seen by itself.")]
Format = Annotated[str | None, typer.Option("--format", help="csv, ndjson or fixed; else by the file's name.")]
Columns = Annotated[str | None, typer.Option("--columns", help="Of a fixed width file: name:start:width,… with starts from 0.")]
Map = Annotated[list[str] | None, typer.Option("--map", help="field=column, once per field.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="field=value for every row.")]
Mapping = Annotated[Path | None, typer.Option("--mapping", help="A TOML file that says all of this.")]
SkipLines = Annotated[int | None, typer.Option("--skip-lines", help="Lines to leave out at the start.")]
Errors = Annotated[
    Path | None, typer.Option("--errors", help="Where refused rows go, as NDJSON; else FILE's name and .errors.ndjson.")
]
Delimiter = Annotated[str | None, typer.Option("--delimiter", help="Of a CSV file; else guessed.")]
Encoding = Annotated[str | None, typer.Option("--encoding", help="Else UTF-8.")]
ImportName = Annotated[str | None, typer.Option("--name", help="What stands for the file in derived keys; else its name.")]
CreateChannel = Annotated[str | None, typer.Option("--create-channel", help="The kind to create unknown channels with.")]
Restart = Annotated[bool, typer.Option("--restart", help="Read from the first row though an earlier run was cut off.")]


@app.command("events")
def events(
    ctx: typer.Context,
    file: File,
    format: Format = None,
    columns: Columns = None,
    map: Map = None,
    set: Set = None,
    mapping: Mapping = None,
    skip_lines: SkipLines = None,
    errors: Errors = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    minor: Annotated[bool, typer.Option("--minor", help="Amounts are in minor units, such as cents.")] = False,
    date_format: Annotated[str | None, typer.Option("--date-format", help="Of times, as in strptime.")] = None,
    name: ImportName = None,
    create_channel: CreateChannel = None,
    restart: Restart = False,
    as_json: AsJson = False,
) -> None:
    """Record a file's rows as events; again changes nothing, and a run that was cut off goes on where it was."""
    options = ImportOptions(
        path=file,
        format=format,
        columns=columns,
        map=map or (),
        set=set or (),
        mapping=mapping,
        skip_lines=skip_lines,
        errors=errors,
        keep_refused=True,
        delimiter=delimiter,
        encoding=encoding,
        minor=minor or None,
        date_format=date_format,
        name=name,
        create_channel=create_channel,
        restart=restart,
    )
    opened = session(ctx)
    plugins = opened.plugins()

    async def call(db: Database, settings: Settings, done: BatchDone) -> ImportReport:
        types = all_event_types(await ready_plugins(settings, plugins))
        return await import_events(db, settings, types, options, done, _teller(as_json))

    _run(opened, file, call, as_json)


@app.command("users")
def users(
    ctx: typer.Context,
    file: File,
    format: Format = None,
    columns: Columns = None,
    map: Map = None,
    set: Set = None,
    mapping: Mapping = None,
    skip_lines: SkipLines = None,
    errors: Errors = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    name: ImportName = None,
    create_channel: CreateChannel = None,
    restart: Restart = False,
    as_json: AsJson = False,
) -> None:
    """Create or update one user per row, found by the row's identity; blank cells change nothing."""
    options = ImportOptions(
        path=file,
        format=format,
        columns=columns,
        map=map or (),
        set=set or (),
        mapping=mapping,
        skip_lines=skip_lines,
        errors=errors,
        keep_refused=True,
        delimiter=delimiter,
        encoding=encoding,
        name=name,
        create_channel=create_channel,
        restart=restart,
    )
    opened = session(ctx)
    plugins = opened.plugins()

    async def call(db: Database, settings: Settings, done: BatchDone) -> ImportReport:
        await ready_plugins(settings, plugins)
        return await import_users(db, settings, options, done, _teller(as_json))

    _run(opened, file, call, as_json)


def _run(opened: Session, file: Path, call: Call, as_json: bool) -> None:
    settle()
    with progress_bar(file.name, file) as done:
        report = opened.run(lambda db, settings: call(db, settings, done))
    if as_json:
        say_json({**plain(report), "exitCode": report.exit_code})
    else:
        if report.resumed_after:
            say(f"went on after row: {report.resumed_after}")
        for name, value in _fields(report.tally).items():
            say(f"{name.replace('_', ' ')}: {value}")
    _say_refused(report)
    raise typer.Exit(report.exit_code)


def _teller(as_json: bool) -> Tell | None:
    return None if as_json else note


def _say_refused(report: ImportReport) -> None:
    for error in report.errors:
        place = f" ({error.field})" if error.field else ""
        note(f"row {error.row}{place}: {error.message}")
    if report.errors_file is not None:
        more = report.tally.rejected - len({error.row for error in report.errors})
        count = f"{more} more" if more > 0 else f"{report.tally.rejected} row{'s' if report.tally.rejected > 1 else ''}"
        note(f"{count} in {report.errors_file}; mend them there, and import that file with the same fields")
    if report.advice is not None:
        note(report.advice)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
