"""Tries to end the server when it is asked how it is.

Outcome: it is not well, and the others' health comes out.
State: active
Check: no problems
"""

from scrm.api import Contribution, hookimpl


@hookimpl
async def health(context):
    raise SystemExit(0)


@hookimpl
def contribute():
    return Contribution(name="fainting", version="1.0")
