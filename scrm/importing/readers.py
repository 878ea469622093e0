"""Rows out of a file: CSV, NDJSON and fixed columns, plain or gzipped, one at a time however long the file is."""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import msgspec

from scrm.errors import ScrmError, StartupError, UserError
from scrm.importing.refused import MARKS

_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20
_MAX_LINE = 1 << 20
_DELIMITERS = ",;\t|"


class Format(StrEnum):
    """How the rows of a file are written."""

    CSV = "csv"
    NDJSON = "ndjson"
    FIXED = "fixed"


class FixedColumn(NamedTuple):
    """A column by its place on the line: `start` is counted from 0."""

    name: str
    start: int
    width: int


class Row(NamedTuple):
    """One row: its number among the data (from 1), its line in the file, and its cells without blanks. A row that cannot be
    read has a `problem`, no cells, and its `text` as it stands in the file."""

    number: int
    line: int
    cells: Mapping[str, Any]
    problem: UserError | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file and how to read it. `delimiter` is found in the header if it is None."""

    path: Path
    format: Format
    columns: tuple[FixedColumn, ...] = ()
    skip_lines: int = 0
    delimiter: str | None = None
    encoding: str = "utf-8"


class Survey(NamedTuple):
    """What a first look at the whole file says: a hash of its content, and how many lines it has."""

    fingerprint: str
    lines: int


def format_of(path: Path, name: str | None) -> Format:
    """The format that was named, or else the one that the file's name ends in.

    Raises:
        StartupError: neither says it.
    """
    suffixes = [suffix.lower().lstrip(".") for suffix in path.suffixes]
    guess = {"csv": Format.CSV, "tsv": Format.CSV, "ndjson": Format.NDJSON, "jsonl": Format.NDJSON}
    last = [suffix for suffix in suffixes if suffix not in ("gz", "gzip")][-1:]
    if name is None and last and last[0] in guess:
        return guess[last[0]]
    if name not in set(Format):
        given = f'the format "{name}" is unknown' if name else f"the format of {path.name} is not plain from its name"
        raise StartupError(f"{given}; say --format csv, ndjson or fixed")
    return Format(name)


def parse_columns(text: str) -> tuple[FixedColumn, ...]:
    """`name:start:width,…`, starts counted from 0.

    Raises:
        StartupError: with a line for every part that does not read so.
    """
    columns: list[FixedColumn] = []
    problems: list[str] = []
    for part in text.split(","):
        name, _, place = part.strip().partition(":")
        start, _, width = place.partition(":")
        if not name or not (start.isascii() and start.isdigit()) or not (width.isascii() and width.isdigit()) or int(width) == 0:
            problems.append(f'the column "{part.strip()}" does not read name:start:width, start counted from 0')
        elif any(column.name == name for column in columns):
            problems.append(f'the column "{name}" is named twice')
        else:
            columns.append(FixedColumn(name, int(start), int(width)))
    if problems:
        raise StartupError(problems)
    return tuple(columns)


def check_source(source: Source) -> None:
    """Refuse what cannot be read, before anything is read.

    Raises:
        StartupError: with every problem.
    """
    problems = []
    if not source.path.is_file():
        problems.append(f"there is no file {source.path}")
    if source.format is Format.FIXED and not source.columns:
        problems.append("a fixed-width file needs --columns name:start:width,…")
    if source.format is not Format.FIXED and source.columns:
        problems.append(f"--columns is for fixed-width files; the format here is {source.format}")
    if source.skip_lines < 0:
        problems.append(f"--skip-lines is {source.skip_lines}; expected 0 or more")
    if source.delimiter is not None and len(source.delimiter) != 1:
        problems.append(f'the delimiter "{source.delimiter}" is not one character')
    try:
        codecs.lookup(source.encoding)
    except LookupError:
        problems.append(f'the encoding "{source.encoding}" is unknown; most files are utf-8 or gb18030')
    if problems:
        raise StartupError(problems)


def survey(source: Source) -> Survey:
    """Read the file once: the hash tells whether a later run has the same file. Gzipped or not makes no difference.

    Raises:
        ScrmError: `UNREADABLE_FILE`.
    """
    digest, lines, last = hashlib.blake2b(digest_size=16), 0, b"\n"
    try:
        with _open(source.path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                lines += chunk.count(b"\n")
                last = chunk[-1:]
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(source.path, error) from error
    return Survey(digest.hexdigest(), lines + (last != b"\n"))


def header(source: Source) -> tuple[str, ...] | None:
    """The names of the columns, or None for NDJSON, where each row has its own.

    Raises:
        StartupError: a CSV file without a header, or with a name twice.
    """
    if source.format is Format.NDJSON:
        return None
    if source.format is Format.FIXED:
        return tuple(column.name for column in source.columns)
    with _text(source) as file:
        for _ in islice(file, source.skip_lines):
            pass
        names = _names(source, csv.reader(file, delimiter=delimiter_of(source)))
    if not names:
        raise StartupError(f"{source.path.name} has no header line")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise StartupError([f'the header of {source.path.name} has the column "{name}" twice' for name in twice])
    return names


def delimiter_of(source: Source) -> str:
    """The delimiter that was given, or the one that occurs most often in the header outside quotes."""
    if source.delimiter is not None:
        return source.delimiter
    with _text(source) as file:
        line = next(islice(file, source.skip_lines, None), "")
    bare = "".join(line.split('"')[::2])
    return max(_DELIMITERS, key=lambda mark: (bare.count(mark), -_DELIMITERS.index(mark)))


def read(source: Source) -> Iterator[Row]:
    """The rows, in order; a row that cannot be read comes with its problem and the rest follow.

    Raises:
        ScrmError: `UNREADABLE_FILE` where the file itself breaks off.
    """
    readers = {Format.CSV: _read_csv, Format.NDJSON: _read_ndjson, Format.FIXED: _read_fixed}
    try:
        yield from readers[source.format](source)
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise _unreadable(source.path, error) from error


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP
    return cast(IO[bytes], gzip.open(path, "rb")) if zipped else path.open("rb")


def _text(source: Source) -> io.TextIOWrapper:
    encoding = "utf-8-sig" if codecs.lookup(source.encoding).name == "utf-8" else source.encoding
    return io.TextIOWrapper(_open(source.path), encoding, errors="surrogateescape", newline="")


def _unreadable(path: Path, error: Exception) -> ScrmError:
    return ScrmError("UNREADABLE_FILE", f"{path.name} cannot be read to its end: {error}")


def _names(source: Source, reader: Iterator[list[str]]) -> tuple[str, ...]:
    first = next((cells for cells in reader if any(cell.strip() for cell in cells)), [])
    return tuple(cell.strip() for cell in first)


def _problem(code: str, message: str) -> UserError:
    return UserError(code, message)


def _undecodable(source: Source, values: Sequence[str]) -> UserError | None:
    for value in values:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return _problem("INVALID_TEXT", f"the row is not {source.encoding}; name the file's --encoding")
    return None


def _read_csv(source: Source) -> Iterator[Row]:
    with _text(source) as file:
        for _ in islice(file, source.skip_lines):
            pass
        delimiter = delimiter_of(source)
        reader = csv.reader(file, delimiter=delimiter)
        names = _names(source, reader)
        number = 0
        while True:
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                problem = _problem("MALFORMED_ROW", f"the row is not CSV: {error}")
                yield Row(number, source.skip_lines + reader.line_num, {}, problem)
                continue
            if not any(map(str.strip, values)):
                continue
            number += 1
            line = source.skip_lines + reader.line_num
            bad = _undecodable(source, values)
            if len(values) != len(names):
                bad = _problem("MALFORMED_ROW", f"the row has {len(values)} cells and the header {len(names)}")
            if bad:
                yield Row(number, line, {}, bad, _as_csv(values, delimiter))
                continue
            named = zip(names, values, strict=True)
            yield Row(number, line, {name: cell for name, value in named if name and (cell := value.strip())})


def _as_csv(values: Sequence[str], delimiter: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator="").writerow(values)
    return _shown(out.getvalue())


def _shown(line: str) -> str:
    """Text as it stands in the file, bytes that are none as `\\xNN`."""
    return line.rstrip("\r\n").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read_fixed(source: Source) -> Iterator[Row]:
    places = [(name, start, start + width) for name, start, width in source.columns]
    number = 0
    with _text(source) as file:
        for line_number, raw in enumerate(file, 1):
            line = raw.rstrip("\r\n\x1a")
            if line_number <= source.skip_lines or not line.strip():
                continue
            number += 1
            problem = None if line.isascii() else _undecodable(source, [line])
            cells = {} if problem else {name: cell for name, start, end in places if (cell := line[start:end].strip())}
            yield Row(number, line_number, cells, problem, _shown(line) if problem else None)


def _read_ndjson(source: Source) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(float_hook=Decimal)
    number = 0
    with _text(source) as file:
        line_number = 0
        while line := file.readline(_MAX_LINE + 1):
            line_number += 1
            if line_number <= source.skip_lines or not line.strip():
                continue
            number += 1
            if len(line) > _MAX_LINE:
                while not line.endswith("\n") and (line := file.readline(_MAX_LINE)):
                    pass
                yield Row(number, line_number, {}, _problem("MALFORMED_ROW", f"the line has more than {_MAX_LINE} characters"))
                continue
            yield _json_row(source, decoder, number, line_number, line)


def _json_row(source: Source, decoder: msgspec.json.Decoder[Any], number: int, line_number: int, line: str) -> Row:
    value: Any = None
    problem = _undecodable(source, [line])
    if problem is None:
        try:
            value = decoder.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            problem = _problem("MALFORMED_ROW", f"the line is not JSON: {error}")
    if problem is None and not isinstance(value, dict):
        problem = _problem("MALFORMED_ROW", "the line is not a JSON object")
    if problem is not None:
        return Row(number, line_number, {}, problem, _shown(line))
    cells: dict[str, Any] = {}
    for mark in MARKS:
        value.pop(mark, None)
    _flatten(value, "", cells)
    return Row(number, line_number, cells)


def _flatten(value: Mapping[str, Any], prefix: str, cells: dict[str, Any]) -> None:
    """Objects become dotted columns; lists stay whole, and so does what is more than eight objects deep."""
    for key, item in value.items():
        name = prefix + key
        if isinstance(item, dict) and item and name.count(".") < 8:
            _flatten(item, f"{name}.", cells)
        elif item is not None and item != "":
            cells[name] = item.strip() if isinstance(item, str) else item
