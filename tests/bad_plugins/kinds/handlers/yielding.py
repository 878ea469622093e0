"""Has a handler that is a generator, and so would do nothing.

Outcome: it is left out.
State: load_error
Reason: handler handle of yielding must be a plain function, not a generator
"""

from scrm.api import Contribution, Handler, hookimpl


def handle(tx, events, rules):
    yield from events


@hookimpl
def contribute():
    return Contribution(name="yielding", version="1.0", handlers=[Handler(("order.paid",), handle)])
