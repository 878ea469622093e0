"""Has a command with a parameter of a type that does not exist.

Outcome: it works without its commands, and scrm says why; the help and the other commands come out.
State: active
Check: the commands of mistyping cannot be made: …
"""

from scrm.api import Command, Contribution, hookimpl


def tell(thing: "Thing") -> None:  # noqa: F821
    """Tell of a thing."""


@hookimpl
def contribute():
    return Contribution(name="mistyping", version="1.0", commands=[Command("tell", tell)])
