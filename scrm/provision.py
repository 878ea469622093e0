"""Bringing a database up to what is installed: migrations, the catalogue of event types, places in the log, rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import sqlalchemy as sa

from scrm import migrate
from scrm.config import Settings
from scrm.db import Database, Tx, dumps
from scrm.errors import StartupError
from scrm.events.consumers import CORE, consumer_of, disable, enable
from scrm.events.log import core_event_types
from scrm.events.models import consumers, event_types
from scrm.events.rules import RuleChange, configure, current_rules, difference
from scrm.loader import OnError, refuse, with_migrations
from scrm.plugin import EventType
from scrm.plugin_set import LoadState, PluginSet

_KEEP_TYPE = sa.text(
    "insert into event_types (type, owner, personal, own) values (:type, :owner, :personal, :own)"
    " on conflict (type) do update set owner = excluded.owner, personal = excluded.personal, own = excluded.own"
).bindparams(sa.bindparam("personal", type_=sa.Text))
_KEEP_TYPE_POSTGRESQL = sa.text(_KEEP_TYPE.text.replace(":personal", "cast(:personal as json)"))


@dataclass(frozen=True)
class Provisioned:
    """What was done: per owner its migrations, per plugin the rules that changed."""

    upgraded: Sequence[migrate.Upgraded]
    rules: Mapping[str, Mapping[str, RuleChange]] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """Migrations that failed."""
        return [one.error for one in self.upgraded if one.error is not None]


async def provision(settings: Settings, plugins: PluginSet) -> Provisioned:
    """Migrate, then let the database know the plugins' event types, their places in the log and their rules.

    Doing it again changes nothing.

    Raises: StartupError when the core's migrations fail.
    """
    upgraded = await migrate.upgrade(settings.database_url, plugins)
    failed = {one.owner for one in upgraded if one.error is not None}
    db = Database(settings.database_url)
    working = plugins.without(dict.fromkeys(failed, (LoadState.MIGRATION_ERROR, ["its migration failed"])), db.clock())
    try:
        await db.write(keep_event_types, working)
        await db.write(note_disabled, plugins, db.clock())
        await db.write(_enable, db, working, settings)
        return Provisioned(upgraded, await apply_rules(db, working, settings))
    finally:
        await db.close()


async def ready_plugins(settings: Settings, plugins: PluginSet, *, on_error: OnError | None = None) -> PluginSet:
    """Those of the plugins that can run on the database as it is. `on_error` overrides the setting `on_plugin_error`.

    Raises: StartupError when the core's tables are not up to date, or a plugin's are not while `on_plugin_error` is fail.
    """
    stands = await migrate.status(settings.database_url, plugins)
    core = stands[0]
    if core.problem is not None:
        raise StartupError(f"the database does not fit this version of scrm: {core.problem}")
    if core.pending:
        raise StartupError(f"the database is not ready: {migrate.pending(core.pending)}; run scrm db upgrade")
    db = Database(settings.database_url)
    ready = with_migrations(plugins, stands, db.clock())
    await db.close()
    if (on_error or settings.on_plugin_error) == "fail":
        refuse([status for status in ready.statuses if plugins.get(status.name) and not ready.get(status.name)])
    return ready


def all_event_types(plugins: PluginSet) -> dict[str, EventType]:
    """Every registered event type by name."""
    return {kind.name: kind for _, kind in _owned_types(plugins)}


def keep_event_types(tx: Tx, plugins: PluginSet) -> None:
    """Write down whose each event type is, whether it is only its owner's to record, and what of it is personal: doors, masks and
    erasing a person need it when the plugin is long gone."""
    statement = _KEEP_TYPE if tx.dialect == "sqlite" else _KEEP_TYPE_POSTGRESQL
    rows = [
        {"type": kind.name, "owner": owner, "personal": dumps(list(kind.personal)), "own": kind.own}
        for owner, kind in _owned_types(plugins)
    ]
    tx.execute(statement, rows)


def personal_properties(tx: Tx) -> frozenset[str]:
    """The properties that are about a person, of every plugin that was ever enabled."""
    return frozenset(name for row in tx.rows(sa.select(event_types.c.personal)) for name in row.personal)


def _owned_types(plugins: PluginSet) -> Iterable[tuple[str, EventType]]:
    yield from (("core", kind) for kind in core_event_types)
    for plugin in plugins:
        decided = {decision.event_type for decision in plugin.contribution.decisions}
        for kind in plugin.contribution.event_types:
            yield plugin.name, replace(kind, own=kind.own or kind.name in decided)


def note_disabled(tx: Tx, plugins: PluginSet, at: datetime) -> None:
    """Note in the log's readers whose plugins the settings do not enable."""
    for row in tx.rows(sa.select(consumers.c.plugin).where(consumers.c.plugin != CORE)):
        status = plugins.status(row.plugin)
        if status is None or status.state is LoadState.DISABLED:
            disable(tx, row.plugin, at)


def _enable(tx: Tx, db: Database, plugins: PluginSet, settings: Settings) -> None:
    for plugin in plugins:
        enable(tx, consumer_of(plugin, settings), db.clock())


async def apply_rules(db: Database, plugins: PluginSet, settings: Settings) -> dict[str, Mapping[str, RuleChange]]:
    """Put the rules of the settings in force from here on; the differences, per plugin that has some."""
    changed: dict[str, Mapping[str, RuleChange]] = {}
    for plugin in plugins:
        if plugin.contribution.rules.model_fields:
            change = await db.write(configure, plugin.name, plugin.rules, at=db.clock(), zone=settings.zone)
            if change:
                changed[plugin.name] = change
    return changed


def rule_changes(tx: Tx, plugins: PluginSet) -> dict[str, Mapping[str, RuleChange]]:
    """What `apply_rules` would change, without changing it."""
    found = {plugin.name: difference(current_rules(tx, plugin.name), plugin.rules.model_dump(mode="json")) for plugin in plugins}
    return {name: change for name, change in found.items() if change}
