"""The four reads: a page with everything, one person, a plain page, a filtered page."""

from __future__ import annotations

from typing import Any

PERSON = """id displayName gender city language createdAt lastSeenAt attributes
  tags { tag { key name } source taggedAt }
  identities { channel { key name kind } externalId linkedAt }
  events(first: 5) { nodes { id type occurredAt amount { amountMinor currency } } }
"""


def QUERIES(user: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, document and variables of each; `user` is somebody's global id."""
    return [
        ("Q1", "query($n: Int!) { users(first: $n) { nodes { " + PERSON + " } } }", {"n": 50}),
        ("Q2", "query($id: ID!) { user(id: $id) { " + PERSON + " } }", {"id": user}),
        ("Q3", "query($n: Int!) { users(first: $n) { nodes { id displayName city createdAt } } }", {"n": 50}),
        (
            "Q4",
            "query($tag: [String!]!, $city: String!) { users(first: 20, filter: {tag: {keys: $tag}, city: {eq: $city}}) "
            "{ nodes { id displayName city } } }",
            {"tag": ["tag-3"], "city": "上海"},
        ),
    ]
