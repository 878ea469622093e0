"""Subscriptions over WebSocket: strawberry's graphql-transport-ws with text frames, coded errors and checked requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from graphql import GraphQLError
from starlette.websockets import WebSocketDisconnect
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.subscriptions.protocols.graphql_transport_ws.types import SubscribeMessage
from strawberry.types.execution import ExecutionResult, PreExecutionError

from scrm.errors import ScrmError
from scrm.graphql.context import Context
from scrm.graphql.errors import presented
from scrm.graphql.requests import check_request


class TextSocket(ASGIWebSocketAdapter):
    """Sends JSON as text: browsers hand a binary frame over as a blob that no client reads."""

    async def send_json(self, message: Mapping[str, object]) -> None:
        try:
            await self.ws.send_text(self.view.encode_json_string(message))
        except (WebSocketDisconnect, RuntimeError) as error:
            raise WebSocketDisconnected from error


class SocketHandler(BaseGraphQLTransportWSHandler[Context, None]):
    """One connection."""

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        if self.connection_acknowledged and message["id"] not in self.operations:
            try:
                await self.context.renew()
                asked = check_request(message["payload"], self.context.plans.model.schema)
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
