"""Raises in contribute().

Outcome: it is left out with what it raised.
State: load_error
Reason: stumbles cannot be imported: ZeroDivisionError: division by zero
"""

from scrm.api import hookimpl


@hookimpl
def contribute():
    return 1 / 0
