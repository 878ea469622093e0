"""The event types that loyalty announces, with their payloads."""

from __future__ import annotations

from typing import Any

from scrm.api import EventType

from .ledger import (
    ADJUSTED,
    EARNED,
    EXPIRED,
    FROZEN,
    HELD,
    REDEEMED,
    REFUSED,
    RELEASED,
    REVERSED,
    TRANSFERRED,
    UNDONE,
    UNFROZEN,
)

WHOLE: dict[str, Any] = {"type": "integer", "minimum": 0}
SIGNED: dict[str, Any] = {"type": "integer"}
TEXT: dict[str, Any] = {"type": ["string", "null"]}
LOT: dict[str, Any] = {
    "type": "object",
    "required": ["lot", "points"],
    "properties": {"lot": {"type": "string"}, "points": WHOLE, "availableAt": TEXT, "expiresAt": TEXT},
}
LOTS: dict[str, Any] = {"type": "array", "items": LOT}


def _payload(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": ["points", "lots"], "properties": {"points": WHOLE, "lots": LOTS, **properties}}


TYPES = (
    EventType(
        EARNED,
        "Points were credited by an earn rule; `debtRepaid` of them paid a debt, the rest are lots. The amount is the event's.",
        _payload(orderId=TEXT, rule=TEXT, debtRepaid=WHOLE),
        own=True,
    ),
    EventType(
        REDEEMED,
        "Points were spent from these lots; of a `hold` where it was captured, which frees the rest.",
        _payload(reason=TEXT, reference=TEXT, hold=TEXT),
        personal=("reason",),
        own=True,
    ),
    EventType(
        HELD,
        "Points of these lots are held until `expiresAt`.",
        _payload(reason=TEXT, reference=TEXT, expiresAt=TEXT),
        personal=("reason",),
        own=True,
    ),
    EventType(
        UNDONE,
        "A redemption or an adjustment was undone: points (below 0: taken back) to these lots, `renewed` ones with a "
        "time of their own, and `debtRepaid` of them to a debt.",
        _payload(
            points=SIGNED,
            entry=TEXT,
            account=TEXT,
            kind=TEXT,
            debtRepaid=WHOLE,
            debtMade=WHOLE,
            renewed=LOTS,
            reason=TEXT,
            reference=TEXT,
        ),
        personal=("reason",),
        own=True,
    ),
    EventType(
        ADJUSTED,
        "Points were credited by hand, `debtRepaid` of them to a debt, or (below 0) taken from these lots.",
        _payload(points=SIGNED, expiresAt=TEXT, expiresOn=TEXT, debtRepaid=WHOLE, reason=TEXT, reference=TEXT),
        personal=("reason",),
        own=True,
    ),
    EventType(
        TRANSFERRED,
        "Points of these lots went to the person `to`.",
        _payload(to=TEXT, reason=TEXT, reference=TEXT),
        personal=("reason",),
        own=True,
    ),
    EventType(EXPIRED, "Points of these lots have expired unspent and are written off.", _payload(), own=True),
    EventType(FROZEN, "Nothing can be spent, for the account's numbers do not agree: `drift` says which.", own=True),
    EventType(UNFROZEN, "Points can be spent again.", own=True),
    EventType(RELEASED, "A hold was released: its points are free again.", _payload(hold=TEXT), own=True),
    EventType(
        REVERSED,
        "A refund took back points: from these lots, and `debt` that the next credit pays. `cancelled`: how many earned points "
        "the refund cancels, those that had expired included. The amount is the refund's, or the order's if it came later.",
        _payload(orderId=TEXT, cancelled=WHOLE, debt=WHOLE),
        own=True,
    ),
    EventType(
        REFUSED,
        "A refund would cancel these points, and so many of them are not there any more: by the policy `block` none was taken.",
        {"type": "object", "properties": {"points": WHOLE, "short": WHOLE, "orderId": TEXT}},
        own=True,
    ),
)
