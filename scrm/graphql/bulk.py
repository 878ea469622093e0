"""What bulk mutations and deletions share."""

from __future__ import annotations

from enum import Enum

import strawberry

from scrm.graphql.resolvers import UserErrorType, errors_field


@strawberry.enum(description="What one bad row does to the others.")
class BulkErrorPolicy(Enum):
    REJECT_EVERYTHING = strawberry.enum_value("REJECT_EVERYTHING", description="One bad row, and nothing happens.")
    REJECT_FAILED_ROWS = strawberry.enum_value("REJECT_FAILED_ROWS", description="Bad rows are refused, the others go through.")


@strawberry.type(description="What was deleted, or why not.")
class DeletePayload:
    deleted_id: strawberry.ID | None = strawberry.field(description="The id that is gone.", default=None)
    errors: list[UserErrorType] = errors_field()
