"""Returns something else than a Contribution.

Outcome: it is left out, and what it returned is said.
State: load_error
Reason: contribute() of babbles returned a dict; return a Contribution
"""

from scrm.api import hookimpl


@hookimpl
def contribute():
    return {"name": "babbles"}
