"""The four reads: a page with everything, one person, a plain page, a filtered page; and the first with a batch field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PERSON = """id displayName gender city language createdAt lastSeenAt attributes
  tags { tag { key name } source taggedAt }
  identities { channel { key name kind } externalId linkedAt }
  events(first: 5) { nodes { id type occurredAt amount { amountMinor currency } } }
  points { balance }
"""


@dataclass(frozen=True)
class Read:
    """A query and its variables."""

    name: str
    query: str
    variables: dict[str, Any]


def reads(user: str) -> list[Read]:
    """The reads; `user` is somebody's global id."""
    filtered = """query($tag: [String!]!, $city: String!) {
      users(first: 20, filter: {tag: {keys: $tag}, city: {eq: $city}}) { nodes { id displayName city } } }"""
    return [
        Read("Q1", "query($n: Int!) { users(first: $n) { nodes { " + PERSON + " } } }", {"n": 50}),
        Read("Q2", "query($id: ID!) { user(id: $id) { " + PERSON + " } }", {"id": user}),
        Read("Q3", "query($n: Int!) { users(first: $n) { nodes { id displayName city createdAt } } }", {"n": 50}),
        Read("Q4", filtered, {"tag": ["tag-3"], "city": "上海"}),
    ]


BATCHED = Read("Q1 with a batch field", "query($n: Int!) { users(first: $n) { nodes { " + PERSON + " score } } }", {"n": 50})
