"""Event types."""

from __future__ import annotations

from scrm.api import EventType

PAID = "order.paid"
MARKED, SPENT, REVIEWED, NOTICED = "everything.marked", "everything.spent", "everything.reviewed", "everything.noticed"
WEIGHT = {"type": "integer", "minimum": 1}

TYPES = (
    EventType(
        MARKED,
        "Somebody is marked by hand.",
        {
            "type": "object",
            "required": ["weight"],
            "properties": {"weight": WEIGHT, "whisper": {"type": "string", "maxLength": 200}},
        },
        personal=("whisper",),
    ),
    EventType(SPENT, "Marks were spent.", {"type": "object", "required": ["weight"], "properties": {"weight": WEIGHT}}),
    EventType(REVIEWED, "A day is over.", without_user=True),
    EventType(
        NOTICED,
        "An order made a mark.",
        {"type": "object", "required": ["weight"], "properties": {"weight": {"type": "integer"}}},
    ),
)
