"""The event types of budgets, with their payloads."""

from __future__ import annotations

from typing import Any

from scrm.api import EventType, payload_of

CREATED, UPDATED, CLOSED, EXPLAINED = "budget.created", "budget.updated", "budget.closed", "budget.explained"
COMMITTED, RELEASED, SPENT, REFUNDED = "budget.committed", "budget.released", "budget.spent", "budget.refunded"
TRANSFERRED, REALLOCATED = "budget.transferred", "budget.reallocated"
CROSSED, UNASSIGNED = "budget.threshold_crossed", "budget.cost_unassigned"

TEXT: dict[str, Any] = {"type": "string"}
MAYBE: dict[str, Any] = {"type": ["string", "null"]}
WHOLE: dict[str, Any] = {"type": "integer", "minimum": 0}
SIGNED: dict[str, Any] = {"type": "integer"}
LIST: dict[str, Any] = {"type": "array", "items": {"type": "object"}}


def _own(name: str, description: str, payload: dict[str, Any]) -> EventType:
    return EventType(name, description, payload, without_user=True, own=True)


OF_LINE = {"budget": TEXT, "line": TEXT, "amount": WHOLE, "currency": TEXT}

TYPES = (
    _own(
        CREATED, "A budget was made, with its lines; amounts in minor units.", payload_of("name", "lines", name=TEXT, lines=LIST)
    ),
    _own(UPDATED, "A budget's name, lines or amounts were changed.", payload_of("budget", "lines", budget=TEXT, lines=LIST)),
    _own(CLOSED, "A budget was closed before its time: open commitments are released.", payload_of("budget", budget=TEXT)),
    _own(
        EXPLAINED,
        "Somebody said why a line's spending differs from its plan.",
        payload_of("line", "cause", budget=TEXT, line=TEXT, cause=MAYBE, note=MAYBE),
    ),
    _own(
        COMMITTED,
        "Money of a line was committed until `expiresAt`; `over` of it is more than there was.",
        payload_of("line", "amount", **OF_LINE, over=WHOLE, expiresAt=TEXT, reference=MAYBE),
    ),
    _own(RELEASED, "What was left of a commitment is free again.", payload_of("line", "commitment", **OF_LINE, commitment=TEXT)),
    _own(
        SPENT,
        "Money of a line was spent, of a `commitment` where one is named; `over` of it is more than there was.",
        payload_of("line", "amount", **OF_LINE, over=WHOLE, commitment=MAYBE, reference=MAYBE),
    ),
    _own(
        REFUNDED,
        "Money that was spent came back: the reverse of `entry`.",
        payload_of("line", "amount", "entry", **OF_LINE, entry=TEXT, reference=MAYBE),
    ),
    _own(
        TRANSFERRED,
        "Money went from one line, or the reserve, to another.",
        payload_of("from", "to", "amount", **{**OF_LINE, "from": TEXT, "to": TEXT}, reference=MAYBE),
    ),
    _own(
        REALLOCATED,
        "Money went to where it earns more: each move from one line to another.",
        payload_of("budget", "moves", budget=TEXT, moves=LIST),
    ),
    _own(
        CROSSED,
        "So many percent of a line, or (without one) of a budget are spent, for the first time.",
        payload_of("budget", "percent", **{**OF_LINE, "line": MAYBE}, percent=WHOLE, spent=SIGNED, funds=SIGNED, crossing=TEXT),
    ),
    _own(
        UNASSIGNED,
        "Something cost money that no line pays: none of an open budget of its day and currency names its campaign, its channel "
        "or the category of the setting.",
        payload_of("amount", amount=WHOLE, currency=TEXT, type=TEXT),
    ),
)
