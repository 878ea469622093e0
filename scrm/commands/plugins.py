"""`scrm plugins`: what is installed, what runs, and what to do when it does not."""

from __future__ import annotations

import asyncio
import difflib
import re
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
import typer

from scrm import migrate
from scrm.commands.configuration import of_plugin
from scrm.commands.contributed import group_of
from scrm.commands.serving import FIT
from scrm.commands.session import AsJson, Session, cell, counted, late, note, say, say_json, session, table
from scrm.config import PluginSection, Settings, check_rules, read_toml
from scrm.conformance import Finding
from scrm.db import Database, Tx, database_exists
from scrm.errors import StartupError
from scrm.events import consumers
from scrm.events.models import parked_events
from scrm.events.parked import retry as retry_parked
from scrm.events.parked import skip as skip_parked
from scrm.events.replay import ReplayReport
from scrm.events.replay import replay as run_replay
from scrm.loader import contribution_of, installed_plugins, live_statuses, load_plugins, with_migrations
from scrm.outbox import undelivered
from scrm.plugin_set import LoadState, Plugin, PluginSet, PluginStatus
from scrm.reference import settings_of_plugin, settings_table
from scrm.settings_file import set_enabled
from scrm.unpacked import offered_by

app = typer.Typer(help="See, enable, check, replay and remove plugins.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The plugin's name.")]
ACTOR = "cli"
TRIAL = "scrm.trial:field_findings"


@app.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Every plugin that is installed or enabled, with its state and why."""
    found = _statuses(session(ctx))
    if as_json:
        say_json(found)
        return
    table(
        ("NAME", "VERSION", "STATE", "SINCE", "REASON"),
        [(one.name, one.version, _state(one), one.since, one.reason) for one in found],
    )


def _state(status: PluginStatus) -> str:
    if not status.running_in:
        return status.state
    it = "they restart" if len(status.running_in) > 1 else "it restarts"
    return f"{status.state}, still running in {', '.join(status.running_in)} until {it}"


@app.command("show")
def show(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """One plugin: its state, its settings, how far it is in the log, events that failed, and messages that were not delivered."""
    opened = session(ctx)
    loaded = opened.plugins(on_error="skip")
    status = _find(_statuses(opened, loaded), name)
    plugin = loaded.get(name)

    async def work(db: Database, _settings: Settings) -> dict[str, Any]:
        return await db.read(_place, name)

    place = opened.run(work) if plugin is not None and database_exists(opened.settings().database_url) else {}
    settings = of_plugin(plugin) if plugin is not None else {}
    if as_json:
        say_json({**_fields(status), "settings": settings, **place})
        return
    for key, value in {**_fields(status), **place}.items():
        if key not in ("failures", "undelivered", "warnings", "problems"):
            say(f"{key.replace('_', ' ')}: {cell(value)}")
    for warning in status.warnings:
        say(f"warning: {warning}")
    for key, value in settings.items():
        say(f"setting {key}: {cell(value)}")
    for failure in place.get("failures", ()):
        said = f"{failure['state']} after {counted(failure['attempts'], 'attempt')}: {cell(failure['error'])}"
        say(f"event {failure['event']}: {said}")
    for message in place.get("undelivered", ()):
        said = f"{message['state']} after {counted(message['attempts'], 'attempt')}: {cell(message['error'])}"
        say(f"message {message['id']} ({cell(message['kind'])}): {said}")


@app.command("settings")
def settings_(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A plugin, enabled or not, or a directory of source.")],
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Answer with a table for a README.")] = False,
    as_json: AsJson = False,
) -> None:
    """What can be set under `[plugins.NAME]`: what each setting takes, its default, and what it means."""
    opened = session(ctx)
    settings = opened.settings()
    installed = installed_plugins()
    offered = offered_by(Path(name)) if name not in installed and Path(name).is_dir() else installed
    chosen = [name] if offered is installed else sorted(offered)
    if name not in offered and offered is installed:
        _find(_installed(settings), name)
    found = [
        setting
        for one in chosen
        for setting in settings_of_plugin(contribution_of(one, offered[one], settings.plugin_start_seconds))
    ]
    if as_json:
        say_json(found)
    elif as_markdown:
        say(settings_table(found).rstrip("\n"))
    else:
        rows = [tuple(part.replace("`", "") for part in astuple(one)) for one in found]
        table(("SETTING", "TAKES", "DEFAULT", "MEANING"), rows)


@app.command("enable")
def enable(ctx: typer.Context, name: Name) -> None:
    """Enable an installed plugin in scrm.toml; its tables come with `scrm db upgrade`."""
    opened = session(ctx)
    settings = opened.settings()
    _find([one for one in _installed(settings) if one.package is not None], name)
    status = _find(_with(settings, name, True, opened).statuses, name)
    if status.state is not LoadState.ACTIVE:
        raise StartupError([f"plugin {name} cannot be enabled: {problem}" for problem in status.problems])
    file = set_enabled(settings, opened.config, name, True)
    note(f"plugin {name} is enabled in {file}; run scrm db upgrade, and start the server again")


@app.command("disable")
def disable(ctx: typer.Context, name: Name) -> None:
    """Disable a plugin in scrm.toml; its tables and its place in the log stay."""
    opened = session(ctx)
    settings = opened.settings()
    before = load_plugins(settings, on_error="skip", core=opened.core())
    _find(before.statuses, name)
    after = _with(settings, name, False, opened)
    fallen = [one for one in before if after.get(one.name) is None and one.name != name]
    if fallen:
        reasons = [after.status(one.name) for one in fallen]
        raise StartupError([f"plugin {name} cannot be disabled: {one.reason}" for one in reasons if one is not None])
    file = set_enabled(settings, opened.config, name, False)
    note(f"plugin {name} is disabled in {file}; its tables stay; start the server again")


@app.command("check")
def check(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Plugins, or directories of source; else all enabled.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the host's checks on plugins, enabled or not, installed or not; exit 1 where one fails."""
    opened = session(ctx)
    found = _findings(opened, names or [])
    if as_json:
        say_json(found)
    for finding in () if as_json else found:
        note(f"warning: {finding.text}" if finding.level == "warning" else f"{finding.plugin}: {finding.text}")
    if any(finding.level == "error" for finding in found):
        raise typer.Exit(1)
    if not as_json:
        say("no problems")


def _findings(opened: Session, names: Sequence[str]) -> list[Finding]:
    settings = opened.settings()
    known = _installed(settings)
    installed = {status.name for status in known}
    unpacked = {name: offered_by(Path(name)) for name in names if name not in installed and Path(name).is_dir()}
    wanted = [one for name in names for one in unpacked.get(name) or [_find(known, name).name]]
    for name in wanted:
        settings = _enabled(settings, name, True)
    sources = {name: load for offered in unpacked.values() for name, load in offered.items()}
    loaded = load_plugins(settings, unpacked=sources, on_error="skip", core=opened.core())
    fitting, _ = late(FIT)(settings, loaded)
    chosen = [_find(fitting.statuses, name) for name in wanted] or list(fitting.statuses)
    mine = {one.name for one in chosen}
    found = [Finding(one.name, "warning", warning) for one in chosen for warning in one.warnings]
    for one in fitting.statuses:
        for problem in one.problems if one.state in (LoadState.LOAD_ERROR, LoadState.INCOMPATIBLE) else ():
            if one.name in mine or mine & set(re.findall(r"\w+", problem)):  # a collision may have been laid at the other's door
                found.append(Finding(one.name, "error", problem))
    running = [plugin for plugin in fitting if plugin.name in mine]
    return [*found, *_commands(running), *_on_empty_database(settings, fitting, mine)]


def _commands(plugins: Sequence[Plugin]) -> list[Finding]:
    found = []
    for plugin in plugins:
        try:
            group_of(plugin)
        except StartupError as error:
            found.append(Finding(plugin.name, "error", str(error)))
    return found


@app.command("replay")
def replay(
    ctx: typer.Context,
    name: Name,
    apply: Annotated[bool, typer.Option("--apply", help="Put the rebuilt tables in the place of the live ones.")] = False,
    rules: Annotated[
        Path | None, typer.Option("--rules", help="A TOML file of rules: what if they had always been in force.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild a plugin's tables from the log beside the live ones and compare; exit 1 where they differ."""
    opened = session(ctx)
    settings = opened.settings()
    plugin = _active(opened.plugins(settings), name)
    other = check_rules(name, plugin.contribution.rules, read_toml(rules), settings.house) if rules is not None else None

    async def work(db: Database, settings: Settings) -> ReplayReport:
        return await run_replay(db, settings, plugin, apply=apply, rules=other)

    report = opened.run(work)
    if as_json:
        say_json({**_fields(report), "equal": report.equal})
    else:
        _say_replay(report)
    if not report.equal and rules is None and not apply:
        raise typer.Exit(1)


@app.command("purge")
def purge(
    ctx: typer.Context, name: Name, yes: Annotated[bool, typer.Option("--yes", help="Really drop the tables.")] = False
) -> None:
    """Drop a disabled plugin's tables and its place in the log; its package need not be installed."""
    settings = session(ctx).settings()
    if settings.plugins.get(name, PluginSection()).enabled:
        raise StartupError(f"plugin {name} is enabled; run scrm plugins disable {name} first")
    if not yes:
        raise StartupError(f"the tables of plugin {name} would be dropped and cannot be had again; add --yes to do it")
    dropped = asyncio.run(migrate.purge(settings.database_url, name, datetime.now(UTC)))
    if not dropped and name not in settings.plugins and not {one.name for one in _installed(settings)} & {name}:
        raise StartupError(f"plugin {name} is not known here and left no table; see scrm plugins list")
    note(f"plugin {name} is purged; dropped {', '.join(sorted(dropped)) or 'no table'}")


@app.command("retry")
def retry(
    ctx: typer.Context, name: Name, event: Annotated[list[str] | None, typer.Argument(help="Ids; else all.")] = None
) -> None:
    """Try the events that failed again."""
    opened = session(ctx)
    plugins = opened.plugins(on_error="skip")
    if name != consumers.CORE:
        _active(plugins, name)

    async def work(db: Database, _settings: Settings) -> int:
        return await db.write(retry_parked, name, [_event(one) for one in event] if event else None, at=db.clock())

    note(f"{counted(opened.run(work), 'event')} of plugin {name} will be tried again")


@app.command("skip")
def skip(ctx: typer.Context, name: Name, event: Annotated[str, typer.Argument(help="The event's id.")]) -> None:
    """Give an event that failed up: the plugin never applies it, and those behind it go on."""

    async def work(db: Database, _settings: Settings) -> None:
        await db.write(skip_parked, name, _event(event), at=db.clock(), actor=ACTOR)

    session(ctx).run(work)
    note(f"event {event} is skipped by plugin {name}")


@app.command("pause")
def pause(ctx: typer.Context, name: Name, reason: Annotated[str, typer.Option("--reason")] = "paused by hand") -> None:
    """Stop a plugin's reading of the log; nothing is lost."""

    async def work(db: Database, _settings: Settings) -> None:
        await db.write(consumers.pause, name, reason, db.clock())

    session(ctx).run(work)
    note(f"plugin {name} is paused")


@app.command("resume")
def resume(ctx: typer.Context, name: Name) -> None:
    """Let a paused or degraded plugin go on."""

    async def work(db: Database, _settings: Settings) -> None:
        await db.write(consumers.resume, name, db.clock())

    session(ctx).run(work)
    note(f"plugin {name} goes on")


def _statuses(opened: Session, loaded: PluginSet | None = None) -> list[PluginStatus]:
    """Every plugin in the state it has, or would have if the server were started now."""
    settings = opened.settings()
    fitting: PluginSet = late(FIT)(settings, loaded or opened.plugins(settings, "skip"))[0]

    async def work(db: Database, _settings: Settings) -> list[PluginStatus]:
        if not await db.read(_has_tables):
            return list(fitting.statuses)
        stands = await migrate.status(settings.database_url, fitting)
        return await db.read(live_statuses, with_migrations(fitting, stands, db.clock()), db.clock())

    return opened.run(work) if database_exists(settings.database_url) else list(fitting.statuses)


def _installed(settings: Settings) -> Sequence[PluginStatus]:
    """Every plugin that is installed or enabled, by name; none is imported for it."""
    return load_plugins(settings, safe=True).statuses


def _has_tables(tx: Tx) -> bool:
    return sa.inspect(tx.connection).has_table("consumers")


def _find(statuses: Any, name: str) -> PluginStatus:
    by_name = {status.name: status for status in statuses}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, 1)
        way_out = f"did you mean {near[0]}?" if near else f"installed are: {', '.join(sorted(by_name)) or 'none'}"
        raise StartupError(f"plugin {name} is not installed; {way_out}")
    found: PluginStatus = by_name[name]
    return found


def _active(plugins: PluginSet, name: str) -> Plugin:
    plugin = plugins.get(name)
    if plugin is None:
        status = _find(plugins.statuses, name)
        raise StartupError(f"plugin {name} is {status.state}{f': {status.reason}' if status.reason else ''}; enable it first")
    return plugin


def _on_empty_database(settings: Settings, fitting: PluginSet, names: set[str]) -> list[Finding]:
    """What of these plugins fails on a database without rows: migrations, what these make, fields, indicators."""
    brought = [plugin.contribution for plugin in fitting if plugin.name in names]
    if not any(each.migrations or each.extends or each.query or each.indicators for each in brought):
        return []
    with tempfile.TemporaryDirectory() as directory:
        empty = settings.model_copy(update={"database_url": f"sqlite:///{Path(directory) / 'check.db'}"})
        upgraded = asyncio.run(migrate.upgrade(empty.database_url, fitting))
        failed = [Finding(one.owner, "error", str(one.error)) for one in upgraded if one.error is not None]
        if failed:
            return [one for one in failed if one.plugin in names]
        lines = [line.partition(": ") for line in asyncio.run(migrate.check(empty.database_url, fitting))]
        drift = [Finding(owner, "error", f"migrations and models differ: {text}") for owner, _, text in lines if owner in names]
        return drift or late(TRIAL)(empty, fitting, names)


def _enabled(settings: Settings, name: str, value: bool) -> Settings:
    section = settings.plugins.get(name, PluginSection()).model_copy(update={"enabled": value})
    return settings.model_copy(update={"plugins": {**settings.plugins, name: section}})


def _with(settings: Settings, name: str, value: bool, opened: Session) -> PluginSet:
    return load_plugins(_enabled(settings, name, value), on_error="skip", core=opened.core())


def _event(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(hex=text.removeprefix("Event_"))
    except ValueError:
        raise StartupError(f"event id {text!r} is not an id; copy one from scrm plugins show") from None


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _place(tx: Tx, name: str) -> dict[str, Any]:
    if not _has_tables(tx):
        return {}
    mine = next((one for one in consumers.progress(tx) if one.plugin == name), None)
    statement = sa.select(parked_events).where(parked_events.c.plugin == name).order_by(parked_events.c.position).limit(100)
    failures = [
        {"event": row.event_id.hex, "state": row.state, "attempts": row.attempts, "error": row.error}
        for row in tx.rows(statement)
    ]
    far = {"cursor": mine.cursor, "lag": mine.lag, "backfill": mine.backfill} if mine is not None else {}
    return {**far, "failures": failures, "undelivered": undelivered(tx, name)}


def _say_replay(report: ReplayReport) -> None:
    say(f"{counted(report.events, 'event')} up to position {report.position}")
    table(
        ("TABLE", "LIVE", "REPLAYED", "DIFFERING"),
        [(key, one.live, one.replayed, one.differing) for key, one in report.tables.items()],
    )
    for name, found in report.tables.items():
        for column, (live, replayed) in found.sums.items():
            say(f"{name}.{column}: {live} in all, replayed {replayed} ({replayed - live:+})")
        for column, moves in found.moves.items():
            for live_word, word, count in moves:
                say(f"{name}.{column}: {live_word or 'none'} → {word or 'none'}, {counted(count, 'row')}")
    if report.left_out:
        say(f"{counted(report.left_out, 'fact')} left out: they could not have been decided under these rules")
    for one in report.differences:
        say(f"{one.table} {one.key}: live {one.live}, replayed {one.replayed}")
    say("applied" if report.applied else "equal" if report.equal else "not equal")
