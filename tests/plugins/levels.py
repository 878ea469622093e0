"""A partner's plugin that says what the points of a member are multiplied by, whenever its own event says so."""

from __future__ import annotations

from collections.abc import Sequence

from scrm.api import Announcement, Contribution, EventType, Handler, HandlerTx, LogEvent, NoRules, hookimpl


def follow(tx: HandlerTx, batch: Sequence[LogEvent], rules: NoRules) -> None:
    """Announce each."""
    for event in batch:
        tx.announce(Announcement("tier.changed", event, event.user_id, event.properties))


@hookimpl
def contribute() -> Contribution:
    """One event type read, one announced."""
    said = EventType("level.set", "A member has another level."), EventType("tier.changed", "The same, for others.", own=True)
    return Contribution(name="levels", version="1.0", event_types=said, handlers=[Handler(("level.set",), follow)])
