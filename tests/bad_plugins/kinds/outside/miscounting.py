"""Raises when it is asked how many rows hang on a person, and answers an export with what JSON cannot hold.

Outcome: it is left out of the counts, and the merge goes on; an export fails whole, because it may lack nothing, and names it.
State: active
Check: no problems
"""

from scrm.api import Contribution, hookimpl


@hookimpl
def count(tx, user):
    raise RuntimeError("lost count")


@hookimpl
def export(tx, user):
    return {"things": {1, 2}}


@hookimpl
def contribute():
    return Contribution(name="miscounting", version="1.0")
