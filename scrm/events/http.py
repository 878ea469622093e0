"""`POST /events`: the door for pipelines. A JSON array or one JSON object per line, gzip or not, read as it comes."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import IO

import msgspec
import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from scrm.errors import ScrmError
from scrm.events.decoding import decode_item, undecoded
from scrm.events.ingest import BATCH, Ingest, Item
from scrm.events.records import RecordResult, RecordStatus

SCOPE = "events:write"
"""What a key needs to record events."""

MAX_LINE = 1_000_000
"""Longest line of NDJSON, in bytes; a longer one is refused, the others are not."""

MAX_BODY = 10_000_000
"""Largest JSON array, in bytes, unpacked. NDJSON may be of any length."""

_PIECE = 256 * 1024
_MAX_RATIO = 200
_ANSWER_IN_MEMORY = 1_000_000
_JSON = frozenset({"application/json"})
_LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
_STATUS = {
    "UNAUTHENTICATED": 401,
    "FORBIDDEN": 403,
    "TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415,
    "UNSUPPORTED_ENCODING": 415,
    "UNAVAILABLE": 503,
}
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}

Authorize = Callable[[Request, str], Awaitable[object]]
"""Lets a request with this scope pass; raises `ScrmError` `UNAUTHENTICATED` or `FORBIDDEN`."""

Endpoint = Callable[[Request], Awaitable[Response]]


def events_endpoint(ingest: Ingest, authorize: Authorize, *, max_body: int = MAX_BODY) -> Endpoint:
    """The endpoint of `POST /events`.

    It answers `{"results": [{index, status, eventId, errors}], "accepted", "duplicates", "rejected"}` with 200, whatever became
    of the items. A request that cannot be read is answered with 400, 401, 403, 413 or 415, and with 503 where the database is
    away, and with `{"errors": [{code, message, path, params}]}` beside the counts of what was recorded before it broke off:
    sending it again makes those duplicates.
    `?createUsers=false` refuses identities that nobody has.
    """

    async def endpoint(request: Request) -> Response:
        answer = _Answer()
        try:
            actor = getattr(await authorize(request, SCOPE), "name", None)
            create_users = _flag(request, "createUsers", True)
            parts = _batches(request, max_body)
            async with aclosing(ingest.record_all(parts, create_users=create_users, actor=actor)) as recorded:
                async for results in recorded:
                    answer.add(results)
        except ScrmError as error:
            answer.close()
            return _failure(error, answer.counts)
        except ClientDisconnect:
            answer.close()
            return Response(status_code=400)
        except BaseException:
            answer.close()
            raise
        return StreamingResponse(answer.parts(), media_type="application/json")

    return endpoint


class _Answer:
    """The results as JSON, kept on disk once they are many."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_ANSWER_IN_MEMORY)  # noqa: SIM115  # closed when it has been sent
        self._file.write(b'{"results":[')
        self._empty = True
        self.counts = dict.fromkeys(("accepted", "duplicates", "rejected"), 0)

    def add(self, results: Sequence[RecordResult]) -> None:
        """Write some results down."""
        for result in results:
            self.counts[_COUNTED[result.status]] += 1
        text = b",".join([_shown(result) for result in results])
        if text:
            self._file.write(text if self._empty else b"," + text)
            self._empty = False

    async def parts(self) -> AsyncIterator[bytes]:
        """The whole answer, piece by piece."""
        self._file.write(b"]," + orjson.dumps(self.counts)[1:])
        self._file.seek(0)
        try:
            while piece := self._file.read(_PIECE):
                yield piece
        finally:
            self.close()

    def close(self) -> None:
        """Throw it away."""
        self._file.close()


_COUNTED = {RecordStatus.ACCEPTED: "accepted", RecordStatus.DUPLICATE: "duplicates", RecordStatus.REJECTED: "rejected"}


def _shown(result: RecordResult) -> bytes:
    event_id = result.event_id
    if event_id is not None and not result.errors:  # nothing in it needs JSON's care
        said = f'{{"index":{result.index},"status":"{result.status.value}","eventId":"Event_{event_id.hex}","errors":[]}}'
        return said.encode()
    errors = [
        {"code": error.code, "message": error.message, "path": list(error.path), "params": dict(error.params)}
        for error in result.errors
    ]
    shown = f"Event_{event_id.hex}" if event_id is not None else None
    return orjson.dumps({"index": result.index, "status": result.status.value, "eventId": shown, "errors": errors})


def _failure(error: ScrmError, counts: Mapping[str, int]) -> Response:
    said = {"code": error.code, "message": error.message, "path": list(error.path), "params": error.params}
    status = _STATUS.get(error.code, 400)
    body = orjson.dumps({"errors": [said], **counts})
    return Response(body, status, _HEADERS.get(status), "application/json")


def _flag(request: Request, name: str, default: bool) -> bool:
    said = request.query_params.get(name)
    if said is None:
        return default
    if said not in ("true", "false"):
        raise ScrmError("INVALID_INPUT", f'{name} is "{said[:40]}"; expected true or false', path=(name,))
    return said == "true"


async def _batches(request: Request, max_body: int) -> AsyncIterator[list[Item]]:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in _JSON | _LINES:
        known = ", ".join(sorted(_JSON | _LINES))
        raise ScrmError("UNSUPPORTED_MEDIA_TYPE", f'the content type is "{media[:80]}"; send one of {known}')
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise ScrmError("UNSUPPORTED_ENCODING", f'the content encoding is "{encoding[:80]}"; send gzip or none')
    pieces = request.stream()
    body = _unpacked(pieces) if encoding == "gzip" else pieces
    if media in _LINES:
        async for batch in _lines(body):
            yield batch
        return
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > max_body:
        raise _too_large(max_body)
    for items in _array(await _whole(body, max_body)):
        yield items


def _too_large(limit: int) -> ScrmError:
    said = f"the body has more than {limit} bytes; send less at a time, or NDJSON, which may be of any length"
    return ScrmError("TOO_LARGE", said, params={"limit": limit})


async def _whole(pieces: AsyncIterator[bytes], limit: int) -> bytes:
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])


def _array(body: bytes) -> Iterator[list[Item]]:
    try:
        items: Sequence[bytes | msgspec.Raw] = _ARRAY.decode(body)
    except msgspec.ValidationError:
        raise ScrmError("INVALID_JSON", "the body is not a JSON array of events") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        items = _with_bad_text(body)
        if not items:
            raise ScrmError("INVALID_JSON", f"the body is not JSON: {error}") from None
    except RecursionError:
        raise ScrmError("INVALID_JSON", "the body is not JSON: nested too deep") from None
    for start in range(0, len(items), BATCH):
        yield [decode_item(bytes(item)) for item in items[start : start + BATCH]]


def _with_bad_text(body: bytes) -> list[bytes]:
    """The items of an array in which halves of surrogate pairs are the only fault, so that they are those items' fault alone."""
    try:
        items = json.loads(body, parse_constant=_refuse) if b"\\u" in body else None
    except (ValueError, RecursionError):
        return []
    return [json.dumps(item).encode() for item in items] if isinstance(items, list) else []


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[Item]]:
    """Batches of what the lines say; blank lines are none."""
    batch: list[Item] = []
    rest = b""
    skipping = False
    first = True
    async for piece in pieces:
        if first and piece:
            piece, first = piece.removeprefix(b"\xef\xbb\xbf"), False
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if not skipping and line and not line.isspace():
                batch.append(_line(line))
            skipping = False
            if len(batch) >= BATCH:
                yield batch
                batch = []
        if skipping or len(rest) > MAX_LINE:
            if not skipping:
                batch.append(_line(rest))
            rest, skipping = b"", True
    if rest and not skipping and not rest.isspace():
        batch.append(_line(rest))
    if batch:
        yield batch


def _line(line: bytes) -> Item:
    if len(line) > MAX_LINE:
        return undecoded("TOO_LARGE", f"the line has more than {MAX_LINE} bytes")
    return decode_item(line)


async def _unpacked(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """What gzip packed, in pieces of limited size; several members one after the other are one body."""
    packed = unpacked = 0
    member = zlib.decompressobj(wbits=31)
    begun = False
    async for piece in pieces:
        packed += len(piece)
        while piece:
            if member.eof:
                member = zlib.decompressobj(wbits=31)
            begun = True
            try:
                out = member.decompress(piece, _PIECE)
            except zlib.error as error:
                raise ScrmError("INVALID_GZIP", f"the body is not gzip: {error}") from None
            piece = member.unused_data if member.eof else member.unconsumed_tail
            unpacked += len(out)
            if unpacked > max(_PIECE * 16, packed * _MAX_RATIO):
                said = f"the body unpacks to more than {_MAX_RATIO} times its size; send it unpacked"
                raise ScrmError("TOO_LARGE", said, params={"ratio": _MAX_RATIO})
            if out:
                yield out
    if not begun or not member.eof:
        raise ScrmError("INVALID_GZIP", "the body ends before its gzip does; send it again")
