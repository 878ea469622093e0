"""Never gets through its lifespan when the server starts.

Outcome: it is waited for plugin_start_seconds; the server starts, and the plugin is degraded.
State: degraded
Reason: its lifespan failed: TimeoutError
Check: no problems
"""

import asyncio
from contextlib import asynccontextmanager

from scrm.api import Contribution, hookimpl


@hookimpl
@asynccontextmanager
async def lifespan(context):
    await asyncio.Event().wait()
    yield


@hookimpl
def contribute():
    return Contribution(name="oversleeping", version="1.0")
