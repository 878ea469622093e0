"""Requires a plugin that fails.

Outcome: it is left out as incompatible, and the other is named with its state.
State: incompatible
Reason: follower requires stumbles, which is load_error
With: stumbles
"""

from scrm.api import Contribution, hookimpl


@hookimpl
def contribute():
    return Contribution(name="follower", version="1.0", requires=["stumbles"])
