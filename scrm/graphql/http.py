"""The GraphQL endpoint: strawberry's view made spec-clean, with coded errors and bytes that are not decoded twice."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any

import orjson
from cross_web import HTTPException, StarletteRequestAdapter
from graphql import GraphQLError, OperationType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.http import GraphQLHTTPResponse, GraphQLRequestData
from strawberry.http.parse_content_type import parse_content_type
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types.execution import ExecutionResult, PreExecutionError

from scrm.auth import Keys, Principal
from scrm.errors import ScrmError, UnavailableError
from scrm.graphql.context import Context, Services
from scrm.graphql.errors import INTERNAL, UNAVAILABLE, present
from scrm.graphql.gate import Gate
from scrm.graphql.plans import Plans
from scrm.graphql.refusals import refusal
from scrm.graphql.requests import Asked, check_request, headers, read_body, read_parameters, read_request
from scrm.graphql.schema import Frozen
from scrm.graphql.shortcut import Shortcut
from scrm.graphql.sockets import SocketHandler, Streams, TextSocket

LANGUAGES = ("zh-CN", "en")
JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"
STREAM = "text/event-stream"
IDENTITY = "identity"
SPOKEN = frozenset({"GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"})
"""Errors that a caller who asks for `application/json` by name gets with 200, as such callers expect since before there was a
type of its own."""
_KINDS = {kind: (b"content-type", kind.encode()) for kind in (JSON, GRAPHQL_JSON)}


class Answered:
    """An answer's bytes on their way."""

    def __init__(self, body: bytes, kind: str) -> None:
        size = b"%d" % len(body)
        self._start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", size), _KINDS[kind]]}
        self._body = {"type": "http.response.body", "body": body}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(self._start)
        await send(self._body)


class Adapter(StarletteRequestAdapter):
    """A request as strawberry reads it, with starlette's own at hand."""

    @property
    def request(self) -> Request:
        """Starlette's request."""
        return self._request


class GraphQLEndpoint(GraphQL[Context, None]):
    """`POST /graphql`, queries and GraphiQL on `GET`, subscriptions over graphql-transport-ws and server-sent events."""

    request_adapter_class = Adapter
    websocket_adapter_class = TextSocket
    graphql_transport_ws_handler_class = SocketHandler

    def __init__(self, frozen: Frozen, services: Services, keys: Keys, ide_html: str | None) -> None:
        server = services.settings.server
        super().__init__(
            frozen.schema,
            graphql_ide="graphiql" if ide_html else None,
            allow_queries_via_get=True,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_SSE_PROTOCOL),
            connection_init_wait_timeout=timedelta(seconds=server.init_timeout_seconds),
            max_subscriptions_per_connection=server.max_operations,
        )
        self.services = services
        self.keys = keys
        self.plans = Plans(frozen.model, services.db.sql_dialect)
        self.gate = Gate(frozen.model, server)
        self.streams = Streams(server.max_streams, server.send_timeout_seconds)
        self.shortcut = Shortcut(self.plans, self.gate)
        self._ide_html = ide_html

    async def get_context(self, request: Request | WebSocket, response: Any) -> Context:
        """Of a socket; a request brings its own."""
        return self._context(request.headers.get("accept-language", ""))

    def _context(self, languages: str) -> Context:
        services = self.services
        language = negotiate(languages, services.settings.language)
        return Context(services, self.plans, self.gate, services.db.clock(), language, None)

    async def _admit(self, context: Context, authorization: str | None) -> None:
        context.who = partial(self.authenticate, authorization)
        context.principal = await self.authenticate(authorization)

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
        said = {name.lower(): value for name, value in (context.connection_params or {}).items()}
        given = said.get("authorization")
        try:
            await self._admit(context, given if isinstance(given, str) else None)
        except UnavailableError:
            raise
        except ScrmError:
            raise ConnectionRejectionError from None
        return await super().on_ws_connect(context)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.streams.socket(super().__call__, scope, receive, send)
            return
        said = headers(scope)
        context = self._context(said.get("accept-language", ""))
        request = Request(scope, receive)
        try:
            answer = await self._answer(request, said, context)
        except ClientDisconnect:
            return
        finally:
            await context.reads.close()
        if isinstance(answer, StreamingResponse):
            await self.streams.response(answer, scope, receive, send)
        else:
            await answer(scope, receive, send)

    async def _answer(self, request: Request, said: Mapping[str, str], context: Context) -> ASGIApp:
        seconds = self.services.settings.server.timeout_seconds
        try:
            method = request.method
            if method not in ("POST", "GET"):
                raise ScrmError("METHOD_NOT_ALLOWED", f"{method} is not answered here; send a POST")
            if method == "GET" and "query" not in request.query_params:
                if self._ide_html is None or not self.should_render_graphql_ide(Adapter(request)):
                    raise ScrmError("METHOD_NOT_ALLOWED", "a GET without a query is not answered here; send a POST")
                return Response(self._ide_html, media_type="text/html")
            async with asyncio.timeout(seconds):
                return await self._asked(request, said, context)
        except ScrmError as error:
            return refusal(error)
        except TimeoutError:
            self.plans.suspect(context)
            return refusal(ScrmError("TIMEOUT", f"the answer took longer than {seconds:g} s; ask for less, or ask again"), 503)
        except HTTPException as error:
            return refusal(ScrmError("BAD_REQUEST", error.reason), error.status_code)

    async def _asked(self, request: Request, said: Mapping[str, str], context: Context) -> ASGIApp:
        await self._admit(context, said.get("authorization"))
        settings, schema = self.services.settings.server, self.plans.model.schema
        if request.method == "POST":
            _check_type(said.get("content-type"))
            _check_encoding(said.get("content-encoding", IDENTITY))
            body = await read_body(request.receive, settings.max_body_bytes)
            asked = read_request(body, schema, settings.limits)
        else:
            asked = check_request(read_parameters(request.query_params), schema, settings.limits)
            self._check_reads(asked)
        accept = said.get("accept", "")
        if STREAM in accept:
            self.streams.admit()
        elif (answer := await self.shortcut.answer(context, asked)) is not None:
            return Answered(answer, GRAPHQL_JSON if GRAPHQL_JSON in accept else JSON)
        request.state.asked = asked
        return await self.run(request, context=context)

    def _check_reads(self, asked: Asked) -> None:
        """A GET is repeated, cached and followed by anybody; it changes nothing and follows nothing."""
        try:
            operation = self.gate.documents.read(asked.query).operation(asked.operation_name)
        except (ScrmError, GraphQLError):
            return  # said better on the long way
        if operation is not None and operation.operation is not OperationType.QUERY:
            raise ScrmError("METHOD_NOT_ALLOWED", f"a {operation.operation.value} is not answered to a GET; send a POST")

    async def parse_http_body(self, request: Any) -> GraphQLRequestData:
        raw: Request = request.request
        asked: Asked = raw.state.asked
        transport = self._get_stream_transport_from_headers(request.headers)
        accept = raw.headers.get("accept", "")
        raw.state.accepts = transport is None and GRAPHQL_JSON in accept
        raw.state.plain = not raw.state.accepts and JSON in accept
        return GraphQLRequestData(
            query=asked.query,
            variables=asked.variables,
            operation_name=asked.operation_name,
            extensions=asked.extensions,
            protocol=transport.protocol if transport is not None else "http",
        )

    async def process_result(self, request: Request, result: ExecutionResult, strict: bool = False) -> GraphQLHTTPResponse:
        body: dict[str, Any] = {}
        if result.errors:
            body["errors"] = [present(error) for error in result.errors]
        if not refused(result) and not unanswered(result):
            body["data"] = result.data
        if result.extensions:
            body["extensions"] = result.extensions
        return body  # type: ignore[return-value]

    async def get_sub_response(self, request: Request | WebSocket) -> Response:
        response = await super().get_sub_response(request)
        if isinstance(request, Request):
            response.background = None
            request.state.accepts = request.state.plain = False
            response.request = request  # type: ignore[attr-defined]
        return response

    def decode_json(self, data: str | bytes) -> object:
        return orjson.loads(data)

    def encode_json(self, data: object) -> bytes:
        return orjson.dumps(data, option=orjson.OPT_NON_STR_KEYS)

    def create_response(self, response_data: Any, sub_response: Response) -> Response:
        request: Request = sub_response.request  # type: ignore[attr-defined]
        kind = GRAPHQL_JSON if request.state.accepts else JSON
        status, headers = 200, None
        if isinstance(response_data, Mapping) and "data" not in response_data:
            said = {error["extensions"]["code"]: error["extensions"] for error in response_data["errors"]}
            status = 500 if INTERNAL in said else 200 if request.state.plain and SPOKEN.issuperset(said) else 400
            if UNAVAILABLE in said:
                status, headers = 503, {"Retry-After": "1"}
            elif throttled := said.get("THROTTLED"):
                status, headers = 429, {"Retry-After": str(math.ceil(throttled["params"]["retryAfterSeconds"]))}
        return Response(self.encode_json(response_data), status, headers, media_type=kind)


@lru_cache(maxsize=100)
def _check_type(given: str | None) -> None:
    kind, parameters = parse_content_type(given or "application/octet-stream")
    if kind.lower() != JSON or parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise ScrmError("UNSUPPORTED_MEDIA_TYPE", f"the Content-Type is {given!r}; send {JSON} in UTF-8")


def _check_encoding(given: str) -> None:
    if given != IDENTITY and given.strip().lower() != IDENTITY:
        raise ScrmError("UNSUPPORTED_ENCODING", f"the Content-Encoding is {given[:80]!r}; send the body as it is")


def refused(result: ExecutionResult) -> bool:
    """Whether nothing was executed: what is wrong is the request, and an answer has no data, not even null."""
    if isinstance(result, PreExecutionError):
        return True
    return result.data is None and bool(result.errors) and not any(error.path for error in result.errors or ())


def unanswered(result: ExecutionResult) -> bool:
    """Whether the database was away, and nothing came out."""
    away = any(isinstance(error.original_error, UnavailableError) for error in result.errors or ())
    return away and all(value is None for value in (result.data or {}).values())


@lru_cache(maxsize=1_000)
def negotiate(header: str, default: str) -> str:
    """The caller's language among those the server has words in: the highest weight, then the first said."""
    wanted: list[tuple[float, str]] = []
    for part in header.split(","):
        said, _, weight = part.partition(";")
        wanted.append((_weight(weight), said.strip().lower()))
    for value, name in sorted(wanted, key=lambda each: -each[0]):
        for language in LANGUAGES:
            if name and value > 0 and language.lower().split("-")[0] == name.split("-")[0]:
                return language
    return default


def _weight(said: str) -> float:
    name, _, value = said.strip().partition("=")
    try:
        return float(value) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0
