"""`POST /events`: what can be sent, what is answered, and what is refused before it costs anything."""

import gzip
import json
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from scrm.channels.models import channels
from scrm.config import Settings
from scrm.db import Database, Tx, new_id
from scrm.errors import ScrmError
from scrm.events.decoding import decode_event
from scrm.events.http import MAX_LINE, events_endpoint
from scrm.events.ingest import BATCH, Ingest
from scrm.events.log import core_event_types
from scrm.events.models import events
from scrm.events.records import IdentityRef, NewEvent
from scrm.users.models import users

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TYPES = {known.name: known for known in core_event_types}
LINES = {"content-type": "application/x-ndjson"}
JSON = {"content-type": "application/json; charset=utf-8"}
MAX_BODY = 200_000


async def authorize(request: Request, scope: str) -> None:
    said = request.headers.get("authorization")
    if said is None:
        raise ScrmError("UNAUTHENTICATED", "send a key")
    if said != f"Bearer {scope}":
        raise ScrmError("FORBIDDEN", "the key may not", params={"scope": scope})


class Door:
    """The endpoint, spoken to over HTTP."""

    def __init__(self, db: Database) -> None:
        self.db = db
        endpoint = events_endpoint(Ingest(db, Settings(), TYPES), authorize, max_body=MAX_BODY)
        app = Starlette(routes=[Route("/events", endpoint, methods=["POST"])])
        headers = {"authorization": "Bearer events:write"}
        self.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://scrm", headers=headers)

    async def post(self, content: Any, headers: dict[str, str], query: str = "") -> httpx2.Response:
        return await self.client.post(f"/events{query}", content=content, headers=headers)

    async def count(self, source: str = "test") -> int:
        statement = sa.select(sa.func.count()).select_from(events).where(events.c.source == source)
        return await self.db.read(lambda tx: int(tx.scalar(statement)))


@pytest.fixture
async def door(database: Database) -> AsyncIterator[Door]:
    def make(tx: Tx) -> None:
        row = {"id": new_id(), "key": "web", "name": "web", "kind": "WEBSITE", "role": "MAIN", "enabled": True, "config": {}}
        tx.execute(channels.insert().values(**row, created_at=NOW))

    database.clock = lambda: NOW
    await database.write(make)
    door = Door(database)
    async with door.client:
        yield door


def said(key: object, **more: Any) -> dict[str, Any]:
    identity = {"channel": "web", "externalId": f"person {key}"}
    event = {"type": "page.viewed", "source": "test", "externalId": str(key), "occurredAt": "2026-05-01T08:00:00+08:00"}
    return {**event, "identity": identity, **more}


def ndjson(*items: Any) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def pieces_of(size: int) -> Callable[[bytes], AsyncIterator[bytes]]:
    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    return pieces


FULL = said(
    "full",
    type="order.paid",
    unionId="u",
    channel="web",
    amount={"amountMinor": "9007199254740993", "currency": "CNY"},
    properties={"orderId": "1", "note": "名 😀"},
)


# ---- one event


def test_an_event_is_decoded_with_the_names_of_the_schema() -> None:
    expected = NewEvent(
        type="order.paid",
        source="test",
        external_id="full",
        occurred_at=datetime.fromisoformat("2026-05-01T08:00:00+08:00"),
        identity=IdentityRef("web", "person full"),
        union_id="u",
        channel="web",
        amount_minor=9_007_199_254_740_993,
        currency="CNY",
        properties={"orderId": "1", "note": "名 😀"},
    )
    assert decode_event(json.dumps(FULL).encode()) == expected
    assert decode_event(FULL) == expected
    user_id = uuid.uuid4()
    bare = said("bare", identity=None, userId=f"User_{user_id.hex}", amount=None, properties=None, unionId=None, channel=None)
    assert decode_event(bare) == NewEvent("page.viewed", "test", "bare", expected.occurred_at, user_id=user_id)


BAD = [
    (b"{", "INVALID_JSON", ()),
    (b"\xff", "INVALID_JSON", ()),
    (b'{"properties":' + b'{"a":' * 5000, "INVALID_JSON", ()),
    (b'{"properties":{"a":1' + b"0" * 5000 + b"}}", "INVALID_PROPERTIES", ("properties",)),
    (b"[]", "INVALID_INPUT", ()),
    (b"null", "INVALID_INPUT", ()),
    ({"nonsense": 1}, "INVALID_INPUT", ("nonsense",)),
    ({"type": 1}, "INVALID_TYPE", ("type",)),
    ({"source": None}, "INVALID_KEY", ("source",)),
    ({"occurredAt": "yesterday"}, "INVALID_TIME", ("occurredAt",)),
    ({"identity": {"channel": "web"}}, "INVALID_IDENTITY", ("identity", "externalId")),
    ({"identity": {"channel": "web", "externalId": 1}}, "INVALID_IDENTITY", ("identity", "externalId")),
    ({"amount": {"amountMinor": 1.5, "currency": "CNY"}}, "INVALID_AMOUNT", ("amount", "amountMinor")),
    ({"amount": {"amountMinor": "1e3", "currency": "CNY"}}, "INVALID_AMOUNT", ("amount", "amountMinor")),
    ({"amount": {"amountMinor": True, "currency": "CNY"}}, "INVALID_AMOUNT", ("amount", "amountMinor")),
    ({"properties": [1]}, "INVALID_PROPERTIES", ("properties",)),
    ({"properties": {"a": "\ud800"}}, "INVALID_TEXT", ()),
    ({"userId": "User_1"}, "INVALID_ID", ("userId",)),
    ({"userId": "Event_" + "0" * 32}, "INVALID_ID", ("userId",)),
]


@pytest.mark.parametrize(("change", "code", "path"), BAD)
def test_what_is_no_event_is_refused_with_the_field(change: Any, code: str, path: tuple[str, ...]) -> None:
    raw = change if isinstance(change, bytes) else json.dumps(said("bad", **change)).encode()
    with pytest.raises(ScrmError) as refused:
        decode_event(raw)
    assert (refused.value.code, refused.value.path) == (code, path)
    assert "`" not in refused.value.message


# ---- both forms


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("form", ["array", "lines"])
async def test_every_item_is_answered_in_its_place(door: Door, form: str, size: int, pack: bool) -> None:
    items = [said(1), said(2, type="Bad"), FULL, said(1), said(1, properties={"n": 1}), {"nonsense": 1}]
    body = json.dumps(items).encode() if form == "array" else ndjson(*items)
    headers = JSON if form == "array" else LINES
    if pack:
        body, headers = gzip.compress(body), {**headers, "content-encoding": "gzip"}
    response = await door.post(pieces_of(size)(body), headers)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    answer = response.json()
    assert [(one["index"], one["status"], [error["code"] for error in one["errors"]]) for one in answer["results"]] == [
        (0, "ACCEPTED", []),
        (1, "REJECTED", ["INVALID_TYPE"]),
        (2, "REJECTED", ["INVALID_AMOUNT"]),
        (3, "DUPLICATE", []),
        (4, "REJECTED", ["IDEMPOTENCY_CONFLICT"]),
        (5, "REJECTED", ["INVALID_INPUT"]),
    ]
    assert {name: answer[name] for name in ("accepted", "duplicates", "rejected")} == {
        "accepted": 1,
        "duplicates": 1,
        "rejected": 4,
    }
    assert answer["results"][0]["eventId"] == answer["results"][3]["eventId"]
    ids = await door.db.read(lambda tx: [row.id for row in tx.rows(sa.select(events.c.id).where(events.c.source == "test"))])
    assert [f"Event_{key.hex}" for key in ids] == [answer["results"][0]["eventId"]]
    assert answer["results"][1]["errors"] == [
        {
            "code": "INVALID_TYPE",
            "message": 'the type "Bad" is not noun.verb in small letters, such as order.paid',
            "path": ["type"],
            "params": {"type": "Bad"},
        }
    ]
    assert answer["results"][1]["eventId"] is None


@pytest.mark.parametrize("form", ["array", "lines"])
async def test_more_than_a_batch_is_answered_whole_and_in_order(door: Door, form: str) -> None:
    count = BATCH + 3
    items = [said(n, identity={"channel": "web", "externalId": "one"}) for n in range(count)]
    body, headers = (json.dumps(items).encode(), JSON) if form == "array" else (ndjson(*items), LINES)
    answer = (await door.post(gzip.compress(body), {**headers, "content-encoding": "gzip"})).json()
    assert [one["index"] for one in answer["results"]] == list(range(count))
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (count, 0, 0)
    again = (await door.post(body, headers)).json()
    assert (again["accepted"], again["duplicates"], again["rejected"]) == (0, count, 0)
    assert [one["eventId"] for one in again["results"]] == [one["eventId"] for one in answer["results"]]
    assert await door.count() == count


@pytest.mark.parametrize(("body", "headers"), [(b"[]", JSON), (b"", LINES), (b"\n \r\n", LINES)])
async def test_nothing_is_answered_with_nothing(door: Door, body: bytes, headers: dict[str, str]) -> None:
    response = await door.post(body, headers)
    assert response.json() == {"results": [], "accepted": 0, "duplicates": 0, "rejected": 0}


async def test_lines_may_end_in_any_way_and_begin_with_a_mark(door: Door) -> None:
    one, two, three = (json.dumps(said(n)).encode() for n in range(3))
    response = await door.post(b"\xef\xbb\xbf" + one + b"\r\n\n" + two + b"\n{broken\n" + three, LINES)
    assert [one["status"] for one in response.json()["results"]] == ["ACCEPTED", "ACCEPTED", "REJECTED", "ACCEPTED"]


@pytest.mark.parametrize("size", [1_000, 1 << 22])
async def test_a_line_without_end_is_refused_and_the_next_is_not(door: Door, size: int) -> None:
    long = ndjson(said("long", properties={"a": "x" * (2 * MAX_LINE)}))
    response = await door.post(pieces_of(size)(ndjson(said(1)) + long + ndjson(said(2))), LINES)
    answer = [(one["status"], [error["code"] for error in one["errors"]]) for one in response.json()["results"]]
    assert answer == [("ACCEPTED", []), ("REJECTED", ["TOO_LARGE"]), ("ACCEPTED", [])]


async def test_half_a_surrogate_pair_in_an_array_is_one_items_fault(door: Door) -> None:
    response = await door.post(json.dumps([said(1), said(2, properties={"a": "\ud800"}), said(3)]).encode(), JSON)
    answer = [(one["status"], [error["code"] for error in one["errors"]]) for one in response.json()["results"]]
    assert answer == [("ACCEPTED", []), ("REJECTED", ["INVALID_TEXT"]), ("ACCEPTED", [])]


async def test_unknown_identities_may_be_refused(door: Door) -> None:
    response = await door.post(ndjson(said(1)), LINES, "?createUsers=false")
    assert [error["code"] for error in response.json()["results"][0]["errors"]] == ["UNKNOWN_IDENTITY"]
    assert await door.db.read(lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(users))) == 0


async def test_several_gzip_members_are_one_body(door: Door) -> None:
    body = gzip.compress(ndjson(said(1))) + gzip.compress(ndjson(said(2)))
    response = await door.post(pieces_of(11)(body), {**LINES, "content-encoding": "gzip"})
    assert response.json()["accepted"] == 2


# ---- what is refused whole

GZIP = {**LINES, "content-encoding": "gzip"}
REFUSED = [
    (b"[]", {"content-type": "text/csv"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    (b"[]", {}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    (b"[]", {**JSON, "content-encoding": "br"}, 415, "UNSUPPORTED_ENCODING"),
    (b"{}", JSON, 400, "INVALID_JSON"),
    (b"[1", JSON, 400, "INVALID_JSON"),
    (b"", JSON, 400, "INVALID_JSON"),
    (b"[" * 100_000, JSON, 400, "INVALID_JSON"),
    (b"[" + b" " * MAX_BODY + b"]", JSON, 413, "TOO_LARGE"),
    (gzip.compress(b"[" + b" " * MAX_BODY + b"]"), {**JSON, "content-encoding": "gzip"}, 413, "TOO_LARGE"),
    (gzip.compress(b"\n" * 50_000_000), GZIP, 413, "TOO_LARGE"),
    (b"no gzip", GZIP, 400, "INVALID_GZIP"),
    (b"", GZIP, 400, "INVALID_GZIP"),
    (gzip.compress(ndjson(said(1)))[:-4], GZIP, 400, "INVALID_GZIP"),
]


@pytest.mark.parametrize(("body", "headers", "status", "code"), REFUSED)
async def test_a_request_that_cannot_be_read_is_refused(
    door: Door, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    response = await door.post(pieces_of(1 << 16)(body), headers)
    assert (response.status_code, [error["code"] for error in response.json()["errors"]]) == (status, [code])
    assert response.json()["accepted"] == 0
    assert await door.count() == 0


async def test_a_body_said_to_be_too_long_is_not_read(door: Door) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"[]"

    response = await door.post(pieces(), {**JSON, "content-length": str(MAX_BODY + 1)})
    assert (response.status_code, response.json()["errors"][0]["code"]) == (413, "TOO_LARGE")
    said_right = await door.post(pieces(), {**JSON, "content-length": "2"})
    assert said_right.status_code == 200


async def test_what_was_recorded_before_the_body_broke_off_is_told(door: Door) -> None:
    body = gzip.compress(ndjson(*(said(n) for n in range(BATCH + 10))))
    response = await door.post(pieces_of(1_000)(body[:-4]), GZIP)
    assert (response.status_code, response.json()["accepted"]) == (400, BATCH)
    assert await door.count() == BATCH
    whole = (await door.post(body, GZIP)).json()
    assert (whole["accepted"], whole["duplicates"]) == (10, BATCH)


@pytest.mark.parametrize(("key", "status", "code"), [(None, 401, "UNAUTHENTICATED"), ("Bearer events:read", 403, "FORBIDDEN")])
async def test_without_the_scope_nothing_is_recorded(door: Door, key: str | None, status: int, code: str) -> None:
    del door.client.headers["authorization"]
    response = await door.post(ndjson(said(1)), {**LINES, **({"authorization": key} if key is not None else {})})
    assert (response.status_code, response.json()["errors"][0]["code"]) == (status, code)
    assert await door.count() == 0


async def test_a_flag_that_is_none_is_refused(door: Door) -> None:
    response = await door.post(ndjson(said(1)), LINES, "?createUsers=maybe")
    assert (response.status_code, response.json()["errors"][0]["path"]) == (400, ["createUsers"])
