"""Fields that Python resolves: queries that no table answers, mutations, subscriptions. Each says its scope.

No row filter stands between these and a person whose token names a user, so such a caller is refused unless the field says
`self_service=True`: it answers with `ref`s or what is no secret, follows the log, and finds users with `context.user`.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import strawberry

from scrm.errors import ScrmError, UserError, name_of
from scrm.graphql.scalars import JSON
from scrm.graphql.sources import KEY, ResolverSource

REFUSALS = ("FORBIDDEN", "UNAUTHENTICATED", "UNAVAILABLE")


@strawberry.type(name="UserError", description="Something the caller can mend.")
class UserErrorType:
    code: str = strawberry.field(description="Stable code in UPPER_SNAKE_CASE.")
    message: str = strawberry.field(description="What is wrong and the way out, in words.")
    path: list[str] | None = strawberry.field(description="Where in the input, as field names and indexes.", default=None)
    params: JSON | None = strawberry.field(description="The values in play.", default=None)


def as_graphql(error: UserError) -> UserErrorType:
    """A UserError as the schema shows it."""
    params = JSON(dict(error.params)) if error.params else None
    return UserErrorType(code=error.code, message=error.message, path=list(error.path) or None, params=params)


def errors_field() -> Any:
    """The `errors` of a payload."""
    return strawberry.field(description="What the caller can mend; empty when all went well.", default_factory=list)


def _metadata(scope: str, weight: int, self_service: bool) -> dict[Any, Any]:
    return {KEY: ResolverSource(scope=scope, weight=weight, self_service=self_service)}


def query(description: str, *, scope: str, weight: int = 1, self_service: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """A field of Query that Python answers."""

    def decorate(function: Callable[..., Any]) -> Any:
        return strawberry.field(resolver=function, description=description, metadata=_metadata(scope, weight, self_service))

    return decorate


def field(description: str, *, scope: str | None = None, weight: int = 1) -> Callable[[Callable[..., Any]], Any]:
    """A field, of a type that Python makes, which Python answers too; with a scope if it needs one of its own."""

    def decorate(function: Callable[..., Any]) -> Any:
        metadata = {KEY: ResolverSource(scope=scope, weight=weight, self_service=True)}
        return strawberry.field(resolver=function, description=description, metadata=metadata)

    return decorate


def mutation(
    description: str, *, scope: str, weight: int = 10, self_service: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """A mutation. A `ScrmError` that it raises becomes its payload's `errors`, so the payload's other fields have defaults."""

    def decorate(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        async def resolve(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            except ScrmError as error:
                if error.code in REFUSALS:
                    raise
                return _payload(function)(errors=[as_graphql(error.as_user_error())])

        metadata = _metadata(scope, weight, self_service)
        made = strawberry.mutation(resolver=resolve, description=description, metadata=metadata)
        for argument in made.arguments:
            argument.description = argument.description or "What to do."
        return made

    return decorate


@functools.lru_cache(maxsize=512)
def _payload(function: Callable[..., Any]) -> Any:
    returns = typing.get_type_hints(function)["return"]
    options = [option for option in typing.get_args(returns) if option is not type(None)] or [returns]
    return options[0]


def subscription(
    description: str, *, scope: str, weight: int = 10, self_service: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """A subscription: an async generator."""

    def decorate(function: Callable[..., Any]) -> Any:
        if not inspect.isasyncgenfunction(function):
            raise TypeError(f"the subscription {function.__qualname__} is not an async generator")

        @functools.wraps(function)
        async def follow(*args: Any, **kwargs: Any) -> Any:
            info = next(each for each in (*args, *kwargs.values()) if isinstance(each, strawberry.Info))
            info.context.require(scope, f"Subscription.{info.field_name}", self_service=self_service)
            async with aclosing(function(*args, **kwargs)) as events:
                try:
                    async for event in events:
                        await info.context.renew_when_due()
                        yield event
                except (SystemExit, KeyboardInterrupt) as error:  # it ends itself, not the server
                    raise RuntimeError(f"the subscription {info.field_name} raised {name_of(error)}") from error

        metadata = _metadata(scope, weight, self_service)
        return strawberry.subscription(resolver=follow, description=description, metadata=metadata)

    return decorate
