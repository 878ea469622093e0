"""What text may be kept: the same on both engines, said once for every door."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import orjson

from scrm.errors import ScrmError

MAX_TEXT = 2_000
"""Longest free text (names, reasons), in characters."""

MAX_KEY = 200
"""Longest external id, union id, key or source, in characters."""

MAX_JSON_BYTES = 64 * 1024
"""Largest JSON value of one field, as UTF-8."""

MAX_JSON_DEPTH = 16

JUNK_IDS = frozenset({"", "0", "null", "(null)", "undefined", "none", "nil", "nan"})
"""Ids that are the trace of a missing value; they would make one person of many."""


def text_problem(value: str) -> str | None:
    """Why this text cannot be kept, or None: NUL and lone surrogates mean something else on every engine."""
    if "\x00" in value:
        return "holds a NUL character; remove it"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair; send valid Unicode"
    return None


def check_text(value: str, path: Sequence[str], *, limit: int = MAX_TEXT, empty: bool = True) -> str:
    """The text as it will be kept, without the white space around it.

    Raises:
        ScrmError: `INVALID_TEXT` for NUL, lone surrogates, and text that is too long; or empty where it may not be.
    """
    name = ".".join(path)
    problem = text_problem(value)
    if problem is not None:
        raise ScrmError("INVALID_TEXT", f"{name} {problem}", path=path)
    value = value.strip()
    if len(value) > limit:
        said = f"{name} has {len(value)} characters; at most {limit} are kept"
        raise ScrmError("INVALID_TEXT", said, path=path, params={"length": len(value), "limit": limit})
    if not value and not empty:
        raise ScrmError("INVALID_TEXT", f"{name} is empty; give it a value", path=path)
    return value


def is_junk_id(value: str) -> bool:
    """Whether an external id is only the trace of a missing one, as "null" and "0" are."""
    return value.strip().casefold() in JUNK_IDS


def check_external_id(value: str, path: Sequence[str]) -> str:
    """The external id or union id as it is kept, without the white space around it.

    Raises:
        ScrmError: `INVALID_IDENTITY` for junk, NUL, lone surrogates, or more than 200 characters.
    """
    problem = text_problem(value)
    cleaned = value.strip()
    if problem is None and len(cleaned) > MAX_KEY:
        problem = f"has {len(cleaned)} characters; at most {MAX_KEY} are kept"
    if problem is None and cleaned.casefold() in JUNK_IDS:
        problem = f'is "{cleaned}", which names nobody; leave it out or send the real one'
    if problem is not None:
        raise ScrmError("INVALID_IDENTITY", f"{'.'.join(path)} {problem}", path=path)
    return cleaned


def json_problem(value: Any, *, limit: int = MAX_JSON_BYTES) -> str | None:
    """Why this JSON value cannot be kept, or None: text as in `text_problem`, finite numbers of 64 bits, size and depth."""
    try:
        data = orjson.dumps(value)
    except (TypeError, ValueError):
        return _walk(value, 0) or "is not a JSON value"
    if len(data) > limit:
        return f"is {len(data)} bytes of JSON; at most {limit} are kept"
    if b"\\u0000" in data or b"null" in data or data.count(b"[") + data.count(b"{") > MAX_JSON_DEPTH:
        return _walk(value, 0)
    return None


def _walk(value: Any, depth: int) -> str | None:
    if depth > MAX_JSON_DEPTH:
        return f"is nested deeper than {MAX_JSON_DEPTH} levels"
    if isinstance(value, str):
        return text_problem(value)
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**63 else f"holds the number {str(value)[:40]}, which has more than 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else "holds a number that is not finite"
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                return "has a key that is not text"
            problem = text_problem(key) or _walk(item, depth + 1)
            if problem is not None:
                return problem
        return None
    if isinstance(value, list | tuple):
        return next((problem for item in value if (problem := _walk(item, depth + 1)) is not None), None)
    return f"holds a {type(value).__name__}, which JSON does not know"


def check_json(value: Any, path: Sequence[str], *, limit: int = MAX_JSON_BYTES, code: str = "INVALID_JSON") -> None:
    """Refuse what cannot be kept in a JSON column.

    Raises:
        ScrmError: with `code`.
    """
    problem = json_problem(value, limit=limit)
    if problem is not None:
        raise ScrmError(code, f"{'.'.join(path)} {problem}", path=path)
