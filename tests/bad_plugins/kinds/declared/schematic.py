"""Registers an event type with a payload that nothing can be checked against.

Outcome: it is left out: recording such an event would have failed for everybody.
State: load_error
Reason: event type schematic.drawn of schematic: payload.type is 'objekt' (str); give one or several of …; event type schematic.drawn of schematic: payload.required is 'title' (str); give a list of names; event type schematic.drawn of schematic: payload.size.minimum is 'small' (str); give a number
"""

from scrm.api import Contribution, EventType, hookimpl

PAYLOAD = {"type": "objekt", "required": "title", "properties": {"size": {"minimum": "small"}}}


@hookimpl
def contribute():
    return Contribution(name="schematic", version="1.0", event_types=[EventType("schematic.drawn", "Drawn.", PAYLOAD)])
