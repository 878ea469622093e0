"""Errors as callers see them: coded where they are the caller's, masked with an `errorId` where they are ours."""

from __future__ import annotations

import logging
from typing import Any

from graphql import GraphQLError, GraphQLSyntaxError

from scrm.db import new_id
from scrm.errors import PluginFailedError, ScrmError

log = logging.getLogger("scrm.graphql")

INTERNAL = "INTERNAL"
UNAVAILABLE = "UNAVAILABLE"


def present(error: GraphQLError) -> dict[str, Any]:
    """An error of an answer's `errors`."""
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
    elif isinstance(original, PluginFailedError):
        error_id = new_id().hex
        log.error("%s, errorId %s", original, error_id, exc_info=original)
        shown["message"] = f"the field of plugin {original.plugin} could not be computed"
        shown["extensions"] = {"code": "PLUGIN_FIELD_FAILED", "plugin": original.plugin, "errorId": error_id}
    else:
        error_id = new_id().hex
        log.error("request failed, errorId %s", error_id, exc_info=original)
        shown["message"] = "something went wrong here; tell the operator the errorId"
        shown["extensions"] = {"code": INTERNAL, "errorId": error_id}
    return shown


def presented(error: GraphQLError) -> GraphQLError:
    """The same error as a GraphQLError whose own form is what `present` says, for code that formats errors itself."""
    shown = present(error)
    return GraphQLError(shown["message"], error.nodes, error.source, error.positions, error.path, extensions=shown["extensions"])
