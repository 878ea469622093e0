"""The command line: `scrm [--config FILE] COMMAND`.

Exit codes: 0 done, 1 some rows or checks failed, 2 wrong usage or configuration; problems one per line on standard error.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import sqlalchemy as sa
import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from scrm import __version__
from scrm.commands import audit, backups, configuration, contributed, database, demo, importing, keys, plugins, serving
from scrm.commands.session import Session, note, say
from scrm.errors import PluginFailedError, ScrmError, StartupError, UnavailableError


class WithPlugins(TyperGroup):
    """The host's commands, and those of enabled plugins under their names."""

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


app.command("demo")(demo.demo)
app.command("serve")(serving.serve)
app.command("worker")(serving.worker)
app.command("schema")(serving.schema)
app.command("backup")(backups.backup)
app.command("restore")(backups.restore)
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(database.app, name="db")
app.add_typer(plugins.app, name="plugins")
app.add_typer(configuration.app, name="config")
app.add_typer(importing.app, name="import")


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
