"""Calls itself without end while it is imported.

Outcome: Python ends the recursion, and that is its failure.
State: load_error
Reason: recurses cannot be imported: RecursionError: maximum recursion depth exceeded…
"""


def call():
    return call()


call()
