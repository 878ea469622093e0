"""Which column becomes which field, and rows as what is recorded."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from scrm.errors import ScrmError, StartupError
from scrm.events.records import IdentityRef, NewEvent
from scrm.importing.readers import Row
from scrm.importing.values import (
    VALUE_TYPES,
    Instants,
    Template,
    converter,
    plain,
    read_day,
    read_gender,
    read_keys,
    read_text,
    read_user_id,
)
from scrm.money import major_to_minor, whole_minor
from scrm.users.service import NewIdentity

EVENT_FIELDS = (
    "type", "source", "externalId", "userId", "identity.channel", "identity.externalId", "unionId", "channel", "occurredAt",
    "amount", "currency", "amount.amountMinor", "amount.currency",
)  # fmt: skip
"""Fields of an event, besides `properties.NAME`."""

USER_FIELDS = (
    "displayName", "phone", "email", "gender", "birthday", "country", "region", "city", "language", "identity.channel",
    "identity.externalId", "unionId", "channel", "tags",
)  # fmt: skip
"""Fields of a user, besides `attributes.NAME`."""

DEFAULT_SOURCE = "import"

_ORDERS = frozenset({"order.placed", "order.paid"})


@dataclass(frozen=True, slots=True)
class Shape:
    """What kind of thing the rows become: its fields, and the prefix of its open ones."""

    fields: tuple[str, ...]
    open_prefix: str

    def is_open(self, name: str) -> bool:
        """Whether this is one of the open fields, as in `properties.orderId`."""
        return name.startswith(self.open_prefix) and len(name) > len(self.open_prefix)


EVENTS = Shape(EVENT_FIELDS, "properties.")
USERS = Shape(USER_FIELDS, "attributes.")

MAPPING_KEYS = ("format", "columns", "skip_lines", "delimiter", "encoding", "minor", "date_format", "name")
"""What a mapping file may say besides `[map]` and `[set]`; a flag of the same name wins."""


@dataclass(frozen=True, slots=True)
class MappingFile:
    """A mapping kept in a file: `field = column`, `field = value`, and how the file is to be read."""

    map: Mapping[str, str] = field(default_factory=dict)
    set: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def read_mapping_file(path: Path) -> MappingFile:
    """The mapping in a TOML file.

    Raises:
        StartupError: with every problem.
    """
    try:
        said = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise StartupError(f"the mapping {path} cannot be read: {error}") from None
    problems, tables = [], {}
    for name in ("map", "set"):
        table = said.pop(name, {})
        if not isinstance(table, dict):
            problems.append(f"{name} in {path} is not a table")
            table = {}
        tables[name] = dict(_leaves(table, ""))
    kinds = {"skip_lines": int, "minor": bool}
    for key, value in said.items():
        if key not in MAPPING_KEYS:
            problems.append(f"{key} in {path} is unknown{nearest(key, (*MAPPING_KEYS, 'map', 'set'))}")
        elif type(value) is not kinds.get(key, str):
            problems.append(f"{key} in {path} is {value!r}; expected {kinds.get(key, str).__name__}")
    if problems:
        raise StartupError(problems)
    return MappingFile(tables["map"], tables["set"], said)


def _leaves(table: Mapping[str, Any], prefix: str) -> Sequence[tuple[str, str]]:
    """`identity.channel = …` and `"identity.channel" = …` are the same."""
    found: list[tuple[str, str]] = []
    for key, value in table.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, str(value))]
    return found


def nearest(word: str, words: Collection[str]) -> str:
    """`; did you mean …?`, or nothing."""
    close = difflib.get_close_matches(word, words, 1)
    return f"; did you mean {close[0]}?" if close else ""


def split_pairs(flag: str, pairs: Sequence[str]) -> dict[str, str]:
    """`field=value` flags by field.

    Raises:
        StartupError: one without `=`, or a field twice.
    """
    found: dict[str, str] = {}
    problems = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            problems.append(f'{flag} "{pair}" does not read field={"column" if flag == "--map" else "value"}')
        elif name.strip() in found:
            problems.append(f"{flag} names {name.strip()} twice")
        else:
            found[name.strip()] = value
    if problems:
        raise StartupError(problems)
    return found


@dataclass(frozen=True, slots=True)
class FieldSource:
    """Where one field's value comes from: a column, else a template."""

    name: str
    kind: str
    column: str | None = None
    template: Template | None = None

    def read(self, row: Row, key: str) -> Any:
        """The cell or the filled template; None if blank."""
        value = row.cells.get(self.column) if self.column is not None else None
        if value is None and self.template is not None:
            value = self.template.fill(row.cells, row.number, key).strip()
        return None if value is None or value == "" else value


class FieldMap:
    """The sources of all fields.

    Raises:
        StartupError: unknown fields and columns, and fields that must be there and are not.
    """

    def __init__(
        self, shape: Shape, columns: tuple[str, ...] | None, map: Mapping[str, str], set: Mapping[str, str], needed: Sequence[str]
    ) -> None:
        self._shape = shape
        self._columns = columns
        self._problems: list[str] = []
        self.sources: dict[str, FieldSource] = {}
        self.said = frozenset((*map, *set))
        for named in dict.fromkeys((*map, *set)):
            self._add(named, map.get(named), set.get(named))
        self._map_themselves()
        self.open_in_rows = columns is None
        self.needs_key = any("key" in source.template.names for source in self.sources.values() if source.template)
        if columns is not None:
            missing = [name for name in needed if name not in self.sources]
            self._problems += [f"no column gives {name}; say --map {name}=COLUMN or --set {name}=VALUE" for name in missing]
        if self._problems:
            raise StartupError(self._problems)

    def _add(self, named: str, column: str | None, value: str | None) -> None:
        name, _, kind = named.partition(":")
        kind = kind or "text"
        is_open = self._shape.is_open(name)
        if name not in self._shape.fields and not is_open:
            known = (*self._shape.fields, f"{self._shape.open_prefix}NAME")
            self._problems.append(f"the field {name} is unknown{nearest(name, known)}; there are {', '.join(known)}")
            return
        if kind not in VALUE_TYPES or (kind != "text" and not is_open):
            expected = f"{self._shape.open_prefix}NAME may be {', '.join(VALUE_TYPES)}, other fields have none"
            self._problems.append(f'the type "{kind}" of {name} is unknown; {expected}')
            return
        if column is not None and self._columns is not None and column not in self._columns:
            close = nearest(column, self._columns)
            self._problems.append(f'there is no column "{column}" for {name}{close}; there are {", ".join(self._columns)}')
        template = Template(value, self._columns, strict=kind != "json") if value is not None else None
        if template is not None and template.unknown:
            self._problems.append(f"the value of {name} names no column: {', '.join(template.unknown)}")
        if name in self.sources:
            self._problems.append(f"{name} is mapped twice")
        self.sources[name] = FieldSource(name, kind, column, template)

    def _map_themselves(self) -> None:
        """Columns called as a field are that field, unless somebody said otherwise."""
        names: Sequence[str] = self._shape.fields if self._columns is None else self._columns
        for column in names:
            name, _, kind = column.partition(":")
            if name in self.sources or (kind and kind not in VALUE_TYPES):
                continue
            if name in self._shape.fields or self._shape.is_open(name):
                self.sources[name] = FieldSource(name, kind or "text", column)

    def describe(self, columns: Sequence[str]) -> tuple[list[str], list[str]]:
        """What becomes of columns: `column → field` of those that are taken, and the names of those that are not."""
        taken, used = [], set()
        for name, source in self.sources.items():
            column = {source.column} if source.column is not None else set()
            names = [each for each in columns if each in column or (source.template and each in source.template.names)]
            used.update(names)
            if names:
                taken.append(f"{', '.join(names)} → {name}")
        if self.open_in_rows:
            themselves = [name for name in columns if self._shape.is_open(name) and name not in self.sources]
            used.update(themselves)
            taken += [f"{name} → {name}" for name in themselves]
        return taken, [name for name in columns if name and name not in used]

    def constant(self, name: str) -> str | None:
        """The one value that a field has in every row, if there is one."""
        source = self.sources.get(name)
        if source is None or source.column is not None or source.template is None or source.template.names:
            return None
        return source.template.constant or None


class RowReader:
    """Reads fields of one row; each problem names the field."""

    def __init__(self, fields: FieldMap, shape: Shape) -> None:
        self._fields = fields
        self._sources = fields.sources
        prefix = shape.open_prefix
        self._prefix = prefix
        self._open = [
            (name.removeprefix(prefix).split("."), source, converter(source.kind))
            for name, source in fields.sources.items()
            if name.startswith(prefix)
        ]
        self._named = frozenset(fields.sources)

    def value(self, row: Row, key: str, name: str, convert: Callable[[Any], Any] = read_text) -> Any:
        """A field's value, or None if it is blank.

        Raises:
            ScrmError: with the field as its path.
        """
        source = self._sources.get(name)
        cell = source.read(row, key) if source is not None else None
        return None if cell is None else _at(name, convert, cell)

    def required(self, row: Row, key: str, name: str, convert: Callable[[Any], Any] = read_text) -> Any:
        """The same, but blank is a problem."""
        value = self.value(row, key, name, convert)
        if value is None:
            raise ScrmError("MISSING_FIELD", f"{name} is blank", path=name.split("."))
        return value

    def open_fields(self, row: Row, key: str) -> dict[str, Any]:
        """Properties or attributes, nested by the dots in their names."""
        found: dict[str, Any] = {}
        for path, source, convert in self._open:
            cell = source.read(row, key)
            if cell is not None:
                _put(found, path, _at(source.name, convert, cell))
        if self._fields.open_in_rows:
            for name, cell in row.cells.items():
                if name.startswith(self._prefix) and name not in self._named:
                    field, _, kind = name.partition(":")
                    typed = kind in VALUE_TYPES
                    path = (field if typed else name).removeprefix(self._prefix).split(".")
                    _put(found, path, _at(field, converter(kind), cell) if typed else plain(cell))
        return found


def _at(name: str, convert: Callable[[Any], Any], cell: Any) -> Any:
    try:
        return convert(cell)
    except ScrmError as error:
        raise ScrmError(error.code, error.message, path=name.split("."), params=error.params) from None


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            inner = tree[name] = {}
        tree = inner
    tree[path[-1]] = value


@dataclass(frozen=True, slots=True)
class Reading:
    """How values are read: the business zone and currency, the form of times, and whether amounts are in minor units already."""

    zone: ZoneInfo
    currency: str
    minor: bool = False
    date_format: str | None = None


class EventMapper:
    """Makes an event of a row. Without a key of its own a row gets the one that was derived for it."""

    def __init__(self, fields: FieldMap, reading: Reading) -> None:
        self._reader = RowReader(fields, EVENTS)
        self._reading = reading
        self._instants = Instants(reading.zone, reading.date_format)
        self._amounts = "amount" in fields.sources or "amount.amountMinor" in fields.sources
        self.keyed = "externalId" in fields.sources and ("externalId" in fields.said or not fields.open_in_rows)
        self.needs_key = fields.needs_key or not self.keyed

    def build(self, row: Row, key: str) -> NewEvent:
        """The event that a row says.

        Raises:
            ScrmError: a field is missing or does not read; the path is the field.
        """
        reader = self._reader
        type_ = reader.required(row, key, "type")
        external_id = reader.required(row, key, "externalId") if self.keyed else reader.value(row, key, "externalId") or key
        amount, currency = self._amount(row, key) if self._amounts else (None, None)
        properties = reader.open_fields(row, key)
        if type_ in _ORDERS and "orderId" not in properties:
            properties["orderId"] = external_id
        return NewEvent(
            type=type_,
            source=reader.value(row, key, "source") or DEFAULT_SOURCE,
            external_id=external_id,
            occurred_at=reader.required(row, key, "occurredAt", self._instant),
            user_id=reader.value(row, key, "userId", read_user_id),
            identity=self._identity(row, key),
            union_id=reader.value(row, key, "unionId"),
            channel=reader.value(row, key, "channel"),
            amount_minor=amount,
            currency=currency,
            properties=properties,
        )

    def _instant(self, cell: Any) -> datetime:
        return self._instants.read(read_text(cell))

    def _identity(self, row: Row, key: str) -> IdentityRef | None:
        external_id = self._reader.value(row, key, "identity.externalId")
        if external_id is None:
            return None
        return IdentityRef(self._reader.required(row, key, "identity.channel"), external_id)

    def _amount(self, row: Row, key: str) -> tuple[int | None, str | None]:
        reader = self._reader
        currency = reader.value(row, key, "currency") or reader.value(row, key, "amount.currency") or self._reading.currency
        amount = reader.value(row, key, "amount.amountMinor", lambda cell: whole_minor(read_text(cell)))
        if amount is None:
            convert = whole_minor if self._reading.minor else lambda text: major_to_minor(text, currency)
            amount = reader.value(row, key, "amount", lambda cell: convert(read_text(cell)))
        return (amount, currency) if amount is not None else (None, None)


@dataclass(frozen=True, slots=True)
class UserRow:
    """A person as a row says: found by the first identity, blank cells absent. `fields` by column name, `tags` by key, `channel`
    where they were won."""

    identities: tuple[NewIdentity, ...]
    channel: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


_PROFILE: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "displayName": ("display_name", read_text),
    "phone": ("phone", read_text),
    "email": ("email", read_text),
    "gender": ("gender", read_gender),
    "birthday": ("birthday", read_day),
    "country": ("country", read_text),
    "region": ("region", read_text),
    "city": ("city", read_text),
    "language": ("language", read_text),
}


class UserMapper:
    """Makes a person of a row."""

    needs_key = False

    def __init__(self, fields: FieldMap) -> None:
        self._reader = RowReader(fields, USERS)

    def build(self, row: Row, key: str) -> UserRow:
        """The person that a row says.

        Raises:
            ScrmError: a field is missing or does not read; the path is the field.
        """
        reader = self._reader
        read = ((column, reader.value(row, key, name, convert)) for name, (column, convert) in _PROFILE.items())
        channel = reader.required(row, key, "identity.channel")
        external_id = reader.required(row, key, "identity.externalId")
        return UserRow(
            identities=(NewIdentity(channel, external_id, reader.value(row, key, "unionId")),),
            channel=reader.value(row, key, "channel"),
            fields={column: value for column, value in read if value is not None},
            attributes=reader.open_fields(row, key),
            tags=reader.value(row, key, "tags", read_keys) or (),
        )
