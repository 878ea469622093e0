"""Announces what it reads, and reads it again, without end.

Outcome: the chain ends at announcement_depth, and its last event is set aside; nobody else notices.
State: active
Failures: RETRYING ANNOUNCEMENT_TOO_DEEP…
Check: warning: event type echoing.heard, which echoing uses, is registered by nobody; check its spelling
"""

from scrm.api import Announcement, Contribution, Handler, hookimpl


def handle(tx, events, rules):
    for event in events:
        if event.properties.get("orderId") == "poison" or event.type == "echoing.heard":
            tx.announce(Announcement("echoing.heard", event, event.user_id, {}))


@hookimpl
def contribute():
    return Contribution(name="echoing", version="1.0", handlers=[Handler(("order.paid", "echoing.heard"), handle)])
