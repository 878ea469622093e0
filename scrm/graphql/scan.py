"""One linear look at a document's text, token by token, before a parser sees it."""

from __future__ import annotations

from graphql import GraphQLError, Lexer, Source, TokenKind

from scrm.config import Limits
from scrm.errors import ScrmError
from scrm.text import text_problem

MAX_BRACKETS = 60
"""Deepest nesting of brackets."""
MAX_DIGITS = 1_000
"""Longest number: the interpreter refuses to read one of more than some thousand digits."""

_OPEN = frozenset({TokenKind.PAREN_L, TokenKind.BRACKET_L, TokenKind.BRACE_L})
_CLOSED = frozenset({TokenKind.PAREN_R, TokenKind.BRACKET_R, TokenKind.BRACE_R})
_TEXTS = frozenset({TokenKind.STRING, TokenKind.BLOCK_STRING})
_NUMBERS = frozenset({TokenKind.INT, TokenKind.FLOAT})


def check_text_of_document(text: str, limits: Limits) -> None:
    """Refuse what is too long for a parser, or says what cannot be kept. What is no GraphQL is left to the parser, which is at
    it before it has seen more than was looked at here.

    Raises:
        ScrmError: TOO_LARGE, INVALID_TEXT, TOO_MANY_TOKENS, TOO_DEEP, BAD_REQUEST.
    """
    if len(text) > limits.characters:
        said = f"the document has {len(text)} characters; at most {limits.characters} are read: send values as variables"
        raise ScrmError("TOO_LARGE", said, params={"limit": limits.characters})
    _check_text(text)
    tokens = depth = 0
    lexer = Lexer(Source(text))
    token = lexer.token
    while token.kind is not TokenKind.EOF:
        try:
            token = lexer.read_next_token(token.end)  # comments too
        except GraphQLError:
            return
        tokens += 1
        if tokens > limits.tokens:
            said = f"the document has more than {limits.tokens} tokens; ask for less at once"
            raise ScrmError("TOO_MANY_TOKENS", said, params={"limit": limits.tokens})
        depth += (token.kind in _OPEN) - (token.kind in _CLOSED)
        if depth > MAX_BRACKETS:
            raise ScrmError("TOO_DEEP", f"the document is nested deeper than {MAX_BRACKETS} brackets; ask for less at once")
        if token.kind in _TEXTS:
            _check_text(token.value or "")
        elif token.kind in _NUMBERS and len(token.value or "") > MAX_DIGITS:
            said = f"the document holds a number of {len(token.value or '')} digits; at most {MAX_DIGITS} are read"
            raise ScrmError("BAD_REQUEST", said, path=("query",))


def _check_text(value: str) -> None:
    problem = text_problem(value)
    if problem is not None:
        raise ScrmError("INVALID_TEXT", f"query {problem}", path=("query",))
