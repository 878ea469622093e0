"""Rules may need events that another plugin announces, or indicators that it offers; the start says so where nobody does."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from scrm.config import PluginSection, Settings
from scrm.db import Tx
from scrm.events.consumers import EVERY
from scrm.plugin import EventType, Handler, Indicator, IndicatorUnit, Period, Ratio, Rules
from tests.core.test_loader import handle, load, names, plugin, refused


def test_rules_that_need_events_are_refused_where_nobody_registers_them() -> None:
    class Needy(Rules):
        metric: str = "order.paid"

        def event_types(self) -> Sequence[str]:
            return (self.metric,)

    def needing(metric: str) -> Settings:
        return Settings(plugins={"a": PluginSection(enabled=True, metric=metric)})

    a = plugin("a", rules=Needy, event_types=[EventType("bells.rung", "x")])
    b = plugin("b", event_types=[EventType("points.earned", "x")])
    assert refused(a, settings=needing("points.earned")) == [
        "plugin a needs the event type points.earned for its rules, and no enabled plugin registers it; enable one that does, "
        "or change [plugins.a]"
    ]
    assert names(load(a, b, settings=needing("points.earned"))) == ["a", "b"]
    assert names(load(a)) == ["a"]  # the core registers order.paid
    assert names(load(a, settings=needing("bells.rung"))) == ["a"]
    c = plugin("c", rules=Needy, event_types=[EventType("notes.sung", "x")])
    both = Settings(
        plugins={
            "a": PluginSection(enabled=True, metric="notes.sung"),
            "c": PluginSection(enabled=True, metric="points.earned"),
        }
    )
    assert names(load(a, c, settings=both)) == []  # c goes, and its events with it


def test_rules_that_need_indicators_are_refused_where_nobody_offers_them() -> None:
    class Needy(Rules):
        watch: str = "revenue"

        def indicators(self) -> Sequence[str]:
            return (self.watch,)

    settings = Settings(plugins={"a": PluginSection(enabled=True, watch="bells")})
    a = plugin("a", rules=Needy)
    assert refused(a, settings=settings) == [
        "plugin a needs the indicator bells for its rules, and no enabled plugin offers it; enable one that does, "
        "or change [plugins.a]"
    ]
    b = plugin("b", indicators=[Indicator("bells", "Bells", IndicatorUnit.COUNT, "x", series)])
    assert names(load(a, b, settings=settings)) == ["a", "b"]
    assert names(load(a)) == ["a"]  # the core offers revenue


def series(tx: Tx, periods: Sequence[Period], channel_id: uuid.UUID | None, as_of: datetime) -> list[Ratio]:
    return [Ratio(1) for _ in periods]


def test_rules_that_cannot_say_what_they_need_are_their_plugins_failure() -> None:
    class Broken(Rules):
        def event_types(self) -> Sequence[str]:
            raise RuntimeError("no luck")

    assert refused(plugin("a", rules=Broken)) == ["plugin a cannot be checked: RuntimeError: no luck"]


def test_a_handler_of_every_type_is_nobodys_misspelling() -> None:
    loaded = load(plugin("a", handlers=[Handler((EVERY,), handle)]), plugin("b", handlers=[Handler(("bell.rung",), handle)]))
    said = {status.name: status.warnings for status in loaded.statuses if status.name in "ab"}
    assert said["a"] == ()
    assert said["b"] == ("event type bell.rung, which b uses, is registered by nobody; check its spelling",)
