"""Prints while it is imported, and writes past Python too.

Outcome: it works, and what it says goes to standard error: answers on standard output stay clean.
State: active
Check: no problems
"""

import os

from scrm.api import Contribution, hookimpl

print("a banner of prints")
os.write(1, b"a line of prints past Python\n")


@hookimpl
def contribute():
    print("contributing")
    return Contribution(name="prints", version="1.0")
