"""Commands that plugins bring: `scrm NAME COMMAND`."""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import typer

from scrm.commands.session import Session, session
from scrm.db import Database, must_exist
from scrm.errors import StartupError, name_of, words_of
from scrm.events.ingest import Ingest
from scrm.plugin import PluginContext
from scrm.plugin_set import Context, Plugin, PluginSet
from scrm.provision import all_event_types


def group_of(plugin: Plugin) -> Any:
    """A plugin's commands as the command line calls them.

    Raises: StartupError when they cannot be made of its functions.
    """
    try:
        return typer.main.get_command(plugin_app(plugin))
    except Exception as error:
        said = f"{name_of(error)}: {words_of(error)}"
        raise StartupError(
            f"the commands of {plugin.name} cannot be made: {said}; check their parameters' annotations"
        ) from error


def plugin_app(plugin: Plugin) -> typer.Typer:
    """A plugin's commands as one group."""
    app = typer.Typer(
        name=plugin.name, help=plugin.contribution.description or f"Commands of {plugin.name}.", no_args_is_help=True
    )

    @app.callback()
    def group() -> None:
        """Makes it a group even with one command."""

    for command in plugin.contribution.commands:
        app.command(command.name)(bind(plugin, command.run))
    return app


def bind(plugin: Plugin, run: Callable[..., Any]) -> Callable[..., Any]:
    """A plugin's command as typer takes it: a parameter annotated `PluginContext` is given by the host, and it may be async."""
    hints = typing.get_type_hints(run, include_extras=True)
    parameters = [
        one.replace(annotation=hints.get(one.name, one.annotation)) for one in inspect.signature(run).parameters.values()
    ]
    wanted = [one.name for one in parameters if one.annotation is PluginContext]
    left = [one for one in parameters if one.name not in wanted]
    own = inspect.Parameter("typer_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    @functools.wraps(run)
    def call(**values: Any) -> None:
        opened = session(values.pop("typer_context"))
        asyncio.run(_call(opened, plugin, run, wanted, values))

    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in left]
    call.__signature__ = inspect.Signature([*keyword, own])  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in (*left, own)}
    del call.__wrapped__
    return call


async def _call(opened: Session, plugin: Plugin, run: Callable[..., Any], wanted: list[str], values: dict[str, Any]) -> None:
    settings = opened.settings()
    must_exist(settings.database_url)
    db = Database(settings.database_url)
    ingest = Ingest(db, settings, all_event_types(opened.plugins(settings, "skip")))
    try:
        result = run(**values, **dict.fromkeys(wanted, Context(plugin, db, ingest, settings)))
        if inspect.isawaitable(result):
            await result
    finally:
        await db.close()


def with_commands(plugins: PluginSet) -> dict[str, Plugin]:
    """The active plugins that bring commands, by name."""
    return {plugin.name: plugin for plugin in plugins if plugin.contribution.commands}
