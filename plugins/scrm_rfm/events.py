"""The event types of the RFM layering, with their payloads."""

from __future__ import annotations

from typing import Any

from scrm.api import EventType, payload_of

DUE, REQUESTED, CHANGED = "rfm.run_due", "rfm.run_requested", "rfm.segment_changed"
TEXT: dict[str, Any] = {"type": "string"}
MAYBE: dict[str, Any] = {"type": ["string", "null"]}
NUMBER: dict[str, Any] = {"type": ["integer", "null"]}


TYPES = (
    EventType(
        DUE,
        "A run is due: everybody is scored as of `asOf` from the log up to this event. `run` is the one that was asked for.",
        payload_of("asOf", asOf=TEXT, mode=MAYBE, windowDays=NUMBER, run=MAYBE),
        without_user=True,
        own=True,
    ),
    EventType(
        REQUESTED,
        "Somebody asked for a run as of `asOf`; null for the mode or the window: as the rules say; 0 days: all time.",
        payload_of("asOf", asOf=TEXT, mode=MAYBE, windowDays=NUMBER),
        without_user=True,
        own=True,
    ),
    EventType(
        CHANGED,
        "A person is in another segment than until then.",
        payload_of("from", "to", "asOf", "run", **{"from": TEXT}, to=TEXT, score=MAYBE, asOf=TEXT, run=TEXT),
        own=True,
    ),
)
