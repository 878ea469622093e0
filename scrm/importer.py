"""`scrm import`: files of events and of users, with a mapping from their columns."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from scrm.channels.service import ChannelKind, all_channels, create_channel
from scrm.config import Settings
from scrm.db import Database, Tx
from scrm.errors import StartupError
from scrm.events.ingest import Ingest
from scrm.events.records import NewEvent
from scrm.importing.ledger import ImportKind, Tally
from scrm.importing.mapping import (
    EVENTS,
    USERS,
    EventMapper,
    FieldMap,
    MappingFile,
    Reading,
    Shape,
    UserMapper,
    UserRow,
    nearest,
    read_mapping_file,
    split_pairs,
)
from scrm.importing.people import upsert_users
from scrm.importing.readers import Source, check_source, format_of, header, parse_columns, read, survey
from scrm.importing.refused import check_path, default_path
from scrm.importing.run import ImportPlan, ImportReport, Mapper, Outcome, Sink, run
from scrm.plugin import EventType

Item = TypeVar("Item")

_EVENT_BATCH = 1000
_USER_BATCH = 100


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What `scrm import users|events` was asked for; None leaves it to the mapping file, then to the default.

    `map` and `set` are `field=column` and `field=value`. `columns` is `name:start:width,…` with starts counted from 0.
    `name` stands for the file in derived keys (default: the file's name): a new export of the same rows keeps it.
    `create_channel` is the kind that unknown channels are created with.
    `restart` reads from the first row though an earlier run was cut off; with `once`, what was imported whole before is not read.
    Refused rows are written to `errors`, else, with `keep_refused`, to a file in the working directory that is called after the
    file; else they are only counted.
    """

    path: Path
    format: str | None = None
    columns: str | None = None
    skip_lines: int | None = None
    delimiter: str | None = None
    encoding: str | None = None
    map: Sequence[str] = ()
    set: Sequence[str] = ()
    mapping: Path | None = None
    minor: bool | None = None
    date_format: str | None = None
    name: str | None = None
    errors: Path | None = None
    keep_refused: bool = False
    create_channel: str | None = None
    restart: bool = False
    once: bool = False
    batch: int | None = None
    actor: str = "cli"


BatchDone = Callable[[Tally], None]
Tell = Callable[[str], None]
"""Takes a line that says how the file is read, before any row is."""


async def import_events(
    db: Database,
    settings: Settings,
    types: Mapping[str, EventType],
    options: ImportOptions,
    on_batch: BatchDone | None = None,
    tell: Tell | None = None,
) -> ImportReport:
    """Record a file's rows as events, through the same door as everything else.

    Raises:
        StartupError: the options or the mapping are wrong; nothing was read.
        ScrmError: `UNREADABLE_FILE`.
    """
    laid = await asyncio.to_thread(_lay_out, options, EVENTS, ("type", "occurredAt"), tell)
    reading = Reading(settings.zone, settings.currency, laid.options.minor or False, laid.options.date_format)
    ingest = Ingest(db, settings, types)

    async def sink(events: Sequence[NewEvent]) -> Sequence[Outcome]:
        keys = {event.identity.channel for event in events if event.identity}
        keys |= {event.channel for event in events if event.channel}
        await _create_channels(db, options, keys)
        return [Outcome(result.status, result.errors) for result in await ingest.record(events)]

    plan = await asyncio.to_thread(_plan, ImportKind.EVENTS, laid, EventMapper(laid.fields, reading), sink, _EVENT_BATCH)
    return await run(db, plan, on_batch)


async def import_users(
    db: Database, settings: Settings, options: ImportOptions, on_batch: BatchDone | None = None, tell: Tell | None = None
) -> ImportReport:
    """Create or update one user per row, found by the row's identity; blank cells change nothing.

    Raises:
        StartupError: the options or the mapping are wrong; nothing was read.
        ScrmError: `UNREADABLE_FILE`.
    """
    laid = await asyncio.to_thread(_lay_out, options, USERS, ("identity.channel", "identity.externalId"), tell)

    async def sink(people: Sequence[UserRow]) -> Sequence[Outcome]:
        keys = {identity.channel for person in people for identity in person.identities}
        keys |= {person.channel for person in people if person.channel}
        await _create_channels(db, options, keys)
        return await upsert_users(db, settings, people, actor=options.actor)

    plan = await asyncio.to_thread(_plan, ImportKind.USERS, laid, UserMapper(laid.fields), sink, _USER_BATCH)
    return await run(db, plan, on_batch)


@contextmanager
def progress_bar(title: str, path: Path | None = None, total: int | None = None) -> Iterator[BatchDone]:
    """A bar on standard error while a person watches; silent where nobody does."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda tally: None
        return
    if total is None and path is not None and path.is_file():
        total = _lines(path)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task(title, total=total)
        done = 0

        def move(tally: Tally) -> None:
            nonlocal done
            done = tally.rows_read
            bar.update(task, completed=done, total=max(total, done) if total is not None else None)

        yield move
        bar.update(task, total=done, completed=done)


@dataclass(frozen=True)
class _Layout:
    options: ImportOptions
    source: Source
    fields: FieldMap
    said: Mapping[str, Any]
    """What the fingerprint is made of besides the file."""


def _lay_out(options: ImportOptions, shape: Shape, required: Sequence[str], tell: Tell | None) -> _Layout:
    filed = read_mapping_file(options.mapping) if options.mapping is not None else MappingFile()
    unsaid = {key: value for key, value in filed.options.items() if getattr(options, key) is None}
    options = dataclasses.replace(options, **unsaid)
    if options.create_channel is not None and options.create_channel not in set(ChannelKind):
        known = ", ".join(ChannelKind)
        close = nearest(options.create_channel, list(ChannelKind))
        raise StartupError(f'the channel kind "{options.create_channel}" is unknown{close}; there are {known}')
    source = Source(
        options.path,
        format_of(options.path, options.format or ("fixed" if options.columns else None)),
        parse_columns(options.columns) if options.columns is not None else (),
        options.skip_lines or 0,
        _DELIMITERS.get(options.delimiter, options.delimiter) if options.delimiter is not None else None,
        options.encoding or "utf-8",
    )
    check_source(source)
    if (errors := _errors(options)) is not None:
        check_path(errors, options.path)
    mapped = {**filed.map, **split_pairs("--map", options.map)}
    fixed = {**filed.set, **split_pairs("--set", options.set)}
    fields = FieldMap(shape, header(source), mapped, fixed, required)
    if tell is not None:
        _describe(fields, source, tell)
    said = {
        **{"map": mapped, "set": fixed, "minor": bool(options.minor), "date_format": options.date_format, "name": _name(options)},
        **{"format": source.format, "columns": [list(column) for column in source.columns], "skip": source.skip_lines},
        **{"delimiter": source.delimiter, "encoding": source.encoding},
    }
    return _Layout(options, source, fields, said)


def _errors(options: ImportOptions) -> Path | None:
    return options.errors or (default_path(options.path) if options.keep_refused else None)


def _describe(fields: FieldMap, source: Source, tell: Tell) -> None:
    """Say which columns are taken and which are not; where each row names its own, those of the first one."""
    columns = header(source)
    where = "columns" if columns is not None else "columns of the first row"
    first = next(read(source), None) if columns is None else None
    taken, ignored = fields.describe(columns or tuple(first.cells if first is not None else ()))
    tell(f"{where} taken: {'; '.join(taken) or 'none'}")
    if ignored:
        tell(f"{where} ignored: {', '.join(ignored)}")


_DELIMITERS = {"\\t": "\t", "tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}


def _plan(kind: ImportKind, laid: _Layout, mapper: Mapper[Item], sink: Sink[Item], batch: int) -> ImportPlan[Item]:
    seen = survey(laid.source)
    said = orjson.dumps([kind, seen.fingerprint, laid.said], option=orjson.OPT_SORT_KEYS)
    options = laid.options
    has_header = 1 if laid.source.columns == () and laid.source.format == "csv" else 0

    def column_of(name: str) -> str | None:
        source = laid.fields.sources.get(name)
        return source.column if source is not None else None

    return ImportPlan(
        kind=kind,
        name=_name(options),
        fingerprint=hashlib.blake2b(said, digest_size=16).hexdigest(),
        source=laid.source,
        rows_total=max(0, seen.lines - laid.source.skip_lines - has_header),
        mapper=mapper,
        sink=sink,
        column_of=column_of,
        batch=options.batch or batch,
        restart=options.restart,
        once=options.once,
        actor=options.actor,
        errors=_errors(options),
        errors_at_once=options.errors is not None,
    )


def _name(options: ImportOptions) -> str:
    return options.name or options.path.name.removesuffix(".gz")


def _lines(path: Path) -> int:
    return survey(Source(path, format_of(path, "ndjson"))).lines


async def _create_channels(db: Database, options: ImportOptions, keys: Iterable[str]) -> None:
    if options.create_channel is not None:
        await db.write(_add_missing, sorted(keys), options.create_channel, options.actor, db.clock())


def _add_missing(tx: Tx, keys: Sequence[str], kind: str, actor: str, at: Any) -> None:
    known = all_channels(tx)
    for key in keys:
        if key not in known:
            create_channel(tx, key=key, name=key, kind=kind, at=at, actor=actor)
