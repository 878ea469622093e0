"""Cells as values: instants, whole numbers, ids, lists of keys; and templates that put several cells into one value."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from scrm.errors import ScrmError

_INSTANT = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)(?:[T ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?\s?(Z|z|[+-]\d\d:?\d\d)?)?", re.ASCII
)
_LOOSE_DATE = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?=$|[T ])", re.ASCII)
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
_PLAIN_NAME = re.compile(r"[\w.]+")
_LIST_MARKS = re.compile(r"[,;|、，；]")
_YES = frozenset({"true", "yes", "y", "1", "是"})
_NO = frozenset({"false", "no", "n", "0", "否"})
_GENDERS = {
    **dict.fromkeys(("女", "f", "female"), "FEMALE"),
    **dict.fromkeys(("男", "m", "male"), "MALE"),
    **dict.fromkeys(("其他", "other"), "OTHER"),
}
_CACHE = 4096

VALUE_TYPES = ("text", "int", "number", "bool", "json")
"""What may follow a field as `:type`; text unless it is said."""

BUILT_IN = ("row", "key")
"""Names that a template knows besides the columns: the row's number and its derived key."""


class Instants:
    """Reads times; what has no zone is in the business zone, and a day alone is its midnight there."""

    def __init__(self, zone: ZoneInfo, pattern: str | None = None) -> None:
        self._zone = zone
        self._pattern = pattern
        self._known: dict[str, datetime] = {}

    def read(self, text: str) -> datetime:
        """The instant in UTC.

        Raises:
            ScrmError: `INVALID_TIME`.
        """
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= _CACHE:
                self._known.clear()
            known = self._known[text] = self._parse(text)
        return known

    def _parse(self, text: str) -> datetime:
        try:
            value = datetime.strptime(text, self._pattern) if self._pattern else _iso(text)  # noqa: DTZ007 - the zone follows
            return (value if value.tzinfo else value.replace(tzinfo=self._zone)).astimezone(UTC)
        except (ValueError, OverflowError):
            expected = self._pattern or "YYYYMMDD, YYYY-MM-DD or RFC 3339"
            raise ScrmError("INVALID_TIME", f'the time "{text}" does not read {expected}') from None


def _iso(text: str) -> datetime:
    loose = _LOOSE_DATE.match(text)
    if loose:
        text = f"{loose[1]}-{loose[2]:0>2}-{loose[3]:0>2}{text[loose.end() :]}"
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    micros = int(f"{fraction:0<6}"[:6]) if fraction else 0
    clock = time(int(hour or 0), int(minute or 0), int(second or 0), micros)
    moment = datetime.combine(date(int(year), int(month), int(day)), clock)
    if offset is None:
        return moment
    return datetime.fromisoformat(moment.isoformat() + offset.upper())


def read_day(value: Any) -> date:
    """A calendar day, as in a birthday.

    Raises:
        ScrmError: `INVALID_DATE`.
    """
    try:
        return _iso(read_text(value)).date()
    except ValueError:
        raise ScrmError("INVALID_DATE", f'the date "{value}" does not read YYYYMMDD or YYYY-MM-DD') from None


def read_text(value: Any) -> str:
    """Text, or a number as it is written.

    Raises:
        ScrmError: `INVALID_VALUE` for a list, an object or a boolean.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    raise ScrmError("INVALID_VALUE", f"{orjson.dumps(plain(value)).decode()[:80]} is not text")


def read_user_id(value: Any) -> uuid.UUID:
    """A user's id as the API shows it, `User_` and 32 hex digits, or the digits alone.

    Raises:
        ScrmError: `UNKNOWN_USER`.
    """
    text = read_text(value)
    try:
        return uuid.UUID(text.removeprefix("User_"))
    except ValueError:
        raise ScrmError("UNKNOWN_USER", f'"{text}" is not the id of a user; ids look like User_ and 32 hex digits') from None


def read_keys(value: Any) -> tuple[str, ...]:
    """Keys in one cell, between commas, semicolons or bars; or a JSON list of them."""
    parts = [read_text(item) for item in value] if isinstance(value, list) else _LIST_MARKS.split(read_text(value))
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def read_gender(value: Any) -> str:
    """FEMALE, MALE or OTHER from the usual ways to write them; anything else as it is, to be refused by its owner."""
    text = read_text(value)
    return _GENDERS.get(text.casefold(), text)


def converter(kind: str) -> Callable[[Any], Any]:
    """What turns a cell into a value of one of `VALUE_TYPES`."""
    return {"text": plain, "int": _whole, "number": _number, "bool": _boolean, "json": _json}[kind]


def plain(value: Any) -> Any:
    """The value as JSON can hold it: a decimal becomes a number again, inside lists and objects too."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and abs(value) < 2**53 else float(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def _whole(value: Any) -> int:
    text = read_text(value)
    try:
        number = Decimal(text) if re.fullmatch(r"[+-]?\d{1,19}(\.0+)?", text, re.ASCII) else None
    except ArithmeticError:
        number = None
    if number is None:
        raise ScrmError("INVALID_VALUE", f'"{text}" is not a whole number')
    return int(number)


def _number(value: Any) -> Any:
    text = read_text(value)
    if not re.fullmatch(r"[+-]?(\d{1,19}(\.\d{0,18})?|\.\d{1,18})([eE][+-]?\d{1,2})?", text, re.ASCII):
        raise ScrmError("INVALID_VALUE", f'"{text}" is not a number')
    return plain(Decimal(text))


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = read_text(value).casefold()
    if text in _YES or text in _NO:
        return text in _YES
    raise ScrmError("INVALID_VALUE", f'"{text}" is neither true nor false')


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return plain(value)
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ScrmError("INVALID_VALUE", f'"{value[:80]}" is not JSON: {error}') from None


class Template:
    """Text with `{column}`, `{row}` and `{key}` in it; `{{` and `}}` are braces.

    `columns` is None where rows name their own; then every plain name is taken for one. `constant` is the text where there is
    nothing to fill in.
    """

    def __init__(self, text: str, columns: Collection[str] | None, *, strict: bool = True) -> None:
        self.names: tuple[str, ...] = ()
        self.unknown: tuple[str, ...] = ()
        self._parts: list[tuple[str, str | None]] = []
        at = 0
        for match in _PLACEHOLDER.finditer(text):
            name = match[1]
            self._parts.append((text[at : match.start()], None))
            at = match.end()
            if name is None:
                self._parts.append((match[0][0], None))
            elif name in BUILT_IN or (name in columns if columns is not None else _PLAIN_NAME.fullmatch(name)):
                self._parts.append(("", name))
                self.names += (name,)
            else:
                self._parts.append((match[0], None))
                self.unknown += (name,) if strict else ()
        self._parts.append((text[at:], None))
        self.constant = None if self.names else "".join(part for part, _ in self._parts).strip()

    def fill(self, cells: Mapping[str, Any], row: int, key: str) -> str:
        """The text for one row; a blank cell leaves nothing."""
        if self.constant is not None:
            return self.constant
        built_in = {"row": str(row), "key": key}
        filled = []
        for text, name in self._parts:
            cell = cells.get(name, built_in.get(name, "")) if name else ""
            filled.append(text + read_text(cell))
        return "".join(filled)
