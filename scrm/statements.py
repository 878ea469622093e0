"""What a statement of a plugin writes, read from the text that the database is sent: whatever the statement was built of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

CHECK = "scrm_check"
"""The execution option under which a statement carries what looks at its text before the database gets it."""

Check = Callable[[str], None]

_WORD = r"[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*"
_POSTGRESQL = re.compile(
    rf"""(?P<skip>[ \t\n\r\f\v]+ | --[^\n\r]*) | (?P<comment>/\*) | (?P<unsure>[uU]&['"])
      | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*+') | (?P<text>'(?:[^']|'')*+') | "(?P<quoted>(?:[^"]|"")*+)"
      | (?P<dollars>\$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?)\$.*?\$(?P=tag)\$)
      | (?P<word>{_WORD}) | (?P<sign>[^'"`\0])""",
    re.DOTALL | re.VERBOSE,
)
_SQLITE = re.compile(
    rf"""(?P<skip>[ \t\n\r\f\ufeff]+ | --[^\n]* | /\*.*?\*/) | (?P<unsure>/\* | [$@\#:](?:[A-Za-z0-9_$\x80-\U0010ffff]|::)*\()
      | (?P<text>'(?:[^']|'')*+') | "(?P<quoted>(?:[^"]|"")*+)" | `(?P<ticked>(?:[^`]|``)*+)`
      | (?P<word>{_WORD}) | (?P<sign>[^'"`\[\0])""",
    re.DOTALL | re.VERBOSE,
)
_WITH_BACKSLASHES = re.compile(r"'(?:[^'\\]|\\.|'')*+'", re.DOTALL)
_NESTED = re.compile(r"/\*|\*/")
_FIRST = {"SELECT", "WITH", "VALUES", "INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE"}
_NOT_A_DELETE, _NOT_AN_UPDATE = {"THEN"}, {"FOR", "KEY", "DO", "THEN"}
"""Words before which these are part of another statement: `for update`, `on conflict do update`, `when matched then delete`."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a statement does: the tables it writes, or the words for which it is none that a plugin may send."""

    writes: tuple[str, ...] = ()
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    kind: str | None

    @property
    def word(self) -> str:
        """In capitals, where it is a bare word."""
        return self.text.upper() if self.kind == "word" else ""

    @property
    def names(self) -> bool:
        """Whether it can be a table's name."""
        return self.kind in ("word", "quoted", "ticked")


@lru_cache(maxsize=2_000)
def read_statement(text: str, dialect: str) -> Reading:
    """Read one statement as that database reads it. What cannot be understood for sure is refused."""
    tokens = _postgresql(text) if dialect == "postgresql" else _sqlite(text)
    if tokens is None:
        return Reading(refused="what cannot be read for sure")
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    first = next((token.word for token in tokens if token.text != "("), "")
    if first not in _FIRST:
        return Reading(refused=f"{first.lower() or 'nothing'} …")
    if any(token.text == ";" and token.kind == "sign" for token in tokens):
        return Reading(refused="several statements at once")
    written: dict[str, None] = {}
    for place, token in enumerate(tokens):
        at = _target(tokens, place, token.word)
        if at is None:
            continue
        name = _table(tokens, at)
        if name is None:
            return Reading(refused=f"{token.text.lower()} without a table that can be read")
        written[name] = None
    return Reading(tuple(written))


def _sqlite(text: str) -> list[_Token] | None:
    tokens, at = [], 0
    while at < len(text):
        match = _SQLITE.match(text, at)
        if match is None or match["unsure"] is not None:
            return None
        if match["skip"] is None:
            tokens.append(_Token(match[match.lastgroup or 0], match.lastgroup))
        at = match.end()
    return tokens


def _postgresql(text: str) -> list[_Token] | None:
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        match = _POSTGRESQL.match(text, at)
        if match is None or match["unsure"] is not None:
            return None
        kind = match.lastgroup
        end: int | None = match.end()
        if kind == "comment":
            end = _end_of_comment(text, at)
        elif kind == "text":  # with standard_conforming_strings off it would end elsewhere, and behind E'…' it goes on as such
            otherwise = _WITH_BACKSLASHES.match(text, at)
            if otherwise is None or otherwise.end() != end or (tokens and tokens[-1].kind == "escaped"):
                return None
        if end is None:
            return None
        if kind not in ("skip", "comment"):
            tokens.append(_Token(match[kind or 0], kind))
        at = end
    return tokens


def _end_of_comment(text: str, at: int) -> int | None:
    """Where a comment that begins here ends, with those inside of it; None where it does not."""
    depth = 0
    for match in _NESTED.finditer(text, at):
        depth += 1 if match[0] == "/*" else -1
        if not depth:
            return match.end()
    return None


def _target(tokens: list[_Token], place: int, word: str) -> int | None:
    """Where the name of the table stands that this word writes; None where it writes none."""
    before = tokens[place - 1] if place else _Token("", None)
    after = tokens[place + 1] if place + 1 < len(tokens) else _Token("", None)
    if before.text == ".":  # a column of that name
        return None
    if word == "INTO" or (word == "MERGE" and not place and after.word != "INTO"):
        return place + 1
    if word == "DELETE" and after.word == "FROM" and before.word not in _NOT_A_DELETE:
        return place + 2
    if word == "UPDATE" and before.word not in _NOT_AN_UPDATE:
        return place + (3 if after.word == "OR" else 1)
    return None


def _table(tokens: list[_Token], place: int) -> str | None:
    if place < len(tokens) and tokens[place].word in ("ONLY", "TABLE", "TEMP", "TEMPORARY", "UNLOGGED"):
        place += 1
    if place >= len(tokens) or not tokens[place].names:
        return None
    while place + 2 < len(tokens) and tokens[place + 1].text == "." and tokens[place + 2].names:
        place += 2
    token = tokens[place]
    return token.text.lower() if token.kind == "word" else token.text


_CONTROL = ("begin", "commit", "end", "rollback", "savepoint", "release", "start transaction", "abort", "prepare transaction")


def refuse_transaction_control(text: str) -> None:
    """Refuse words that end or begin a transaction.

    Raises: PermissionError.
    """
    if text.lstrip().lower().startswith(_CONTROL):
        raise PermissionError(f"a transaction is the host's to end; refused: {text.strip()[:40]}")


@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def _look(_connection: object, _cursor: object, statement: str, _parameters: object, context: Any, _many: bool) -> None:
    check: Check | None = context.execution_options.get(CHECK) if context is not None else None
    if check is not None:
        check(statement)
