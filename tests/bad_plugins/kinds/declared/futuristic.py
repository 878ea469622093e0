"""Is for another version of scrm.

Outcome: it is left out as incompatible, with both versions.
State: incompatible
Reason: futuristic 1.0 needs scrm >=99; this is …
"""

from scrm.api import Contribution, hookimpl


@hookimpl
def contribute():
    return Contribution(name="futuristic", version="1.0", scrm=">=99")
