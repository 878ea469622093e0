"""What becomes of the events that risk reads: each changes its alerts, its rules or its register."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from scrm.api import Handler, HandlerTx, LogEvent

from . import events, register
from .book import delete_rule, keep_rules, save_rule
from .desk import Desk, act_on, put_to_sleep
from .evaluation import evaluate, read_ahead
from .machine import Act
from .rules import RiskRules

CONFIGURED = "plugin.configured"


def follow(tx: HandlerTx, batch: Sequence[LogEvent], rules: RiskRules) -> None:
    """One event after the other: there are few, and each sees what those before it did."""
    for event in batch:
        APPLY[event.type](tx, event, rules)


def _configured(tx: HandlerTx, event: LogEvent, rules: RiskRules) -> None:
    if event.properties.get("plugin") == "risk":
        keep_rules(tx, rules)


def _act(what: Act) -> Callable[[HandlerTx, LogEvent, RiskRules], None]:
    def apply(tx: HandlerTx, event: LogEvent, rules: RiskRules) -> None:
        desk = Desk(tx, event, rules, event.occurred_at)
        said = event.properties
        act_on(desk, uuid.UUID(said["alert"]), what, said["actor"], said.get("comment"))
        desk.store()

    return apply


def _snooze(tx: HandlerTx, event: LogEvent, rules: RiskRules) -> None:
    desk, said = Desk(tx, event, rules, event.occurred_at), event.properties
    until = datetime.fromisoformat(said["until"]).astimezone(UTC)
    put_to_sleep(desk, said["rule"], said["scope"], until, said["actor"], said.get("comment"))
    desk.store()


def _advance(tx: HandlerTx, event: LogEvent, rules: RiskRules) -> None:
    desk, said = Desk(tx, event, rules, event.occurred_at), event.properties
    desk.load_alerts([uuid.UUID(said["alert"])])
    for alert in desk.alerts.values():
        alert.phase = said["phase"]
        desk.note(alert, said["actor"], said.get("comment"))
    desk.store()


APPLY: Mapping[str, Callable[[HandlerTx, LogEvent, RiskRules], None]] = {
    CONFIGURED: _configured,
    events.DUE: evaluate,
    events.ACKNOWLEDGED: _act(Act.ACKNOWLEDGE),
    events.RESOLVED: _act(Act.RESOLVE),
    events.SNOOZED: _snooze,
    events.ADVANCED: _advance,
    events.RULE_SAVED: lambda tx, event, rules: save_rule(tx, event.properties, rules),
    events.RULE_DELETED: lambda tx, event, rules: delete_rule(tx, event.properties, rules),
    events.SCORED: lambda tx, event, rules: register.score(tx, event),
    events.ACCEPTED: lambda tx, event, rules: register.accept(tx, event),
}
handler = Handler(tuple(APPLY), follow, ahead={events.DUE: read_ahead})
