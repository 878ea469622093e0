"""The file of refused rows: each with its problems and its own cells, so that it can be mended and imported from there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from scrm.errors import StartupError

ROW, LINE, ERRORS, TEXT = "#row", "#line", "#errors", "#text"
MARKS = (ROW, LINE, ERRORS, TEXT)
"""What a line says besides the row's cells: where the row stands, what is wrong with it, and itself where it could not be read.
A file of rows that has them is read without."""

_ENCODER = msgspec.json.Encoder(decimal_format="number")


def default_path(file: Path) -> Path:
    """`NAME.errors.ndjson` in the working directory, for a file that is called NAME and whatever else."""
    name = file.name.removesuffix(".gz").removesuffix(".gzip")
    return Path(f"{Path(name).stem}.errors.ndjson")


def check_path(path: Path, file: Path) -> None:
    """Refuse a place where no file of refused rows can be written, before anything is read.

    Raises:
        StartupError: with what is in the way.
    """
    folder = path.parent
    if path.resolve() == file.resolve():
        problem = "that is the file to import"
    elif not folder.is_dir():
        problem = f"there is no directory {folder}"
    elif path.is_dir():
        problem = "that is a directory"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        problem = "nothing may be written there"
    else:
        return
    raise StartupError(f"refused rows cannot be written to {path}: {problem}; name another file with --errors")


class Refused:
    """Writes refused rows; the file is made with the first one, unless it is to be there at once."""

    def __init__(self, path: Path | None, append: bool, at_once: bool) -> None:
        self.path = path
        self._append = append
        self._file: IO[bytes] | None = self._open(path) if at_once and path is not None else None

    def _open(self, path: Path) -> IO[bytes]:
        return path.open("ab" if self._append else "wb")

    def write(
        self, row: int, line: int, problems: Sequence[Mapping[str, Any]], cells: Mapping[str, Any], text: str | None
    ) -> None:
        """One row."""
        if self.path is None:
            return
        if self._file is None:
            self._file = self._open(self.path)
        said = {ROW: row, LINE: line, ERRORS: problems, **({TEXT: text} if text is not None else {})}
        own = {name: cell for name, cell in cells.items() if name not in MARKS}
        self._file.write(_ENCODER.encode({**said, **own}) + b"\n")

    def flush(self) -> None:
        """Have it in the file before anybody counts on it."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """End."""
        if self._file is not None:
            self._file.close()


@contextmanager
def refused_rows(path: Path | None, after: int, *, at_once: bool) -> Iterator[Refused]:
    """Where refused rows go. Of an earlier run's file those up to the row `after` stay, if that run is gone on with."""
    if path is not None and after and path.exists():
        _cut(path, after)
    refused = Refused(path, bool(after), at_once)
    try:
        yield refused
    finally:
        refused.close()


def _cut(path: Path, after: int) -> None:
    """What a run wrote and did not come to note is done again."""
    with path.open("r+b") as file:
        end = 0
        for line in file:
            if _row_of(line) > after:
                file.truncate(end)
                return
            end += len(line)


def _row_of(line: bytes) -> int:
    try:
        said = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return 0
    row = said.get(ROW) if isinstance(said, dict) else None
    return row if isinstance(row, int) else 0
