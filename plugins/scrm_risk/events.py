"""The event types of risk, with their payloads."""

from __future__ import annotations

from typing import Any

from scrm.api import EventType, payload_of

CHANGED = "risk.alert_changed"
DUE = "risk.evaluation_due"
ACKNOWLEDGED, SNOOZED, RESOLVED, ADVANCED = (
    "risk.alert_acknowledged",
    "risk.alert_snoozed",
    "risk.alert_resolved",
    "risk.alert_advanced",
)
RULE_SAVED, RULE_DELETED = "risk.rule_saved", "risk.rule_deleted"
SCORED, ACCEPTED = "risk.scored", "risk.accepted"
TEXT: dict[str, Any] = {"type": "string"}
MAYBE: dict[str, Any] = {"type": ["string", "null"]}
OBJECT: dict[str, Any] = {"type": "object"}


def _of_people(name: str, description: str, payload: dict[str, Any], *personal: str) -> EventType:
    return EventType(name, description, payload, personal=personal, without_user=True, own=True)


ACTED = payload_of("alert", "actor", alert=TEXT, actor=TEXT, comment=MAYBE)
TYPES = (
    _of_people(
        CHANGED,
        "An alert came to another state; about a person, it is that person's event.",
        payload_of(
            "alert",
            "to",
            alert=TEXT,
            rule=TEXT,
            scope=OBJECT,
            severity=TEXT,
            value={"type": ["number", "null"]},
            at=TEXT,
            **{"from": MAYBE, "to": TEXT},
        ),
    ),
    _of_people(
        DUE,
        "Rules are evaluated as of `asOf`; `samples` has what indicators say that are not of the log.",
        payload_of("asOf", asOf=TEXT, samples=OBJECT),
    ),
    _of_people(ACKNOWLEDGED, "Somebody took an alert on.", ACTED, "comment"),
    _of_people(
        SNOOZED,
        "Nobody is told of an alert, or of a rule in a scope, before `until`.",
        payload_of(
            "rule", "scope", "until", "actor", alert=MAYBE, rule=TEXT, scope=OBJECT, until=TEXT, actor=TEXT, comment=MAYBE
        ),
        "comment",
    ),
    _of_people(RESOLVED, "Somebody ended an alert.", ACTED, "comment"),
    _of_people(
        ADVANCED,
        "The response to an alert came to another phase.",
        payload_of("alert", "phase", "actor", alert=TEXT, phase=TEXT, actor=TEXT, comment=MAYBE),
        "comment",
    ),
    _of_people(RULE_SAVED, "A rule was written or changed.", payload_of("key", "rule", key=TEXT, rule=OBJECT)),
    _of_people(RULE_DELETED, "A rule was taken away.", payload_of("key", key=TEXT)),
    _of_people(SCORED, "A risk of the register was written, or scored again.", payload_of("key", "risk", key=TEXT, risk=OBJECT)),
    _of_people(
        ACCEPTED,
        "A risk of the register is accepted until a day.",
        payload_of("key", "until", "actor", key=TEXT, until=TEXT, actor=TEXT, reason=MAYBE),
    ),
)
