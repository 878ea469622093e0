"""The GraphQL endpoint: strawberry's view made spec-clean, with coded errors and bytes that are not decoded twice."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from cross_web import HTTPException
from graphql import GraphQLError, GraphQLSyntaxError
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.http import GraphQLHTTPResponse
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types.execution import ExecutionResult, PreExecutionError

from scrm.auth import Keys, Principal
from scrm.db import new_id
from scrm.errors import ScrmError
from scrm.graphql.context import Context, Services
from scrm.graphql.plans import Plans
from scrm.graphql.schema import Frozen

log = logging.getLogger("scrm.graphql")
LANGUAGES = ("zh-CN", "en")


class GraphQLEndpoint(GraphQL[Context, None]):
    """`POST /graphql`, GraphiQL on `GET`, subscriptions over graphql-transport-ws and server-sent events."""

    def __init__(self, frozen: Frozen, services: Services, keys: Keys, ide_html: str | None) -> None:
        super().__init__(
            frozen.schema,
            graphql_ide="graphiql" if ide_html else None,
            allow_queries_via_get=False,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_SSE_PROTOCOL),
        )
        self.services = services
        self.keys = keys
        self.plans = Plans(frozen.model, services.db.sql_dialect)
        self._ide_html = ide_html

    async def get_context(self, request: Request | WebSocket, response: Any) -> Context:
        language = negotiate(request.headers.get("accept-language", ""), self.services.settings.language)
        context = Context(self.services, self.plans, self.services.db.clock(), language, None)
        if isinstance(request, Request):
            if request.method == "POST":
                request.state.context = context
                context.principal = await self.authenticate(request.headers.get("authorization"))
        return context

    async def authenticate(self, authorization: str | None) -> Principal:
        """Who asks.

        Raises:
            ScrmError: UNAUTHENTICATED.
        """
        principal = await self.keys.authenticate(authorization)
        if principal is None:
            raise ScrmError("UNAUTHENTICATED", "a valid key is needed; send it as Authorization: Bearer KEY")
        return principal

    async def on_ws_connect(self, context: Context) -> Any:
        given = (context.connection_params or {}).get("Authorization") or (context.connection_params or {}).get("authorization")
        context.principal = await self.authenticate(given if isinstance(given, str) else None)
        return await super().on_ws_connect(context)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self.run(request)
        except ScrmError as error:
            response = refusal(error)
        except HTTPException as error:
            response = failure(error.status_code, "BAD_REQUEST", error.reason)
        finally:
            context = getattr(request.state, "context", None)
            if context is not None:
                await context.reads.close()
        await response(scope, receive, send)

    async def render_graphql_ide(self, request: Request) -> Response:
        return Response(self._ide_html, media_type="text/html")

    async def process_result(self, request: Request, result: ExecutionResult, strict: bool = False) -> GraphQLHTTPResponse:
        body: dict[str, Any] = {}
        if result.errors:
            body["errors"] = [present(error) for error in result.errors]
        if not isinstance(result, PreExecutionError):
            body["data"] = result.data
        if result.extensions:
            body["extensions"] = result.extensions
        return body  # type: ignore[return-value]

    def encode_json(self, data: object) -> bytes:
        return orjson.dumps(data, option=orjson.OPT_NON_STR_KEYS)

    def create_response(self, response_data: Any, sub_response: Response) -> Response:
        response = super().create_response(response_data, sub_response)
        if isinstance(response_data, Mapping) and "data" not in response_data:
            response.status_code = 400
        return response


def refusal(error: ScrmError) -> Response:
    """A ScrmError as an answer before anything was executed."""
    status = {"UNAUTHENTICATED": 401, "FORBIDDEN": 403}.get(error.code, 400)
    response = failure(status, error.code, error.message)
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="scrm"'
    return response


def failure(status: int, code: str, message: str) -> Response:
    """A GraphQL error without data."""
    body = {"errors": [{"message": message, "extensions": {"code": code}}]}
    return Response(orjson.dumps(body), status, media_type="application/json")


def present(error: GraphQLError) -> dict[str, Any]:
    """An error as the caller sees it: coded if it is the caller's, masked with an `errorId` if it is ours."""
    shown: dict[str, Any] = {"message": error.message}
    if error.locations:
        shown["locations"] = [{"line": location.line, "column": location.column} for location in error.locations]
    if error.path:
        shown["path"] = list(error.path)
    original = error.original_error
    if isinstance(original, ScrmError):
        shown["extensions"] = {"code": original.code, **({"params": original.params} if original.params else {})}
    elif isinstance(error, GraphQLSyntaxError):
        shown["extensions"] = {"code": "GRAPHQL_PARSE_FAILED"}
    elif original is None or isinstance(original, GraphQLError):
        shown["extensions"] = {"code": "GRAPHQL_VALIDATION_FAILED", **(error.extensions or {})}
    else:
        error_id = new_id().hex
        log.error("request failed, errorId %s", error_id, exc_info=original)
        shown["message"] = "something went wrong here; tell the operator the errorId"
        shown["extensions"] = {"code": "INTERNAL", "errorId": error_id}
    return shown


def negotiate(header: str, default: str) -> str:
    """The caller's language among those the server has words in."""
    for part in header.split(","):
        said = part.split(";")[0].strip().lower()
        for language in LANGUAGES:
            if said and (language.lower() == said or language.lower().split("-")[0] == said.split("-")[0]):
                return language
    return default

