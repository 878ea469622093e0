"""The command line: `scrm [--config FILE] COMMAND`.

Exit codes: 0 done, 1 some rows or checks failed, 2 wrong usage or configuration; problems one per line on standard error.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import sqlalchemy as sa
import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from scrm import __version__
from scrm.commands import contributed
from scrm.commands.session import Session, late, note, say
from scrm.errors import PluginFailedError, ScrmError, StartupError, UnavailableError

PLACES = {
    "demo": "scrm.commands.demo:demo",
    "serve": "scrm.commands.serving:serve",
    "worker": "scrm.commands.serving:worker",
    "schema": "scrm.commands.serving:schema",
    "backup": "scrm.commands.backups:backup",
    "restore": "scrm.commands.backups:restore",
    "keys": "scrm.commands.keys:app",
    "audit": "scrm.commands.audit:app",
    "db": "scrm.commands.database:app",
    "plugins": "scrm.commands.plugins:app",
    "config": "scrm.commands.configuration:app",
    "import": "scrm.commands.importing:app",
}
"""Where the host's own commands are; a start imports only the one that is meant."""


class HostCommands(MutableMapping[str, Any]):
    """The host's own commands by name, each imported when it is asked for."""

    def __init__(self) -> None:
        self._places = dict(PLACES)
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _command(name, late(self._places[name]))
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command
        self._places.setdefault(name, "")

    def __delitem__(self, name: str) -> None:
        del self._places[name]
        self._made.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _command(name: str, found: Any) -> Any:
    """One command, or group of commands, as the whole app would make it."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
    else:
        alone.command(name)(found)
    return typer.main.get_group(alone).commands[name]


class WithPlugins(TyperGroup):
    """The host's commands, and those of enabled plugins under their names."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "commands": None})
        self.commands = HostCommands()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The host's own command, else a plugin's group."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        plugin = self._plugins(ctx).get(cmd_name)
        return contributed.group_of(plugin) if plugin is not None else None

    def list_commands(self, ctx: Any) -> list[str]:
        """For the help: the plugins' groups too, where the settings can be read and the groups be made."""
        found = super().list_commands(ctx)
        for name, plugin in self._plugins(ctx).items():
            try:
                contributed.group_of(plugin)
            except StartupError as error:
                note(str(error))
            else:
                found.append(name)
        return found

    def _plugins(self, ctx: Any) -> dict[str, Any]:
        try:
            return contributed.with_commands(Session(ctx.params.get("config")).plugins(on_error="skip"))
        except StartupError:
            return {}


app = typer.Typer(
    cls=WithPlugins,
    help="A self-hosted GraphQL backend for social CRM, extended by plugins.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit()


@app.callback()
def root(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="The settings file; else scrm.toml in the working directory.", envvar="SCRM_CONFIG"),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """A self-hosted GraphQL backend for social CRM, extended by plugins."""
    ctx.obj = Session(config)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Mistakes become lines on standard error, never a traceback."""
    try:
        result = app(args=arguments, prog_name="scrm", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except StartupError as error:
        return _problems(error.problems)
    except UnavailableError as error:
        return _problems([_of_database(error.__cause__ or error)])
    except (ScrmError, PluginFailedError) as error:
        return _problems([str(error)])
    except TyperException as error:
        return _problems([error.format_message()], error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return _problems(["interrupted"], 130)
    except typer.Exit as end:
        return end.exit_code
    except (sa.exc.SQLAlchemyError, asyncpg.PostgresError, OSError) as error:
        return _problems([_of_database(error)])


def _problems(lines: Sequence[str], code: int = 2) -> int:
    for line in lines:
        note(line)
    return code


def _of_database(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    if "no such table" in text or ("does not exist" in text and "relation" in text):
        return f"the database is not ready: {text.split(': ', 1)[-1]}; run scrm db upgrade"
    return f"the database or a file does not answer: {text}"


def main() -> None:
    """The entry point `scrm`. Threads that plugins have left running do not keep the process alive."""
    code = run()
    if any(not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
