"""Annotates a field with a type that does not exist.

Outcome: it is left out, though nothing says whose the annotation is: it is the one without whom the schema can be built.
State: load_error
Reason: the types of misannotates cannot be built: UnresolvedFieldTypeError: Could not resolve the type of 'thing'. Check that the class is accessible from the global module scope; check their annotations
"""

from __future__ import annotations

from scrm.api import Contribution, User, expression, extend, hookimpl


@extend(User, scope="users:read")
class More:
    thing: Thingummy | None = expression("A thing.", lambda user: user.c.id)  # noqa: F821


@hookimpl
def contribute():
    return Contribution(name="misannotates", version="1.0", extends=[More])
