"""graphql-core's executor with two changes: a compiled root is one statement, and a `Ref` is read where it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import orjson
from graphql import FieldNode, GraphQLError, GraphQLObjectType, OperationType, get_named_type, is_non_null_type
from graphql.execution.collect_fields import FieldDetails
from graphql.pyutils import Path

from scrm.errors import ScrmError
from scrm.graphql.compiler import BatchCall, FieldFailure
from scrm.graphql.context import Context
from scrm.graphql.filling import fill_one
from scrm.graphql.guarded import GuardedExecutor
from scrm.graphql.model import BoundField
from scrm.graphql.plans import Answer, Facts, run, run_refs
from scrm.graphql.selection import Operation
from scrm.graphql.sources import BatchInfo, BatchSource, ColumnSource, Ref, ResolverSource


class CompiledExecutor(GuardedExecutor):
    """Executes one operation."""

    @classmethod
    def build(cls, schema: Any, document: Any, root_value: Any = None, context_value: Any = None, *args: Any, **more: Any) -> Any:
        """Names what is not there without guessing what was meant, unless the server is one to develop with."""
        hints = isinstance(context_value, Context) and context_value.gate.settings.ide
        return super().build(schema, document, root_value, context_value, *args, **{**more, "hide_suggestions": not hints})

    @property
    def _context(self) -> Context:
        context = self.context_value
        assert isinstance(context, Context)
        return context

    def build_per_event_executor(self, payload: Any) -> CompiledExecutor:
        """An event of a subscription is answered at its own moment, with what the caller may see then."""
        executor = super().build_per_event_executor(payload)
        assert isinstance(executor, CompiledExecutor)
        executor.context_value = self._context.again()
        return executor

    @property
    def _read(self) -> Operation:
        return self._context.plans.operation(self.schema, self.operation, self.fragments)

    def execute_field(
        self,
        parent_type: GraphQLObjectType,
        source: Any,
        field_details_list: list[FieldDetails],
        path: Path,
        position_context: Any,
    ) -> Any:
        name = field_details_list[0].node.name.value
        bound = self._context.plans.model.root(parent_type.name, name)
        if bound is None:
            return super().execute_field(parent_type, source, field_details_list, path, position_context)
        from_attribute = isinstance(bound.source, ColumnSource) and not bound.source.personal and path.prev is not None
        if not isinstance(bound.source, ResolverSource) and not from_attribute:
            if path.prev is not None:
                return self._held(bound, source, field_details_list, path)
            if parent_type.name == "Query" and self._has_several_roots():
                self._context.reads.shared = True
            return self._root(bound, field_details_list, path)
        try:
            self._permit(bound)
        except ScrmError as error:
            self.handle_field_error(error, bound.definition.type, field_details_list, path)
            return None
        return super().execute_field(parent_type, source, field_details_list, path, position_context)

    def _has_several_roots(self) -> bool:
        selections = self.operation.selection_set.selections
        return len(selections) > 1 or not isinstance(selections[0], FieldNode)  # a fragment may hold several

    def _permit(self, bound: BoundField) -> None:
        self_service = not isinstance(bound.source, ResolverSource) or bound.source.self_service
        self._context.require(bound.scope, f"{bound.parent}.{bound.name}", self_service=self_service)

    async def _root(self, bound: BoundField, details: list[FieldDetails], path: Path) -> Any:
        context = self._context
        try:
            grants = context.grants
            variables = self.variable_values.coerced
            facts = Facts(variables, context.moment, context.principal.user_id)
            place = context.plans.root(self._read, bound, details, str(path.key), variables, grants)

            async def attempt(excluded: frozenset[str], info: Callable[[], BatchInfo] | None) -> Answer:
                return await context.plans.answer(
                    place, lambda plan: run(plan, context.snapshot(plan, excluded), facts, info), excluded
                )

            with context.reading(place):
                answer = await context.plans.culprits.answer(place, attempt, self._batch_info(path), context.services.db.clock())
            self._report(answer.failures, path)
            return orjson.Fragment(answer.json)
        except Exception as error:
            self.handle_field_error(error, bound.definition.type, details, path)
            return None

    async def _held(self, bound: BoundField, held: object, details: list[FieldDetails], path: Path) -> Any:
        context = self._context
        try:
            variables = self.variable_values.coerced
            if isinstance(bound.source, BatchSource):
                return await self._filled(bound, bound.source, held, details, path)
            facts = Facts(variables, context.moment, context.principal.user_id, held=held)
            # On the connection that the request has: who waits for a second may wait for somebody who waits for a third.
            snapshot = context.reads if self.operation.operation is OperationType.QUERY else context.services.db
            place = context.plans.held(self._read, bound, details, held, variables, context.grants)

            async def attempt(excluded: frozenset[str], info: Callable[[], BatchInfo] | None) -> Answer:
                return await context.plans.answer(place, lambda plan: run(plan, snapshot, facts, info), excluded)

            answer = await context.plans.culprits.answer(place, attempt, self._batch_info(path), context.services.db.clock())
            self._report(answer.failures, path)
            return orjson.Fragment(answer.json)
        except Exception as error:
            self.handle_field_error(error, bound.definition.type, details, path)
            return None

    async def _filled(self, bound: BoundField, source: BatchSource, held: object, details: list[FieldDetails], path: Path) -> Any:
        """A field that Python fills in, on an object that Python holds."""
        context = self._context
        self._permit(bound)
        arguments = context.plans.arguments(self._read, bound, details, self.variable_values.coerced)
        needed = tuple(getattr(held, name) for name in source.needs)
        key = needed[0] if len(needed) == 1 else needed
        assert path.prev is not None
        call = BatchCall((), str(path.key), (), bound, arguments, tuple(details))
        found = await fill_one(call, [key], self._batch_info(path.prev)(), arguments)
        if found is None:
            self._report([FieldFailure((), bound.owner)], path)
            return None
        return orjson.Fragment(found[key])

    def _batch_info(self, path: Path) -> Callable[[], BatchInfo]:
        """What batch functions of this place may use, and how what is selected of their objects is answered."""
        return lambda: replace(self._context.batch_info(), complete=partial(self._complete, path))

    async def _complete(self, path: Path, call: BatchCall, value: object) -> bytes:
        """What is selected of an object that a batch function made: as of any that Python answers."""
        field, details = call.field, list(call.details)
        place = path
        for step in call.path:
            place = place if step == "*" else place.add_key(step, None)
        parent = self.schema.type_map[field.parent]
        assert isinstance(parent, GraphQLObjectType)
        place = place.add_key(call.key, field.parent)
        info = self.build_resolve_info(field.definition, [detail.node for detail in details], parent, place)
        done = self.complete_value(field.definition.type, details, info, place, value, None)
        return orjson.dumps(await done if self.is_awaitable(done) else done)

    def _report(self, failures: Sequence[FieldFailure], path: Path) -> None:
        for failure in failures:
            place = path
            for step in failure.path:
                place = place if step == "*" else place.add_key(step, None)
            error = failure.refusal
            if error is not None:
                made = GraphQLError(error.message, path=place.as_list(), original_error=error)
            else:
                said = f"the field of plugin {failure.owner} could not be computed"
                extensions = {"code": "PLUGIN_FIELD_FAILED", "plugin": failure.owner}
                made = GraphQLError(said, path=place.as_list(), extensions=extensions)
            self.collected_errors.add(made, place)

    def complete_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Path, result: Any, position_context: Any
    ) -> Any:
        if isinstance(result, Ref):
            return self._ref(
                result,
                field_details_list,
                path,
                required=is_non_null_type(return_type),
                declared=get_named_type(return_type).name,
            )
        return super().complete_value(return_type, field_details_list, info, path, result, position_context)

    async def _ref(self, ref: Ref, details: list[FieldDetails], path: Path, *, required: bool, declared: str) -> Any:
        context = self._context
        type_name = context.plans.model.type_names[ref.type]
        nodes = tuple(id(detail.node) for detail in details)
        loader = context.refs.get((type_name, nodes))
        if loader is None:
            loader = context.refs[type_name, nodes] = RefLoader(self, type_name, details, path)
        found, failures = await loader.load(ref.id)
        if found is None:
            if required:
                raise TypeError(f"the {declared} {ref.id} is gone, but the field promises one")
            return None
        self._report(failures, path)
        return orjson.Fragment(found)


class RefLoader:
    """Reads rows named in one place of the selection together, in one statement."""

    def __init__(self, executor: CompiledExecutor, type_name: str, details: list[FieldDetails], path: Path) -> None:
        self._executor = executor
        self._type_name = type_name
        self._details = details
        self._path = path
        self._waiting: dict[Any, asyncio.Future[Any]] = {}

    async def load(self, key: Any) -> Any:
        """The object's JSON, or None; and what failed in it."""
        future = self._waiting.get(key)
        if future is None:
            loop = asyncio.get_running_loop()
            if not self._waiting:
                loop.call_soon(lambda: loop.create_task(self._run()))
            future = self._waiting[key] = loop.create_future()
        return await future

    async def _run(self) -> None:
        waiting, self._waiting = self._waiting, {}
        try:
            found, failures = await self._fetch(list(waiting))
            for number, (key, future) in enumerate(waiting.items()):
                if not future.done():
                    future.set_result((found.get(key), failures if number == 0 else ()))
        except BaseException as error:
            for future in waiting.values():
                if not future.done():
                    future.set_exception(error)

    async def _fetch(self, keys: list[UUID]) -> Any:
        executor, context = self._executor, self._executor._context
        variables = executor.variable_values.coerced
        facts = Facts(variables, context.moment, context.principal.user_id, keys)

        place = context.plans.refs(executor._read, self._type_name, self._details, variables, context.grants)

        async def attempt(excluded: frozenset[str], info: Callable[[], BatchInfo] | None) -> Any:
            return await context.plans.answer(
                place, lambda plan: run_refs(plan, context.snapshot(plan, excluded), facts, info), excluded
            )

        info = executor._batch_info(self._path)
        return await context.plans.culprits.answer(place, attempt, info, context.services.db.clock())
