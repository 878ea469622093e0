"""The event types of tiers, with their payloads."""

from __future__ import annotations

from typing import Any

from scrm.api import EventType, payload_of

from .book import CHANGED

SET, CLEARED, GRANTED, DUE = "tier.set", "tier.cleared", "growth.granted", "tier.review_due"
TEXT: dict[str, Any] = {"type": "string"}
MAYBE: dict[str, Any] = {"type": ["string", "null"]}
WHOLE: dict[str, Any] = {"type": "integer", "minimum": 0}


TYPES = (
    EventType(
        CHANGED,
        "A person has another level, or with the cause SCHEME one that gives something else than was announced last, with what "
        "it gives: `multiplier` is a decimal number as text. `at` is when; a review that comes late says the day it was due.",
        payload_of(
            "to",
            "cause",
            "multiplier",
            "benefits",
            **{"from": MAYBE, "to": MAYBE, "fromLevel": WHOLE, "toLevel": WHOLE, "cause": TEXT, "at": TEXT, "validUntil": MAYBE},
            transition=TEXT,
            multiplier=TEXT,
            benefits={"type": "array", "items": {"type": "object"}},
        ),
        own=True,
    ),
    EventType(
        SET,
        "A person was given a level by hand, below which nothing lowers before `until`.",
        payload_of("tier", "until", tier=TEXT, until=TEXT, reason=MAYBE),
        personal=("reason",),
        own=True,
    ),
    EventType(
        CLEARED, "A level given by hand was taken back before its end.", payload_of(reason=MAYBE), personal=("reason",), own=True
    ),
    EventType(
        GRANTED,
        "Growth value was given by hand.",
        payload_of("growth", growth=WHOLE, reason=MAYBE),
        personal=("reason",),
        own=True,
    ),
    EventType(
        DUE,
        "A period is over: levels are reviewed as of the day before `day`, those of the accounts up to `last` that were not yet.",
        payload_of("day", "last", day=TEXT, last=TEXT),
        without_user=True,
        own=True,
    ),
)
