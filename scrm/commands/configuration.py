"""`scrm config`: the settings, and the plugins' rules in the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from scrm.commands.database import describe_rules
from scrm.commands.session import AsJson, say, say_json, session
from scrm.config import Settings
from scrm.db import Database
from scrm.events.rules import RuleChange
from scrm.plugin_set import Plugin, PluginSet
from scrm.provision import apply_rules, ready_plugins, rule_changes

app = typer.Typer(help="Show the settings; put the plugins' rules in force.", no_args_is_help=True)


@app.command("apply")
def apply(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put the rules of the settings in force from here on: what has happened keeps the rules it happened under."""
    opened = session(ctx)
    plugins = opened.plugins()

    async def work(db: Database, settings: Settings) -> Mapping[str, Mapping[str, RuleChange]]:
        ready = await ready_plugins(settings, plugins)
        return await db.read(rule_changes, ready) if dry_run else await apply_rules(db, ready, settings)

    changes = opened.run(work)
    if as_json:
        say_json(changes)
        return
    for line in describe_rules(changes) or ["nothing changes"]:
        say(line)


@app.command("show")
def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """The settings as they are in force, from the file and the environment; secrets are hidden."""
    opened = session(ctx)
    settings = opened.settings()
    shown = visible(settings, opened.plugins(settings, "skip"))
    if as_json:
        say_json(shown)
        return
    for line in lines(shown):
        say(line)


def visible(settings: Settings, plugins: PluginSet) -> dict[str, Any]:
    """The settings without what is secret."""
    said = settings.model_dump(mode="json", exclude={"plugins", "database_url"})
    url = Database(settings.database_url).url
    sections = {
        name: of_plugin(plugin) if (plugin := plugins.get(name)) is not None else {"enabled": section.enabled}
        for name, section in settings.plugins.items()
    }
    return {"database_url": url.render_as_string(hide_password=True), **said, "plugins": sections}


def of_plugin(plugin: Plugin) -> dict[str, Any]:
    """A plugin's own settings; secrets as stars."""
    return {"enabled": True, **plugin.rules.model_dump(mode="json"), **plugin.wiring.model_dump(mode="json")}


def lines(values: Mapping[str, Any], place: str = "") -> list[str]:
    """Nested settings, one line each, named as in the environment's and the error messages' way."""
    found: list[str] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += lines(value, f"{place}{name}.")
        else:
            found.append(f"{place}{name} = {value!r}" if isinstance(value, str) else f"{place}{name} = {value}")
    return found
