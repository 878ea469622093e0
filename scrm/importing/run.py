"""From the first row to the last: batches into a sink, counts kept after each, problems row by row."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Generic, NamedTuple, Protocol, TypeVar

import orjson

from scrm.db import Database
from scrm.errors import ScrmError, UserError
from scrm.events.records import RecordStatus
from scrm.importing.keys import RowKeys
from scrm.importing.ledger import Begun, ImportKind, ImportState, Tally, advance, begin, end, finished
from scrm.importing.readers import Row, Source, read

Item = TypeVar("Item")
ItemOut = TypeVar("ItemOut", covariant=True)

_SHOWN = 5


class Mapper(Protocol[ItemOut]):
    """Makes an item of a row; `key` is empty unless `needs_key`."""

    needs_key: bool

    def build(self, row: Row, key: str) -> ItemOut: ...


class Outcome(NamedTuple):
    """What became of one item."""

    status: RecordStatus
    errors: tuple[UserError, ...] = ()


Sink = Callable[[Sequence[Item]], Awaitable[Sequence[Outcome]]]
"""Takes a batch and answers item by item."""


class Prepared(NamedTuple, Generic[Item]):
    """A row on its way: an item, or the problem with it."""

    number: int
    line: int
    item: Item | None
    problem: UserError | None


@dataclass(frozen=True, slots=True)
class RowError:
    """One problem of one row: `field` as the API names it, `column` as the file does."""

    row: int
    line: int
    code: str
    message: str
    field: str | None
    column: str | None


@dataclass(slots=True)
class ImportReport:
    """How an import ended. `errors` are the first few; all of them are in the errors file, if one was named."""

    id: uuid.UUID
    state: ImportState
    tally: Tally
    resumed_after: int = 0
    errors: list[RowError] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if every row is in the database, 1 if some are not."""
        return 0 if self.state is ImportState.DONE and not self.tally.rejected else 1


@dataclass(frozen=True)
class ImportPlan(Generic[Item]):
    """Everything that is decided before the first row."""

    kind: ImportKind
    name: str
    fingerprint: str
    source: Source
    rows_total: int
    mapper: Mapper[Item]
    sink: Sink[Item]
    column_of: Callable[[str], str | None]
    batch: int = 1000
    restart: bool = False
    once: bool = False
    actor: str = "cli"
    errors: Path | None = None


Progress = Callable[[Tally], None]
"""Called after every batch."""


async def run(db: Database, plan: ImportPlan[Item], progress: Progress | None = None) -> ImportReport:
    """Import what the plan says; going on where an earlier run of the same was cut off.

    Raises:
        ScrmError: `UNREADABLE_FILE`; what was imported before stays, and the import is FAILED.
    """
    before = await db.read(finished, plan.kind, plan.fingerprint) if plan.once else None
    if before is not None:
        return ImportReport(before.id, ImportState.DONE, before.tally)
    begun = await db.write(
        begin, plan.kind, plan.name, plan.fingerprint, plan.rows_total, at=db.clock(), actor=plan.actor, restart=plan.restart
    )
    report = ImportReport(begun.id, ImportState.RUNNING, begun.tally, begun.tally.rows_read if begun.resumed else 0)
    try:
        await _all_batches(db, plan, begun, report, progress)
    except BaseException as error:
        stopped = not isinstance(error, Exception)
        report.state = ImportState.INTERRUPTED if stopped else ImportState.FAILED
        said = None if stopped else str(error) if isinstance(error, ScrmError) else type(error).__name__
        await db.write(end, begun.id, report.state, report.tally, at=db.clock(), error=said)
        raise
    report.state = ImportState.DONE
    await db.write(end, begun.id, report.state, report.tally, at=db.clock())
    return report


async def _all_batches(
    db: Database, plan: ImportPlan[Item], begun: Begun, report: ImportReport, progress: Progress | None
) -> None:
    """The next batch is read in a thread while this one is written."""
    keys = RowKeys(plan.name) if plan.mapper.needs_key else None
    rows = _prepare(plan, keys, begun.tally.rows_read)
    upcoming = asyncio.create_task(asyncio.to_thread(_take, rows, plan.batch))
    try:
        with _errors_file(plan.errors, begun.resumed) as errors:
            while batch := await asyncio.shield(upcoming):
                upcoming = asyncio.create_task(asyncio.to_thread(_take, rows, plan.batch))
                await _one_batch(plan, batch, report, errors)
                await db.write(advance, begun.id, report.tally)
                if progress is not None:
                    progress(report.tally)
    finally:
        await asyncio.gather(upcoming, return_exceptions=True)
        rows.close()
        if keys is not None:
            keys.close()


async def _one_batch(
    plan: ImportPlan[Item], batch: Sequence[Prepared[Item]], report: ImportReport, errors: IO[bytes] | None
) -> None:
    good = [row for row in batch if row.item is not None]
    outcomes = await plan.sink([row.item for row in good if row.item is not None]) if good else ()
    tally = report.tally
    refused: list[tuple[Prepared[Item], tuple[UserError, ...]]] = []
    refused += [(row, (row.problem,)) for row in batch if row.problem is not None]
    for row, outcome in zip(good, outcomes, strict=True):
        if outcome.status is RecordStatus.REJECTED:
            refused.append((row, outcome.errors))
        elif outcome.status is RecordStatus.DUPLICATE:
            tally.duplicates += 1
        else:
            tally.accepted += 1
    tally.rows_read = batch[-1].number
    tally.rejected += len(refused)
    for row, problems in sorted(refused, key=lambda pair: pair[0].number):
        for problem in problems:
            said = _row_error(plan, row, problem)
            if len(report.errors) < _SHOWN:
                report.errors.append(said)
            if errors is not None:
                errors.write(orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE))
    if errors is not None:
        errors.flush()


def _row_error(plan: ImportPlan[Item], row: Prepared[Item], problem: UserError) -> RowError:
    name = ".".join(part for part in problem.path if not part.isdigit() and part not in ("input", "events")) or None
    return RowError(row.number, row.line, problem.code, problem.message, name, plan.column_of(name) if name else None)


def _prepare(plan: ImportPlan[Item], keys: RowKeys | None, after: int) -> Generator[Prepared[Item]]:
    """Rows up to `after` are read for the sake of their keys, and left out."""
    for row in read(plan.source):
        key = keys.key(row.cells) if keys is not None and row.problem is None else ""
        if row.number <= after:
            continue
        item, problem = None, row.problem
        if problem is None:
            try:
                item = plan.mapper.build(row, key)
            except ScrmError as error:
                problem = error.as_user_error()
        yield Prepared(row.number, row.line, item, problem)


def _take(rows: Iterator[Prepared[Item]], count: int) -> list[Prepared[Item]]:
    return list(islice(rows, count))


def _errors_file(path: Path | None, append: bool) -> AbstractContextManager[IO[bytes] | None]:
    return nullcontext() if path is None else path.open("ab" if append else "wb")
