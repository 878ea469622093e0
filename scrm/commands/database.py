"""`scrm db`: the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import typer

from scrm import migrate
from scrm.commands.session import AsJson, note, say, say_json, session, table
from scrm.config import Settings
from scrm.events.rules import RuleChange
from scrm.loader import missing_plugins
from scrm.plugin_set import LoadState, PluginSet
from scrm.provision import provision

app = typer.Typer(help="Upgrade and check the database.", no_args_is_help=True)


@app.command("upgrade")
def upgrade(ctx: typer.Context) -> None:
    """Run what migrations are pending, the core's and each enabled plugin's, and apply the plugins' rules."""
    opened = session(ctx)
    said = opened.settings()
    settings = _without_removed(said)
    plugins = opened.plugins(settings)
    for problem in _left_out(settings, plugins).values():
        note(problem)
    done = asyncio.run(provision(settings, plugins))
    for one in done.upgraded:
        if one.error is None:
            say(
                f"{one.owner}: {one.before or 'nothing'} → {one.after}" if one.before != one.after else f"{one.owner}: up to date"
            )
    for line in describe_rules(done.rules):
        say(line)
    for problem in done.problems:
        note(problem)
    if done.problems or (len(settings.plugins) < len(said.plugins) and said.on_plugin_error == "fail"):
        raise typer.Exit(1)


@app.command("status")
def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Where each history stands, those of plugins that are gone too; exit 1 if migrations are pending or a plugin is missing."""
    opened = session(ctx)
    settings = opened.settings()
    plugins = opened.plugins(settings, "skip")
    left_out = _left_out(settings, plugins)
    found = _with_left_out(asyncio.run(migrate.status(settings.database_url, plugins)), left_out)
    if as_json:
        say_json(found)
    else:
        rows = [(one.owner, one.current, one.head, one.pending, one.problem) for one in found]
        table(("OWNER", "CURRENT", "HEAD", "PENDING", "NOTE"), rows)
    if any(one.pending for one in found) or (left_out and settings.on_plugin_error == "fail"):
        raise typer.Exit(1)


@app.command("check")
def check(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Compare the tables with the models; exit 1 where they differ."""
    opened = session(ctx)
    settings = opened.settings()
    plugins = opened.plugins(settings, "skip")
    differences = asyncio.run(migrate.check(settings.database_url, plugins))
    for problem in _left_out(settings, plugins).values():
        note(problem)
    if as_json:
        lines = [line.partition(": ") for line in differences]
        say_json([{"owner": owner, "difference": text} for owner, _, text in lines])
    for line in () if as_json else differences:
        note(line)
    if differences:
        raise typer.Exit(1)
    if not as_json:
        say("the tables are as the models say")


@app.command("revision")
def revision(
    ctx: typer.Context,
    owner: Annotated[str, typer.Argument(help="core, or a plugin's name.")],
    message: Annotated[str, typer.Option("--message", "-m", help="What the migration does.")],
    empty: Annotated[bool, typer.Option("--empty", help="Do not compare the models with the database.")] = False,
) -> None:
    """Write a new migration from the difference between the models and the database; read it before you keep it."""
    opened = session(ctx)
    settings = _without_removed(opened.settings())
    plugins = opened.plugins(settings)
    for path in asyncio.run(migrate.revision(settings.database_url, plugins, owner, message, autogenerate=not empty)):
        say(str(path))


def _left_out(settings: Settings, plugins: PluginSet) -> dict[str, str]:
    """The plugins that are enabled and not there or not to be loaded, and why."""
    enabled = {name for name, section in settings.plugins.items() if section.enabled}
    found = {one.name: one.reason or "" for one in plugins.statuses if one.name in enabled and one.state is not LoadState.ACTIVE}
    return {name: f"plugin {why}" if why.split(" ")[0] == name else f"plugin {name}: {why}" for name, why in found.items()}


def _with_left_out(found: Sequence[migrate.OwnerStatus], left_out: Mapping[str, str]) -> list[migrate.OwnerStatus]:
    known = {one.owner for one in found}
    there = [replace(one, problem=left_out.get(one.owner, one.problem)) for one in found]
    return [*there, *(migrate.OwnerStatus(name, None, None, 0, why) for name, why in left_out.items() if name not in known)]


def _without_removed(settings: Settings) -> Settings:
    """The settings without the plugins whose packages are gone: what they left in the database stays as it is."""
    removed = missing_plugins(settings)
    for name in removed:
        note(f"plugin {name} is enabled, but no installed package offers it; its tables stay as they are")
    sections = {name: section for name, section in settings.plugins.items() if name not in removed}
    return settings.model_copy(update={"plugins": sections})


def describe_rules(changes: Mapping[str, Mapping[str, RuleChange]]) -> list[str]:
    """Changed rules, one line each."""
    return [
        f"{plugin}: {name} {change.before!r} → {change.after!r}"
        for plugin, changed in changes.items()
        for name, change in changed.items()
    ]
