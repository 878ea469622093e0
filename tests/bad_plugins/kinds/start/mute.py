"""Raises in contribute() what raises again when it is asked for its words.

Outcome: it is left out with the error's name.
State: load_error
Reason: mute cannot be imported: MuteError: its words cannot be read, because that raises RuntimeError
"""

from scrm.api import hookimpl


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("nor these")


@hookimpl
def contribute():
    raise MuteError
