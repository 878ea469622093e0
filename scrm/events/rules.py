"""A plugin's rules in the log: a change counts from its position on, so it never rewrites what came before."""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from msgspec.structs import replace
from pydantic import ValidationError

from scrm.db import Tx
from scrm.events.log import append, core_event, share_owners
from scrm.events.models import consumers, events
from scrm.plugin import KEPT, Rules

CONFIGURED = "plugin.configured"


def config_source(plugin: str) -> str:
    """The source of the events that configure a plugin."""
    return f"config:{plugin}"


@dataclass(frozen=True, slots=True)
class RuleChange:
    """One setting of the rules before and after; None where it is absent."""

    before: Any
    after: Any


class Timeline:
    """The rules of one plugin over the log: `at(position)` are those in force at an event, `latest` those of a decision now."""

    def __init__(self, model: type[Rules], initial: Rules, changes: list[tuple[int | None, Mapping[str, Any]]]) -> None:
        self._model = model
        self._initial = initial
        self._changes = changes
        self._positions = [position for position, _ in changes if position is not None]
        self._parsed: dict[int, Rules] = {}

    def at(self, position: int) -> Rules:
        """The rules in force at this place in the log; what was configured first counts for all that came before it too."""
        return self._get(max(bisect_right(self._positions, position) - 1, 0))

    def supposing(self, rules: Rules) -> Timeline:
        """As if these had always been in force."""
        return Timeline(self._model, rules, [])

    @property
    def latest(self) -> Rules:
        """The rules configured last."""
        return self._get(len(self._changes) - 1)

    @property
    def reads(self) -> frozenset[str] | None:
        """The event types that any of these rules named, those of the past included; None: every type."""
        named: set[str] = set()
        for index in range(max(len(self._changes), 1)):
            try:
                said = self._get(index).reads()
            except ValidationError:
                return None
            if said is None:
                return None
            named.update(said)
        return frozenset(named)

    def _get(self, index: int) -> Rules:
        if not self._changes:
            return self._initial
        if index not in self._parsed:
            self._parsed[index] = self._model.model_validate(self._changes[index][1], context=KEPT)
        return self._parsed[index]


def last_change(source: Any) -> sa.ScalarSelect[uuid.UUID]:
    """The event that configured a plugin's rules last; null where none did. `source` is the `config_source` of the plugin."""
    said = sa.select(events.c.id).where(events.c.source == source)
    newest = sa.func.length(events.c.external_id).desc(), events.c.external_id.desc()
    return said.order_by(*newest).limit(1).scalar_subquery()


def read_timeline(tx: Tx, plugin: str, model: type[Rules], initial: Rules) -> Timeline:
    """What the log says of a plugin's rules; `initial` counts where it says nothing."""
    return Timeline(model, initial, _changes(tx, plugin))


def current_rules(tx: Tx, plugin: str) -> Mapping[str, Any] | None:
    """The rules as configured last, or None where none were."""
    changes = _changes(tx, plugin)
    return changes[-1][1] if changes else None


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, RuleChange]:
    """The settings that differ, by name."""
    known = before or {}
    names = sorted({*known, *after})
    return {name: RuleChange(known.get(name), after.get(name)) for name in names if known.get(name) != after.get(name)}


def configure(
    tx: Tx, plugin: str, rules: Rules | Mapping[str, Any], *, at: datetime, zone: ZoneInfo
) -> dict[str, RuleChange] | None:
    """Put a plugin's rules in force from here on; returns what changes, or None where nothing does.

    Decisions wait meanwhile: each is made either wholly before or wholly after.
    """
    said = rules.model_dump(mode="json") if isinstance(rules, Rules) else dict(rules)
    share_owners(tx)
    tx.execute(sa.select(consumers.c.plugin).where(consumers.c.plugin == plugin).with_for_update())
    changes = _changes(tx, plugin)
    before = changes[-1][1] if changes else None
    changed = difference(before, said)
    if before is not None and not changed:
        return None
    entry = core_event(CONFIGURED, None, {"plugin": plugin, "rules": said}, at, zone)
    append(tx, [replace(entry, source=config_source(plugin), external_id=str(len(changes) + 1))])
    return changed


def _changes(tx: Tx, plugin: str) -> list[tuple[int | None, Mapping[str, Any]]]:
    statement = sa.select(events.c.position, events.c.external_id, events.c.properties).where(
        events.c.source == config_source(plugin)
    )
    rows = sorted(tx.rows(statement), key=lambda row: int(row.external_id))
    return [(row.position, row.properties["rules"]) for row in rows]
