"""What is known of plugins while they run."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from scrm.audit import audit
from scrm.db import Tx
from scrm.events import parked
from scrm.events.consumers import progress
from scrm.events.rules import current_rules
from scrm.plugin_set import LoadState, Plugin, PluginSet
from scrm.users.models import users

STATES = {
    "DISCOVERED": "Its package is installed.",
    "DISABLED": "The settings do not enable it.",
    "INCOMPATIBLE": "It is for another version of scrm, or needs a plugin that is not there.",
    "LOAD_ERROR": "It could not be loaded.",
    "MIGRATION_REQUIRED": "Its tables wait for scrm db upgrade.",
    "MIGRATION_ERROR": "A migration of its tables failed.",
    "ACTIVE": "It works.",
    "DEGRADED": "It fails on events and waits between tries; its place in the log is kept.",
    "PAUSED": "It was paused.",
}


@dataclass(frozen=True, slots=True)
class Known:
    """A plugin as far as it is known."""

    name: str
    version: str | None
    state: str
    reason: str | None
    since: datetime
    requires: tuple[str, ...] = ()
    event_types: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


def known_plugins(tx: Tx, plugins: PluginSet) -> list[Known]:
    """Every plugin, by name; an active one in the state its reading of the log is in."""
    reading = {each.plugin: each for each in progress(tx)}
    found = []
    for status in sorted(plugins.statuses, key=lambda each: each.name):
        plugin, at = plugins.get(status.name), reading.get(status.name)
        state, reason, since = str(status.state.name), status.reason, status.since
        if status.state is LoadState.ACTIVE and at is not None:
            state, reason, since = at.state, at.reason, at.since
        found.append(_known(status.name, status.version, state, reason, since, plugin))
    return found


def _known(name: str, version: str | None, state: str, reason: str | None, since: datetime, plugin: Plugin | None) -> Known:
    if plugin is None:
        return Known(name, version, state, reason, since)
    brought = plugin.contribution
    tables = tuple(sorted(brought.tables.tables)) if brought.tables is not None else ()
    types = tuple(kind.name for kind in brought.event_types)
    return Known(name, brought.version, state, reason, since, tuple(brought.requires), types, tables)


def settings_of(tx: Tx, plugin: Plugin | None) -> Mapping[str, Any]:
    """A plugin's rules in force; never its wiring, which may be secret."""
    if plugin is None:
        return {}
    return current_rules(tx, plugin.name) or plugin.rules.model_dump(mode="json")


def try_again(tx: Tx, plugin: str, event_ids: Sequence[uuid.UUID] | None, *, at: datetime, actor: str) -> int:
    """Let failed events of a plugin, these or all, be tried at once; returns how many."""
    count = parked.retry(tx, plugin, event_ids, at=at)
    audit(tx, actor, "plugin.retried", None, {"plugin": plugin, "count": count}, at=at)
    return count


def give_up(tx: Tx, plugin: str, event_ids: Sequence[uuid.UUID], *, at: datetime, actor: str) -> int:
    """Give failed events of a plugin up, all or none; returns how many.

    Raises:
        ScrmError: NOT_PARKED.
    """
    for event_id in dict.fromkeys(event_ids):
        parked.skip(tx, plugin, event_id, at=at, actor=actor)
    return len(set(event_ids))


def survivor(tx: Tx, key: uuid.UUID) -> uuid.UUID:
    """The id itself, or of the user that it was merged into."""
    found: uuid.UUID | None = tx.scalar(sa.select(users.c.merged_into).where(users.c.id == key))
    return found or key
