"""What the server answers beside GraphQL and the bulk door: plugins' own routes, and whether it lives and is ready."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scrm import migrate
from scrm.auth import Keys, Principal
from scrm.availability import why_unavailable
from scrm.config import ServerSettings
from scrm.db import Database, Tx
from scrm.errors import ScrmError
from scrm.events.handling import describe, is_cancelled
from scrm.events.sequencer import head
from scrm.graphql.requests import read_body
from scrm.plugin import PluginContext
from scrm.plugin import Route as PluginRoute
from scrm.plugin_set import PluginSet

log = logging.getLogger("scrm.routes")

Authorize = Callable[[Request, str], Awaitable[Principal]]
Endpoint = Callable[[Request], Awaitable[Response]]
_STATUS = {"UNAUTHENTICATED": 401, "FORBIDDEN": 403, "TOO_LARGE": 413, "UNAVAILABLE": 503}
_HEADERS = {401: {"WWW-Authenticate": 'Bearer realm="scrm"'}, 503: {"Retry-After": "1"}}
_READY_WITHIN = 5.0


class Ahead:
    """One path is answered before the routes are looked through."""

    def __init__(self, app: ASGIApp, path: str, endpoint: ASGIApp) -> None:
        self._app = app
        self._path = path
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ahead = scope["type"] == "http" and scope["path"] == self._path
        await (self._endpoint if ahead else self._app)(scope, receive, send)


def authorizer(keys: Keys) -> Authorize:
    """Lets a request with a scope pass; none of a person's token, which sees one user only."""

    async def authorize(request: Request, scope: str) -> Principal:
        principal = await keys.authenticate(request.headers.get("authorization"))
        if principal is None:
            raise ScrmError("UNAUTHENTICATED", "a key is needed; send it as Authorization: Bearer KEY")
        if not principal.has(scope):
            raise ScrmError("FORBIDDEN", f"this needs the scope {scope}", params={"scope": scope})
        if principal.user_id is not None:
            raise ScrmError("FORBIDDEN", "this is not for a token that names a user; ask with a key")
        return principal

    return authorize


def plugin_route(
    plugin: str, route: PluginRoute, context: PluginContext, authorize: Authorize, limit: int, seconds: float
) -> Route:
    """A plugin's route behind its scope, or open where the plugin checks for itself; the body has at most `limit` bytes, and the
    answer is waited for so many seconds."""
    arguments = (context,) if len(inspect.signature(route.endpoint).parameters) > 1 else ()

    async def endpoint(request: Request) -> Response:
        try:
            if not route.public:
                await authorize(request, route.scope or "*")
            given = _with_body(request, await read_body(request.receive, limit))
            async with asyncio.timeout(seconds):
                answer: object = await route.endpoint(given, *arguments)
            if not isinstance(answer, Response):
                raise TypeError(f"the endpoint returned a {type(answer).__name__}; return a Response")
            return answer
        except ScrmError as error:
            return _failure(error.code, error.message, _STATUS.get(error.code, 400))
        except ClientDisconnect:
            raise
        except BaseException as error:  # even what would end the server
            if is_cancelled(error):
                raise
            log.exception("plugin %s failed in %s %s", plugin, request.method, route.path)
            return _failure("PLUGIN_FAILED", f"plugin {plugin} could not answer; the server's log says why", 500)

    return Route(f"/plugins/{plugin}{route.path}", endpoint, methods=list(route.methods))


def _with_body(request: Request, body: bytes) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request(request.scope, receive)


def _failure(code: str, message: str, status: int) -> Response:
    return JSONResponse({"errors": [{"code": code, "message": message}]}, status, _HEADERS.get(status))


async def alive(_request: Request) -> Response:
    """The process answers."""
    return JSONResponse({"ok": True})


def readiness(db: Database, plugins: PluginSet) -> Endpoint:
    """Whether requests can be served: the database answers, no migration is pending and every plugin is well.

    Names who is not and why, and never a URL or a value.
    """
    ends: dict[str, str | None] = {}

    def tables(tx: Tx) -> list[str]:
        head(tx)
        return migrate.behind(tx.connection, ends)

    async def ready(_request: Request) -> Response:
        why: dict[str, str] = {}
        try:
            if not ends:
                ends.update(migrate.newest(plugins))
            old = await asyncio.wait_for(db.read(tables), _READY_WITHIN)
            why = dict.fromkeys(old, "its migrations are pending, or are of another version; run scrm db upgrade")
        except Exception as error:
            log.warning("not ready: the database does not answer: %s", why_unavailable(error) or describe(error))
            why = {"database": f"it does not answer within {_READY_WITHIN:g} s, or not at all"}
        if "database" not in why:
            said = await plugins.health(db)
            why |= {name: "it is not well; systemStatus says more" for name, each in said.items() if not each.ok}
        if not why:
            return JSONResponse({"ok": True})
        answer = {"ok": False, "notReady": list(why), "why": why, **({"code": "UNAVAILABLE"} if "database" in why else {})}
        return JSONResponse(answer, 503, _HEADERS[503])

    return ready


def plugin_routes(
    plugins: PluginSet, contexts: Callable[[str], PluginContext], authorize: Authorize, server: ServerSettings
) -> list[Route]:
    """The routes of every active plugin."""
    return [
        plugin_route(plugin.name, route, contexts(plugin.name), authorize, server.max_body_bytes, server.timeout_seconds)
        for plugin in plugins
        for route in plugin.contribution.routes
    ]
