"""Between a request and its execution: a document that is whole, an operation that is allowed, a cost that is paid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from graphql import OperationDefinitionNode
from strawberry.extensions import SchemaExtension

from scrm.config import ServerSettings
from scrm.errors import ScrmError
from scrm.graphql.cost import Buckets, Charged, Pricing
from scrm.graphql.documents import Document, Documents
from scrm.graphql.model import Model

if TYPE_CHECKING:
    from scrm.graphql.context import Context

SCHEMA_SCOPE = "schema:read"
"""What a key needs to ask about the schema itself."""


ABOUT = 2_500
"""Most objects for each type of the schema that a question about it may return; GraphiQL's asks for 1 500."""


class Gate:
    """What every operation of one schema passes, whichever way it came."""

    def __init__(self, model: Model, settings: ServerSettings) -> None:
        self.settings = settings
        self.documents = Documents(model.schema, settings.limits, hints=settings.ide)
        self.pricing = Pricing(model)
        self.buckets = Buckets(settings.cost)
        self._about = ABOUT * len(model.schema.type_map)

    def enter(self, context: Context, query: str | None, name: str | None, variables: Mapping[str, Any] | None) -> None:
        """Let an operation pass and charge its caller; what validation refuses is left to it.

        Raises:
            GraphQLError: it is not GraphQL.
            ScrmError: what `admit` and the reading of documents refuse.
        """
        document = self.documents.read(query or "")
        operation = document.operation(name)
        if not document.errors and operation is not None:
            context.charged = self.admit(context, document, operation, variables or {})

    def admit(
        self, context: Context, document: Document, operation: OperationDefinitionNode, variables: Mapping[str, Any]
    ) -> Charged:
        """Let a valid operation pass and charge its caller.

        Raises:
            ScrmError: FORBIDDEN, TOO_MANY_NODES, QUERY_TOO_EXPENSIVE, THROTTLED.
        """
        if document.introspects:
            context.require(SCHEMA_SCOPE, "introspection")
        price = self.pricing.of(operation, document, variables)
        for nodes, most in ((price.nodes, self.settings.limits.nodes), (price.about, self._about)):
            if nodes > most:
                said = f"the operation may return {nodes} objects; at most {most} are answered: ask for less at once"
                raise ScrmError("TOO_MANY_NODES", said, params={"nodes": nodes, "limit": most})
        principal = context.principal
        return self.buckets.charge(principal.user_id or principal.key_id or principal.name, price.cost)


class Admission(SchemaExtension):
    """The gate as strawberry's extension."""

    def on_parse(self) -> Iterator[None]:
        execution = self.execution_context
        assert execution.query is not None
        execution.graphql_document = self._gate.documents.read(execution.query).node
        yield

    def on_validate(self) -> Iterator[None]:
        execution: Any = self.execution_context
        document = self._gate.documents.read(execution.query)
        operation = document.operation(execution._provided_operation_name)
        execution.pre_execution_errors = document.errors
        if not document.errors and operation is not None and execution.context.charged is None:
            execution.context.charged = self._gate.admit(execution.context, document, operation, execution.variables or {})
        yield

    def get_results(self) -> dict[str, Any]:
        charged: Charged | None = self.execution_context.context.charged
        return {} if charged is None else {"cost": charged.shown()}

    @property
    def _gate(self) -> Gate:
        context: Context = self.execution_context.context
        return context.gate
