"""Has an async hook where nobody would wait for it.

Outcome: it is left out: it would do nothing, without a word.
State: load_error
Reason: hook merge of awaits must be a plain function, not an async function
"""

from scrm.api import Contribution, hookimpl


@hookimpl
def contribute():
    return Contribution(name="awaits", version="1.0")


@hookimpl
async def merge(tx, kept, absorbed):
    return 0
