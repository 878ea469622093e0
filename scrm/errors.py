"""What can go wrong, and whose turn it is to mend it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class UserError:
    """One thing the caller can mend: a stable code, words, the input's path, and the values in play."""

    code: str
    message: str
    path: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)


class ScrmError(Exception):
    """The caller's fault: carries a code, a message and the path of the input it speaks of.

    In a mutation it becomes an entry of the payload's `errors`; elsewhere a top-level error with `extensions.code`.
    """

    def __init__(self, code: str, message: str, *, path: Sequence[str] = (), params: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = tuple(path)
        self.params = dict(params or {})

    def as_user_error(self) -> UserError:
        """The same as an entry of a payload's `errors`."""
        return UserError(self.code, self.message, self.path, self.params)


class UnavailableError(ScrmError):
    """The database cannot be reached now, or has no room, no connection or no lock to give; the cause says which."""

    def __init__(self) -> None:
        said = "the database cannot be used now; ask again in a moment, and for a change with the same key: it may have been made"
        super().__init__("UNAVAILABLE", said)


class StartupError(Exception):
    """The admin's or a plugin author's fault: every problem at once, one line each; the CLI prints them and exits with 2."""

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class PluginFailedError(Exception):
    """A plugin's code raised where the host called it; the host answers for the rest."""

    def __init__(self, plugin: str, what: str) -> None:
        super().__init__(f"plugin {plugin} failed in {what}")
        self.plugin = plugin


def name_of(error: BaseException) -> str:
    """The name of an error's class, whatever that class says of itself."""
    return str.__str__(type.__dict__["__name__"].__get__(type(error)))


def words_of(error: BaseException) -> str:
    """The first line of what an error says of itself. Somebody else's code writes that, so whatever it does is survived."""
    try:
        said = str.__str__(str(error)).strip()
    except BaseException as failed:
        return f"its words cannot be read, because that raises {name_of(failed)}"
    return said.splitlines()[0] if said else "no message"


def is_readable(error: BaseException) -> bool:
    """Whether asking an error what it says gives words."""
    try:
        return isinstance(str(getattr(error, "message", error)), str)
    except BaseException:
        return False
