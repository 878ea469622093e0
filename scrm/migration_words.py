"""What came of a migration that failed, in words."""

from __future__ import annotations

import traceback
from pathlib import Path

from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from scrm.errors import name_of, words_of
from scrm.migration_guard import MigrationRefusedError


def described(error: BaseException, versions: Path) -> str:
    """What failed and where, without values of rows: other words than the host's own may hold them."""
    if isinstance(error, MigrationRefusedError | CommandError):
        return words_of(error)
    cause = _cause(error)
    state = getattr(cause, "sqlstate", None) if cause is not error else None
    name = " ".join(filter(None, [name_of(cause), state]))
    frames = [each for each in traceback.extract_tb(error.__traceback__) if Path(each.filename).parent == versions]
    return f"{name} in {frames[-1].name} ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else name


def short(error: BaseException) -> str:
    """What it says of itself, in one line."""
    return words_of(_cause(error))


def _cause(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
