"""What every command starts from, and how it answers."""

from __future__ import annotations

import asyncio
import dataclasses
import pkgutil
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import orjson
import typer

from scrm.config import Settings, load_settings
from scrm.conformance import CoreNames
from scrm.db import Database, instant_text, must_exist
from scrm.loader import core_names, load_plugins
from scrm.plugin_set import PluginSet

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON.")]
COMMANDS = ("keys", "audit", "db", "plugins", "config", "serve", "worker", "schema", "import", "demo", "backup", "restore")
"""The host's own commands: a plugin's come under its name beside them."""


@dataclasses.dataclass(frozen=True)
class Session:
    """One run of the command line."""

    config: Path | None = None

    def settings(self) -> Settings:
        """The settings.

        Raises: StartupError.
        """
        return load_settings(self.config)

    def core(self) -> CoreNames:
        """What plugins may not take again."""
        return core_names(COMMANDS)

    def plugins(self, settings: Settings | None = None, on_error: Literal["fail", "skip"] | None = None) -> PluginSet:
        """The enabled plugins.

        Raises: StartupError.
        """
        return load_plugins(settings or self.settings(), on_error=on_error, core=self.core())

    def run(self, work: Callable[[Database, Settings], Awaitable[T]]) -> T:
        """Run `work` with the database open.

        Raises: StartupError when there is none.
        """
        settings = self.settings()
        must_exist(settings.database_url)

        async def inside() -> T:
            db = Database(settings.database_url, pool_size=settings.database_pool)
            try:
                return await work(db, settings)
            finally:
                await db.close()

        return asyncio.run(inside())


def session(ctx: typer.Context) -> Session:
    """The session of this run."""
    found = ctx.find_object(Session)
    return found if found is not None else Session()


def late(name: str) -> Any:
    """Something of a part that takes long to import, such as GraphQL, for the few commands that need it."""
    return pkgutil.resolve_name(name)


def say(text: str = "") -> None:
    """An answer."""
    typer.echo(text)


def note(text: str) -> None:
    """A word to the person, beside the answer."""
    typer.echo(text, err=True)


def say_json(value: Any) -> None:
    """An answer as JSON, on one line per listing."""
    typer.echo(orjson.dumps(plain(value), option=orjson.OPT_NON_STR_KEYS).decode())


def plain(value: Any) -> Any:
    """The same with names in camelCase, and times, ids and enums as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {camel(name): plain(item) for name, item in value.items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, uuid.UUID):
        return value.hex
    if isinstance(value, date | Path):
        return str(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def camel(name: str) -> str:
    """`created_at` as `createdAt`."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """An answer as aligned columns; empty cells are `-`."""
    cells = [list(columns), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    for row in cells:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def counted(number: int, thing: str) -> str:
    """`1 event`, `2 events`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def cell(value: Any) -> str:
    """A value as people read it; what is empty is `-`."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return " ".join(str(value).split())
