"""Announces that a person was erased, which only the core can say.

Outcome: it is refused, and that is its failure; nobody is erased.
State: degraded
Reason: 20 events failed in a row; the last, … at …: PermissionError in …
Check: no problems
"""

from scrm.api import Announcement, Contribution, Handler, hookimpl


def handle(tx, events, rules):
    for event in events:
        said = {"user": event.user_id.hex, "pseudonym": event.user_id.hex}
        tx.announce(Announcement("user.erased", event, event.user_id, said))


@hookimpl
def contribute():
    return Contribution(name="forging", version="1.0", handlers=[Handler(("order.paid",), handle)])
