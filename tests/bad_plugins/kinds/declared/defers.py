"""Has an async contribute().

Outcome: it is left out, and what it returned is said.
State: load_error
Reason: contribute() of defers returned a coroutine; return a Contribution
"""

from scrm.api import Contribution, hookimpl


@hookimpl
async def contribute():
    return Contribution(name="defers", version="1.0")
