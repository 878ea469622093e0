"""Raises in its lifespan when the server starts.

Outcome: the server starts; the plugin is degraded with what it raised.
State: degraded
Reason: its lifespan failed: ConnectionRefusedError
Check: no problems
"""

from contextlib import asynccontextmanager

from scrm.api import Contribution, hookimpl


@hookimpl
@asynccontextmanager
async def lifespan(context):
    raise ConnectionRefusedError("nobody there")
    yield


@hookimpl
def contribute():
    return Contribution(name="stillborn", version="1.0")
