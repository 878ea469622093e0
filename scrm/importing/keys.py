"""A key for rows that have none."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from typing import Any

import orjson

_NAME = 100
_COUNT = "insert into seen values (?, 1) on conflict (content) do update set n = n + 1 returning n"


class RowKeys:
    """Derives a row's key from the file's name, the row's cells, and how many equal rows came before it.

    Two equal rows of a file are two rows, and a file that is exported again with rows added, or in another order, gives the old
    rows their old keys. Two files of different names never share a key. What was seen is counted in a temporary file, so memory
    stays flat.
    """

    def __init__(self, name: str) -> None:
        self._name = name[:_NAME]
        self._seen = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for statement in ("pragma journal_mode = off", "pragma synchronous = off", "pragma cache_size = -8000"):
            self._seen.execute(statement)
        self._seen.execute("create table seen (content integer primary key, n integer not null)")
        self._seen.execute("begin")

    def key(self, cells: Mapping[str, Any]) -> str:
        """`NAME:CONTENT:N`, where N counts equal rows from 1; call it once for each row, in the order of the file."""
        said = orjson.dumps(cells, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)
        digest = hashlib.blake2b(said, digest_size=12).digest()
        count = self._seen.execute(_COUNT, (int.from_bytes(digest[:8], signed=True),)).fetchone()[0]
        return f"{self._name}:{digest.hex()}:{count}"

    def close(self) -> None:
        """Forget what was seen."""
        self._seen.close()
