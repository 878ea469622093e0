"""What is said to a request of which nothing was executed."""

from __future__ import annotations

import orjson
from starlette.responses import Response

from scrm.errors import ScrmError

STATUS = {
    "UNAUTHENTICATED": 401,
    "FORBIDDEN": 403,
    "METHOD_NOT_ALLOWED": 405,
    "TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "UNSUPPORTED_ENCODING": 415,
    "TOO_MANY_STREAMS": 503,
    "UNAVAILABLE": 503,
}
"""What an error before execution is answered with; 400 for the others."""


def refusal(error: ScrmError, status: int | None = None) -> Response:
    """A ScrmError as an answer before anything was executed."""
    shown = {"message": error.message, "extensions": {"code": error.code, **({"params": error.params} if error.params else {})}}
    status = status or STATUS.get(error.code, 400)
    headers = {401: {"WWW-Authenticate": 'Bearer realm="scrm"'}, 405: {"Allow": "POST"}, 503: {"Retry-After": "1"}}.get(status)
    return Response(orjson.dumps({"errors": [shown]}), status, media_type="application/json", headers=headers)
