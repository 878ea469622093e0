"""Raises while it is imported.

Outcome: it is left out with what it raised.
State: load_error
Reason: raises cannot be imported: RuntimeError: no luck
"""

raise RuntimeError("no luck")
