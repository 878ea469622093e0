"""Raises in its lifespan when the server ends.

Outcome: a line in the log; the others' lifespans end as they should.
State: active
Check: no problems
"""

from contextlib import asynccontextmanager

from scrm.api import Contribution, hookimpl


@hookimpl
@asynccontextmanager
async def lifespan(context):
    yield
    raise SystemExit(0)


@hookimpl
def contribute():
    return Contribution(name="sulking", version="1.0")
