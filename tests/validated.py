"""GraphQL's own parser and validation rules see each text once, not again for every app that tests open on the same schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from graphql import DocumentNode, GraphQLError, GraphQLSchema, parse, validate

from scrm.graphql import documents


@contextmanager
def validated_once() -> Iterator[None]:
    """Let every app that is opened in the block know what another with the same schema has found valid; what scrm itself asks of
    a text is asked each time."""
    valid: WeakKeyDictionary[GraphQLSchema, set[tuple[str, bool]]] = WeakKeyDictionary()

    def validate_once(
        schema: GraphQLSchema, node: DocumentNode, rules: Any, max_errors: int, *, hide_suggestions: bool
    ) -> list[GraphQLError]:
        text = node.loc.source.body if node.loc else ""
        known = valid.setdefault(schema, set())
        if text and (text, hide_suggestions) in known:
            return []
        errors = validate(schema, node, rules, max_errors, hide_suggestions=hide_suggestions)
        if not errors:
            known.add((text, hide_suggestions))
        return errors

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "parse", lru_cache(maxsize=1_000)(parse))
        patch.setattr(documents, "validate", validate_once)
        yield
