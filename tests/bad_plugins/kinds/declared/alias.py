"""Calls itself by another name.

Outcome: it is left out, and both names are said.
State: load_error
Reason: alias calls itself 'somebody' in its Contribution; use one name
"""

from scrm.api import Contribution, hookimpl


@hookimpl
def contribute():
    return Contribution(name="somebody", version="1.0")
