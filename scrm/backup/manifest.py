"""A backup's directory: `manifest.json`, and the file of data beside it. What is half-written has another name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from scrm.backup.figures import Figures
from scrm.db import instant_text
from scrm.errors import ScrmError

FORMAT = 1
MANIFEST = "manifest.json"
DATA = {"sqlite": "data.sqlite", "postgresql": "data.dump"}
_PIECE = 1024 * 1024


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself; its figures are those of the very state in its data."""

    format: int
    scrm: str
    engine: str
    schema: str | None
    at: datetime
    secret: str | None
    bytes: int
    sha256: str
    figures: Figures

    def text(self) -> str:
        """As JSON; sums may be larger than other readers' numbers, so they are written in full."""
        said = {**dataclasses.asdict(self), "at": instant_text(self.at)}
        return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


_MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)


@contextmanager
def writing(destination: Path) -> Iterator[Path]:
    """A directory beside the destination, which takes its name when the block ends well and is gone when it does not.

    Raises: ScrmError BACKUP_EXISTS.
    """
    if os.path.lexists(destination):
        raise ScrmError("BACKUP_EXISTS", f"{destination} exists; a backup is never written over, so choose another name")
    draft = destination.parent / f".{destination.name}.{secrets.token_hex(4)}.partial"
    draft.mkdir(mode=0o700, parents=True)
    try:
        yield draft
        for path in (*draft.iterdir(), draft):
            synced(path)
        draft.rename(destination)
        synced(destination.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def synced(path: Path) -> None:
    """Have a file or a directory on the disk, whatever happens to the machine afterwards."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(file: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_backup(source: Path) -> tuple[Manifest, Path]:
    """A backup's manifest and its file of data, both checked.

    Raises: ScrmError BACKUP_FOREIGN, BACKUP_DAMAGED.
    """
    file = source / MANIFEST
    if not file.is_file():
        raise ScrmError("BACKUP_FOREIGN", f"{source} is no finished backup: there is no {MANIFEST} in it")
    manifest = _manifest(file)
    data = source / DATA[manifest.engine]
    if not data.is_file():
        raise ScrmError("BACKUP_DAMAGED", f"{data} is missing; use another backup")
    if data.stat().st_size != manifest.bytes:
        raise ScrmError("BACKUP_DAMAGED", f"{data} has {data.stat().st_size} bytes and had {manifest.bytes}; use another backup")
    if digest(data) != manifest.sha256:
        raise ScrmError("BACKUP_DAMAGED", f"{data} is not what was written: its SHA-256 differs; use another backup")
    return manifest, data


def _manifest(file: Path) -> Manifest:
    try:
        said: Any = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ScrmError("BACKUP_DAMAGED", f"{file} is not JSON; use another backup") from None
    if not isinstance(said, dict) or not {"format", "scrm"} <= said.keys():
        raise ScrmError("BACKUP_FOREIGN", f"{file} is not the manifest of a backup that scrm made")
    if said["format"] != FORMAT:
        raise ScrmError(
            "BACKUP_FOREIGN",
            f"{file} has format {said['format']!r}; this version of scrm reads {FORMAT}, so install {said['scrm']}",
        )
    try:
        manifest = _MANIFEST.validate_python(said)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise ScrmError("BACKUP_DAMAGED", f"{file}: {place} is not what it should be; use another backup") from None
    if manifest.engine not in DATA:
        raise ScrmError("BACKUP_FOREIGN", f"{file} is of the database {manifest.engine!r}; known are {', '.join(DATA)}")
    return manifest
