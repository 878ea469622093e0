"""Has a list that may be a million rows long.

Outcome: it is left out, and the largest list is said.
State: load_error
Reason: field User.hoard of hoards has cap=1000000; a list has 1000 items at most, so make it a connection
"""

from scrm.api import Contribution, User, extend, hookimpl, many


@extend(User, scope="users:read")
class More:
    hoard: list[User] | None = many("Everybody.", lambda user, other: other.c.id == other.c.id, cap=1_000_000)


@hookimpl
def contribute():
    return Contribution(name="hoards", version="1.0", extends=[More])
