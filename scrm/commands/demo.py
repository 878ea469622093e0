"""`scrm demo`: from nothing to a server with data."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from scrm.commands.serving import run_server
from scrm.commands.session import note, say, session
from scrm.config import Settings, load_settings
from scrm.db import Database
from scrm.demo import Demo, DemoOptions, prepare, write_settings
from scrm.errors import StartupError
from scrm.loader import load_plugins
from scrm.plugin_set import PluginSet
from scrm.provision import all_event_types, provision
from scrm.settings_problems import FILE


def demo(
    ctx: typer.Context,
    users: Annotated[int, typer.Option("--users", min=0, help="How many people to make beside those of the sample.")] = 500,
    seed: Annotated[int, typer.Option("--seed", help="The same seed makes the same people.")] = 1,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; else server.host.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port to listen on; else server.port.")] = None,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Only prepare the data.")] = False,
) -> None:
    """Write scrm.toml if there is none, migrate, fill in a history to look at, and serve it; again duplicates nothing."""
    opened = session(ctx)
    file = opened.config or Path(FILE)
    if write_settings(file):
        note(f"wrote {file}")
    settings = load_settings(opened.config)
    plugins = load_plugins(settings, core=opened.core())
    ready = asyncio.run(_prepare(settings, plugins, DemoOptions(users=users, seed=seed)))
    _introduce(ready, settings.server.host if host is None else host, settings.server.port if port is None else port)
    if not no_serve:
        run_server(opened, settings, host, port, worker=True)


async def _prepare(settings: Settings, plugins: PluginSet, options: DemoOptions) -> Demo:
    done = await provision(settings, plugins)
    if done.problems:
        raise StartupError(done.problems)
    db = Database(settings.database_url)
    try:
        return await prepare(db, settings, all_event_types(plugins), [plugin.name for plugin in plugins], options)
    finally:
        await db.close()


def _introduce(ready: Demo, host: str, port: int) -> None:
    say(f"\nGraphiQL  http://{host}:{port}/graphql")
    say(f"API key   {ready.api_key}")
    say(f'Header    {{"Authorization": "Bearer {ready.api_key}"}}\n')
    for title, query in ready.queries:
        say(f"# {title}\n{query.strip()}\n")
