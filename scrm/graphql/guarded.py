"""An executor that outlives plugins' code: what it raises, answers wrongly or too much of is the failure of its field alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable
from inspect import isawaitable
from itertools import islice
from typing import Any

import orjson
from graphql import FieldNode, GraphQLError, GraphQLObjectType, is_leaf_type, is_list_type
from graphql.execution.collect_fields import FieldDetails
from graphql.pyutils import Path
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from scrm.errors import PluginFailedError, ScrmError, is_readable, name_of
from scrm.events.handling import is_trouble
from scrm.graphql.model import CORE, LIST_CAP
from scrm.graphql.scalars import encode_json


class GuardedExecutor(StrawberryGraphQLCoreExecutionContext):
    """Executes one operation; knows whose each field is."""

    def _whose(self, type_name: str, field_name: str) -> str:
        of_type = self.context_value.plans.model.owned.get(type_name)
        return CORE if of_type is None else of_type.get(field_name) or of_type["*"]

    def execute_field(
        self,
        parent_type: GraphQLObjectType,
        source: Any,
        field_details_list: list[FieldDetails],
        path: Path,
        position_context: Any,
    ) -> Any:
        name = field_details_list[0].node.name.value
        owner = self._whose(parent_type.name, name)
        if owner == CORE:
            return super().execute_field(parent_type, source, field_details_list, path, position_context)
        try:
            completed = super().execute_field(parent_type, source, field_details_list, path, position_context)
        except Exception:
            raise
        except BaseException as error:
            return self._ended(error, parent_type, field_details_list, path)
        if self.is_awaitable(completed):
            return self._outlived(completed, parent_type, field_details_list, path)
        return completed

    async def _outlived(
        self, completed: Awaitable[Any], parent_type: GraphQLObjectType, details: list[FieldDetails], path: Path
    ) -> Any:
        task = asyncio.ensure_future(_waited(completed))  # its own, so that what it does to its task it does to itself
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task}, timeout=1)
            raise
        error, value = task.result()
        if error is None:
            return value
        if isinstance(error, Exception):
            raise error
        cancelled = isinstance(error, asyncio.CancelledError)
        return self._ended(RuntimeError("it cancelled its own task") if cancelled else error, parent_type, details, path)

    def _ended(self, error: BaseException, parent_type: GraphQLObjectType, details: list[FieldDetails], path: Path) -> None:
        """What would end the server's task, or the server, ends the field."""
        if is_trouble(error):
            raise error
        name = details[0].node.name.value
        failed = PluginFailedError(self._whose(parent_type.name, name), f"{parent_type.name}.{name}")
        failed.__cause__ = error
        definition = self.schema.get_field(parent_type, name)
        assert definition is not None
        self.handle_field_error(failed, definition.type, details, path)

    def handle_field_error(self, raw_error: Exception, return_type: Any, field_details_list: Any, path: Path) -> None:
        """A plugin's error is said to be its."""
        if not _is_said(raw_error) and not is_trouble(raw_error):
            place: Path | None = path
            while place is not None and place.typename is None:
                place = place.prev
            name = field_details_list[0].node.name.value
            owner = self._whose(place.typename, name) if place is not None and place.typename else CORE
            if owner != CORE:
                failed = PluginFailedError(owner, f"{place.typename}.{name}" if place else name)
                failed.__cause__ = raw_error
                raw_error = failed
        super().handle_field_error(raw_error, return_type, field_details_list, path)

    def complete_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Path, result: Any, position_context: Any
    ) -> Any:
        if self._whose(info.parent_type.name, info.field_name) == CORE:
            return super().complete_value(return_type, field_details_list, info, path, result, position_context)
        if is_list_type(return_type):
            result = capped(result)
        completed = super().complete_value(return_type, field_details_list, info, path, result, position_context)
        if completed is not None and is_leaf_type(return_type):
            return orjson.Fragment(encode_json(completed))  # what cannot be encoded is this field's failure, not the answer's
        return completed


async def _waited(completed: Awaitable[Any]) -> tuple[BaseException | None, Any]:
    """What it raised, whatever that is: a task that is left by it may end the server."""
    try:
        return None, await completed
    except BaseException as error:
        return error, None


def _is_said(error: Exception) -> bool:
    """Whether it says what it is: it has a code, or its place already, or it is about the caller's arguments."""
    if not is_readable(error):
        return False
    if isinstance(error, GraphQLError):
        return error.path is not None or any(not isinstance(node, FieldNode) for node in error.nodes or ())
    return isinstance(error, ScrmError | PluginFailedError)


def capped(result: Any) -> Any:
    """A list as it is, if it is not too long, and of anything else that can be walked through no more than that.

    Raises: ValueError.
    """
    if isinstance(result, AsyncIterable):
        return _some(result)
    if isinstance(result, str | bytes | dict) or not isinstance(result, Iterable):
        return result
    found = result if isinstance(result, list | tuple) else list(islice(result, LIST_CAP + 1))
    if len(found) > LIST_CAP:
        raise _too_many()
    return [_item(item) if isawaitable(item) else item for item in found]


async def _item(item: Awaitable[Any]) -> Any:
    """An item of a list, awaited in a task of its own, which nothing that it raises may end the server from."""
    try:
        return await item
    except Exception:
        raise
    except BaseException as error:
        if is_trouble(error):
            raise
        raise RuntimeError(f"an item of the list raised {name_of(error)}") from error


async def _some(result: AsyncIterable[Any]) -> AsyncIterator[Any]:
    count = 0
    async for item in result:
        count += 1
        if count > LIST_CAP:
            raise _too_many()
        yield item


def _too_many() -> ValueError:
    return ValueError(f"a list of more than {LIST_CAP} items; give a page of them, or a connection")
