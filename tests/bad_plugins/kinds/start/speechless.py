"""Raises, while it is imported, what cannot even be put into words: asked for them, it tries to end the process.

Outcome: it is left out with the error's name; nothing ends.
State: load_error
Reason: speechless cannot be imported: UnspeakableError: its words cannot be read, because that raises SystemExit
"""


class UnspeakableError(BaseException):
    def __str__(self):
        raise SystemExit(9)


raise UnspeakableError
