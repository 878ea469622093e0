"""Subscriptions over WebSocket: strawberry's graphql-transport-ws with text frames, coded errors and checked requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from graphql import GraphQLError
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.subscriptions.protocols.graphql_transport_ws.types import ConnectionInitMessage, SubscribeMessage
from strawberry.types.execution import ExecutionResult, PreExecutionError

from scrm.errors import ScrmError, UnavailableError
from scrm.graphql.context import Context
from scrm.graphql.errors import presented
from scrm.graphql.refusals import refusal
from scrm.graphql.requests import check_request

log = logging.getLogger("scrm.graphql")

TRY_AGAIN_LATER = 1013
"""The close code after which clients connect again by themselves."""


class Streams:
    """The sockets and event streams that are open: so many at most, and none whose reader does not read."""

    def __init__(self, most: int, seconds: float) -> None:
        self.open = 0
        self._most = most
        self._seconds = seconds

    def admit(self) -> None:
        """Whether there is room for one more.

        Raises:
            ScrmError: TOO_MANY_STREAMS.
        """
        if self.open >= self._most:
            said = f"the server follows {self._most} subscribers, which is as many as it may; try again later"
            raise ScrmError("TOO_MANY_STREAMS", said, params={"limit": self._most})

    async def socket(self, serve: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket, or refuse it."""
        try:
            self.admit()
        except ScrmError as error:
            await WebSocket(scope, receive, send).send_denial_response(refusal(error))
            return
        with self._one():
            await serve(scope, receive, self._timely(send))

    async def response(self, response: StreamingResponse, scope: Scope, receive: Receive, send: Send) -> None:
        """Send an event stream, unless others have taken the last places since it was admitted."""
        try:
            self.admit()
        except ScrmError as error:
            await refusal(error)(scope, receive, send)
            return
        with self._one():
            await response(scope, receive, self._timely(send))

    @contextmanager
    def _one(self) -> Iterator[None]:
        self.open += 1
        try:
            yield
        except TimeoutError:
            log.warning("a subscriber left what it was sent unread for %g s and was cut off", self._seconds)
        finally:
            self.open -= 1

    def _timely(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            async with asyncio.timeout(self._seconds):
                await send(message)

        return sent


class TextSocket(ASGIWebSocketAdapter):
    """Sends JSON as text: browsers hand a binary frame over as a blob that no client reads."""

    async def send_json(self, message: Mapping[str, object]) -> None:
        try:
            await self.ws.send_text(self.view.encode_json_string(message))
        except (WebSocketDisconnect, RuntimeError) as error:
            raise WebSocketDisconnected from error


class SocketHandler(BaseGraphQLTransportWSHandler[Context, None]):
    """One connection."""

    async def handle_message(self, message: Any) -> None:
        if not isinstance(message, dict) or not all(isinstance(message.get(name, ""), str) for name in ("type", "id")):
            await self.handle_invalid_message("a message is a JSON object with a type and an id as text")
            return
        await super().handle_message(message)  # type: ignore[arg-type]

    @staticmethod
    def _get_pre_execution_close_reason(error: GraphQLError) -> str | None:
        """What is wrong with one operation is told of it; the others of the connection go on."""
        return None

    async def handle_connection_init(self, message: ConnectionInitMessage) -> None:
        try:
            await super().handle_connection_init(message)
        except UnavailableError as error:
            await self.websocket.close(code=TRY_AGAIN_LATER, reason=error.code)

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        if self.connection_acknowledged and message["id"] not in self.operations:
            try:
                if len(self.operations) >= self.context.gate.settings.max_operations:
                    raise ScrmError(
                        "TOO_MANY_STREAMS", f"the connection follows {len(self.operations)} things; complete one first"
                    )
                await self.context.renew()
                limits = self.context.gate.settings.limits
                asked = check_request(message["payload"], self.context.plans.model.schema, limits)
            except ScrmError as error:
                refused = GraphQLError(error.message, original_error=error)
                await self.send_message({"id": message["id"], "type": "error", "payload": [presented(refused).formatted]})
                return
            message["payload"]["query"] = asked.query
        await super().handle_subscribe(message)

    async def _send_result_stream(self, operation: Operation[Context, None], result_source: Any) -> None:
        await super()._send_result_stream(operation, _shown(result_source))  # type: ignore[arg-type]


async def _shown(results: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for result in results:
        if isinstance(result, ExecutionResult) and result.errors:
            kind = PreExecutionError if isinstance(result, PreExecutionError) else ExecutionResult
            yield kind(data=result.data, errors=[presented(error) for error in result.errors], extensions=result.extensions)
        else:
            yield result
