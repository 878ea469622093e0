"""The part of JSON Schema that registered event types use."""

from typing import Any

import pytest

from scrm.events.payloads import Payload

SCHEMA = {
    "type": "object",
    "description": "words are no rules",
    "required": ["id"],
    "properties": {
        "id": {"type": "string", "minLength": 1},
        "code": {"type": "string", "maxLength": 3},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "whole": {"type": "integer"},
        "rate": {"type": "number"},
        "on": {"type": "boolean"},
        "either": {"type": ["string", "integer"]},
        "kind": {"enum": ["A", "B", 3]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
        "lines": {"type": "array", "items": {"type": "object", "required": ["sku"], "properties": {"n": {"type": "integer"}}}},
        "closed": {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
        "any": {},
    },
}


@pytest.mark.parametrize(
    "properties",
    [
        {"id": "1"},
        {"id": "1", "unknown": [{}]},
        {"id": "1", "code": None, "count": None, "tags": None, "lines": [None]},
        {"id": "1", "code": "abc", "count": 9, "whole": 5.0, "rate": 1, "on": False, "either": 1, "kind": 3},
        {"id": "1", "tags": ["a", "b"], "lines": [{"sku": 1, "n": 1, "more": 1}], "closed": {"a": 1}, "any": {"x": None}},
    ],
)
def test_what_fits(properties: dict[str, Any]) -> None:
    assert Payload(SCHEMA).problems(properties) == []


@pytest.mark.parametrize(
    ("properties", "problems"),
    [
        ({}, [(("id",), "is missing")]),
        ({"id": None}, [(("id",), "is missing")]),
        ({"id": ""}, [(("id",), "is too short; at least 1")]),
        ({"id": 1}, [(("id",), "is 1; expected string")]),
        ({"id": True, "on": 1}, [(("id",), "is true; expected string"), (("on",), "is 1; expected boolean")]),
        ({"id": "1", "code": "abcd"}, [(("code",), "is too long; at most 3")]),
        ({"id": "1", "count": 0}, [(("count",), "is 0; the least is 1")]),
        ({"id": "1", "count": 10}, [(("count",), "is 10; the most is 9")]),
        ({"id": "1", "whole": 1.5}, [(("whole",), "is 1.5; expected integer")]),
        (
            {"id": "1", "whole": True, "rate": False},
            [(("whole",), "is true; expected integer"), (("rate",), "is false; expected number")],
        ),
        ({"id": "1", "either": 1.5}, [(("either",), "is 1.5; expected string or integer")]),
        ({"id": "1", "kind": "C"}, [(("kind",), 'is "C"; expected one of A, B, 3')]),
        ({"id": "1", "tags": []}, [(("tags",), "is too short; at least 1")]),
        ({"id": "1", "tags": ["a", "b", 3]}, [(("tags",), "is too long; at most 2"), (("tags", "2"), "is 3; expected string")]),
        ({"id": "1", "lines": {}}, [(("lines",), "is an object; expected array")]),
        (
            {"id": "1", "lines": [{"n": "1"}]},
            [(("lines", "0", "sku"), "is missing"), (("lines", "0", "n"), 'is "1"; expected integer')],
        ),
        ({"id": "1", "lines": [[]]}, [(("lines", "0"), "is a list; expected object")]),
        ({"id": "1", "closed": {"b": 1}}, [(("closed", "b"), "is not a property of this type")]),
    ],
)
def test_what_does_not_is_told_with_its_place(properties: dict[str, Any], problems: list[tuple[tuple[str, ...], str]]) -> None:
    assert Payload(SCHEMA).problems(properties) == problems


def test_an_object_may_be_closed_as_a_whole() -> None:
    closed = Payload({"type": "object", "properties": {"a": {}}, "additionalProperties": False})
    assert closed.problems({"a": 1}) == []
    assert closed.problems({"b": None}) == [(("b",), "is not a property of this type")]
