"""What bulk mutations and deletions share."""

from __future__ import annotations

from enum import Enum

import strawberry

from scrm.graphql.enums import enum
from scrm.graphql.resolvers import UserErrorType, errors_field


@enum(
    "What one bad row does to the others.",
    REJECT_EVERYTHING="One bad row, and nothing happens.",
    REJECT_FAILED_ROWS="Bad rows are refused, the others go through.",
)
class BulkErrorPolicy(Enum):
    REJECT_EVERYTHING = "REJECT_EVERYTHING"
    REJECT_FAILED_ROWS = "REJECT_FAILED_ROWS"


@strawberry.type(description="What was deleted, or why not.")
class DeletePayload:
    deleted_id: strawberry.ID | None = strawberry.field(description="The id that is gone.", default=None)
    errors: list[UserErrorType] = errors_field()
