"""Contributes things of the wrong types: a text for a list of texts, a path as text, a number for a name.

Outcome: it is left out with each of them.
State: load_error
Reason: requires of shapeless is 'good' (str); give a list or tuple, each text; migrations of shapeless is 'migrations' (str); give a Path or None; event_types[0].name of shapeless is 5 (int); give text; handlers[0].types of shapeless is 'order.paid' (str); give a list or tuple, each text
"""

from scrm.api import Contribution, EventType, Handler, hookimpl


@hookimpl
def contribute():
    return Contribution(
        name="shapeless",
        version="1.0",
        requires="good",
        migrations="migrations",
        event_types=[EventType(5, "A number.")],
        handlers=[Handler("order.paid", lambda tx, events, rules: None)],
    )
