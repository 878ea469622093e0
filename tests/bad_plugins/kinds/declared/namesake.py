"""Has a setting, a route, a job and a deliverer that are called as another plugin's.

Outcome: it works: these names lie under the plugin's own, so they collide with nothing.
State: active
Check: no problems
"""

from datetime import timedelta

from starlette.responses import PlainTextResponse

from scrm.api import Contribution, Deliverer, Job, Route, Wiring, hookimpl


class NamesakeWiring(Wiring):
    greeting: str = "the other one"


async def greet(request, context):
    return PlainTextResponse(context.wiring.greeting)


async def deliver(payload, wiring):
    pass


def run(tx, due, rules):
    return []


@hookimpl
def contribute():
    return Contribution(
        name="namesake",
        version="1.0",
        wiring=NamesakeWiring,
        routes=[Route("/greet", ("GET",), greet, public=True)],
        jobs=[Job("nightly", timedelta(days=1), run)],
        deliverers=[Deliverer("mail", deliver)],
    )
