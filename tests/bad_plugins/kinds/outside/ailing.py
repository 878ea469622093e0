"""Says nonsense when it is asked how it is.

Outcome: it is not well, and the others' health comes out.
State: active
Check: no problems
"""

from scrm.api import Contribution, hookimpl


@hookimpl
def health(context):
    return "splendid"


@hookimpl
def contribute():
    return Contribution(name="ailing", version="1.0")
