"""Misspells a hook.

Outcome: it is left out, and the nearest name is said.
State: load_error
Reason: hook exprot of misspelt is unknown; did you mean export?
"""

from scrm.api import Contribution, hookimpl


@hookimpl
def contribute():
    return Contribution(name="misspelt", version="1.0")


@hookimpl
def exprot(tx, user):
    return {}
