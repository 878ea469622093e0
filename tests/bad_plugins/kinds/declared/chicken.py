"""Requires egg, which requires it.

Outcome: both are left out as incompatible, with the circle.
State: incompatible
Reason: plugins that come after each other in a circle: chicken → egg → chicken; break it
With: chicken egg
"""

from scrm.api import Contribution, hookimpl


@hookimpl
def contribute():
    return Contribution(name="chicken", version="1.0", requires=["egg"])
