"""Has a hook that wants an argument which it is not given.

Outcome: it is left out, and the hook's arguments are said.
State: load_error
Reason: hook count of misfits has the argument person, which it is not given; it takes tx, user, or fewer of them
"""

from scrm.api import Contribution, hookimpl


@hookimpl
def contribute():
    return Contribution(name="misfits", version="1.0")


@hookimpl
def count(tx, person):
    return 0
