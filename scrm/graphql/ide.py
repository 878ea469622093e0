"""GraphiQL: strawberry's page, with local files where `make ide` has installed them."""

from __future__ import annotations

from pathlib import Path

from strawberry.http.ides import get_graphql_ide_html

STATIC = Path(__file__).parent / "static"
REMOTE = "https://unpkg.com/"


def page() -> str:
    """The page as HTML."""
    html = get_graphql_ide_html(graphql_ide="graphiql")
    if (STATIC / "unpkg").is_dir():
        html = html.replace(REMOTE, "/static/unpkg/")
    return html
