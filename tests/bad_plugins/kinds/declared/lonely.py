"""Requires a plugin that is not there.

Outcome: it is left out as incompatible, and the other is named.
State: incompatible
Reason: lonely requires company, which is not installed
"""

from scrm.api import Contribution, hookimpl


@hookimpl
def contribute():
    return Contribution(name="lonely", version="1.0", requires=["company"])
