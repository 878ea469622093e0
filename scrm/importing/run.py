"""From the first row to the last: batches into a sink, counts kept after each, problems row by row."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from scrm.db import Database, Tx
from scrm.errors import ScrmError, UserError
from scrm.events.records import RecordStatus
from scrm.importing.keys import RowKeys
from scrm.importing.ledger import (
    HEARTBEAT,
    Begun,
    ImportKind,
    ImportState,
    Tally,
    advance,
    be_alive,
    begin,
    end,
    finished,
    other_mapping,
)
from scrm.importing.readers import Row, Source, read
from scrm.importing.refused import Refused, refused_rows

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

    row: Row
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
    """How an import ended. `errors` are the first few; all of them are in `errors_file`, if there is one. `advice`
    is what to do where rows are taken for others that were recorded before, of which there are so many `conflicts`."""

    id: uuid.UUID
    state: ImportState
    tally: Tally
    resumed_after: int = 0
    errors: list[RowError] = field(default_factory=list)
    errors_file: Path | None = None
    conflicts: int = 0
    advice: str | None = None

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
    errors_at_once: bool = False
    """Whether the file of refused rows is made though none may come: its maker named it."""


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
    alive = asyncio.create_task(_stay_alive(db, begun.id))
    try:
        await _all_batches(db, plan, begun, report, progress)
    except BaseException as error:
        stopped = not isinstance(error, Exception)
        report.state = ImportState.INTERRUPTED if stopped else ImportState.FAILED
        said = None if stopped else str(error) if isinstance(error, ScrmError) else type(error).__name__
        await db.write(end, begun.id, report.state, report.tally, at=db.clock(), error=said)
        raise
    finally:
        alive.cancel()
    report.state = ImportState.DONE
    await db.write(end, begun.id, report.state, report.tally, at=db.clock())
    if report.conflicts:
        report.advice = await db.read(_about_conflicts, plan)
    return report


async def _stay_alive(db: Database, import_id: uuid.UUID) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT)
        with suppress(Exception):  # what is wrong with the database, the next batch says
            await db.write(be_alive, import_id, db.clock())


def _about_conflicts(tx: Tx, plan: ImportPlan[Any]) -> str:
    before = other_mapping(tx, plan.kind, plan.name, plan.fingerprint)
    when = f"rows of {plan.name} were recorded on {before:%Y-%m-%d at %H:%M} UTC" if before else "rows were recorded before"
    return (
        f"{when} with another mapping or other contents, and an event stays as it was recorded; import with the mapping of"
        " that time, or say --set source=NAME with a new name to record the rows once more beside those"
    )


async def _all_batches(
    db: Database, plan: ImportPlan[Item], begun: Begun, report: ImportReport, progress: Progress | None
) -> None:
    """The next batch is read in a thread while this one is written."""
    keys = RowKeys(plan.name) if plan.mapper.needs_key else None
    after = begun.tally.rows_read
    rows = _prepare(plan, keys, after)
    upcoming = asyncio.create_task(asyncio.to_thread(_take, rows, plan.batch))
    try:
        with refused_rows(plan.errors, after, at_once=plan.errors_at_once) as refused:
            while batch := await asyncio.shield(upcoming):
                upcoming = asyncio.create_task(asyncio.to_thread(_take, rows, plan.batch))
                await _one_batch(plan, batch, report, refused)
                await db.write(advance, begun.id, report.tally, at=db.clock())
                if progress is not None:
                    progress(report.tally)
    finally:
        await asyncio.gather(upcoming, return_exceptions=True)
        rows.close()
        if keys is not None:
            keys.close()


async def _one_batch(plan: ImportPlan[Item], batch: Sequence[Prepared[Item]], report: ImportReport, file: Refused) -> None:
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
    tally.rows_read = batch[-1].row.number
    tally.rejected += len(refused)
    if tally.rejected:
        report.errors_file = file.path
    for row, problems in sorted(refused, key=lambda pair: pair[0].row.number):
        said = [_row_error(plan, row.row, problem) for problem in problems]
        report.errors += said[: _SHOWN - len(report.errors)]
        report.conflicts += any(problem.code == "IDEMPOTENCY_CONFLICT" for problem in problems)
        file.write(row.row.number, row.row.line, [_problem(one) for one in said], row.row.cells, row.row.text)
    file.flush()


def _problem(error: RowError) -> dict[str, Any]:
    said = {"code": error.code, "message": error.message, "field": error.field, "column": error.column}
    return {name: value for name, value in said.items() if value is not None}


def _row_error(plan: ImportPlan[Item], row: Row, problem: UserError) -> RowError:
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
        yield Prepared(row, item, problem)


def _take(rows: Iterator[Prepared[Item]], count: int) -> list[Prepared[Item]]:
    return list(islice(rows, count))
