"""Forgets to mark a hook.

Outcome: it is left out, and the way out is said.
State: load_error
Reason: unmarked.erase is not marked as a hook; put @hookimpl above it
"""

from scrm.api import Contribution, hookimpl


@hookimpl
def contribute():
    return Contribution(name="unmarked", version="1.0")


def erase(tx, user):
    pass
