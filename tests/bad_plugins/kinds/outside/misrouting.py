"""Has routes that raise, try to end the server, answer nothing, and never answer.

Outcome: each is answered with 500 and PLUGIN_FAILED, the last when the request's time is over; the server goes on.
State: active
Check: no problems
"""

import asyncio

from scrm.api import Contribution, Route, hookimpl


async def raises(request):
    raise RuntimeError("a person's name")


async def exits(request):
    raise SystemExit(0)


async def babbles(request):
    return {"no": "response"}


async def stalls(request):
    await asyncio.Event().wait()


@hookimpl
def contribute():
    return Contribution(
        name="misrouting",
        version="1.0",
        routes=[
            Route("/raise", ("GET",), raises, public=True),
            Route("/exit", ("GET",), exits, public=True),
            Route("/babble", ("GET",), babbles, public=True),
            Route("/stall", ("GET",), stalls, public=True),
        ],
    )
