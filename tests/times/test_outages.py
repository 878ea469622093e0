"""The database goes away and comes back: every door says so with one code, and all go on by themselves."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from types import SimpleNamespace
from typing import Any

import asyncpg
import httpx2
import psutil
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import scrm.db
from scrm.availability import why_unavailable
from scrm.config import ServerSettings
from scrm.db import Database, Tx
from scrm.errors import UnavailableError
from scrm.events.sequencer import head
from scrm.plugin import Contribution, Handler, HandlerTx, PluginContext, Route, hookimpl
from scrm.testing.client import Client
from scrm.testing.following import following
from tests.core.test_subscriptions import socket, stream
from tests.times.conftest import Engine, File, Server
from tests.times.till import (
    LOYALTY,
    RECORD,
    REDEEM,
    Sound,
    answers,
    key_of,
    member,
    opened,
    paid,
    redemption,
    settle,
    working,
)

Call = Callable[[], Awaitable[httpx2.Response]]
SHORT = "{ channels { nodes { key } } }"
LONG = "{ ...Both } fragment Both on Query { a: channels { nodes { key } } b: channels { totalCount } }"
NAME = 'mutation { createUser(input: {displayName: "x"}) { user { id } errors { code } } }'


async def _reached(request: Request, context: PluginContext) -> Response:
    return JSONResponse({"head": await context.read(head)})


def _probe() -> Any:
    def contribute() -> Contribution:
        routes = [Route("/open", ("GET",), _reached, public=True), Route("/closed", ("GET",), _reached, scope="users:read")]
        return Contribution(name="probe", version="1.0", routes=routes)

    return SimpleNamespace(__name__="probe", contribute=hookimpl(contribute))


def doors(client: Client, user: str) -> dict[str, Call]:
    """Every way to ask the server for something that needs the database."""
    http = client.http

    def graphql(query: str, **variables: Any) -> Call:
        return lambda: http.post("/graphql", json={"query": query, "variables": variables})

    return {
        "query": graphql(SHORT),
        "query that is executed": graphql(LONG),
        "GET": lambda: http.get("/graphql", params={"query": SHORT}),
        "createUser": graphql(NAME),
        "recordEvents": graphql(RECORD, events=[paid(key_of("door"))]),
        "redeemPoints": graphql(REDEEM, **redemption(user, 1, key_of("door"))),
        "events": lambda: http.post("/events", json=[paid(key_of("door"))]),
        "route": lambda: http.get("/plugins/probe/open"),
        "route with a scope": lambda: http.get("/plugins/probe/closed"),
        "readyz": lambda: http.get("/readyz"),
    }


def code(answer: dict[str, Any]) -> str:
    """The one code of all errors of an answer."""
    codes = [error.get("code") or error["extensions"]["code"] for error in answer.get("errors", [answer])]
    [found] = set(codes)
    return str(found)


def discreet(text: str, url: str) -> bool:
    """Whether nothing is said of where the database is, and of what it was asked."""
    parts = make_url(url)
    secret = [parts.password, parts.database, parts.host, "sqlite", "postgres", "asyncpg", "select ", "insert ", "traceback"]
    return not any(word.lower() in text.lower() for word in secret if word)


async def test_every_door_says_so_and_all_go_on_when_it_is_back(engine: Engine) -> None:
    async with opened(engine.url, modules={**LOYALTY, "probe": _probe()}) as client, working(client):
        await client.data(RECORD, events=[paid(key_of("first"), "ann", 100)], waitFor=["loyalty"])
        ann = await member(client, "ann")
        fresh = client.with_key(await client.key("*", name="not seen yet"))
        wrong = client.with_key("scrm_" + "x" * 43)
        every = {**doors(client, ann), "a key not seen yet": doors(fresh, ann)["query"], "no key": doors(wrong, ann)["query"]}
        every["no key for events"] = doors(wrong, ann)["events"]
        before = {name: (await call()).status_code for name, call in every.items()}
        assert before == {name: 401 if name.startswith("no key") else 200 for name in every}
        engine.stop()
        try:
            part = await client.graphql("{ __typename channels { nodes { key } } }")
            assert (part["data"], code(part)) == ({"__typename": "Query", "channels": None}, "UNAVAILABLE")
            for name, call in every.items():
                said = await call()
                assert (name, said.status_code, code(said.json())) == (name, 503, "UNAVAILABLE")
                assert int(said.headers["retry-after"]) > 0
                assert discreet(said.text, engine.url), said.text
        finally:
            engine.start()
        for name, call in every.items():
            if not name.startswith("no key"):
                await answers(call)
        assert (await client.events([paid("after", "ann", 7)]))["accepted"] == 1
        readers = ["core", "loyalty", "probe"]
        await settle(client.services.db, readers)
        await Sound(client).check(["after"], readers)


async def test_what_is_open_when_it_goes_ends_with_a_code_or_goes_on(engine: Engine) -> None:
    live = 'subscription { eventRecorded(filter: {source: ["till"]}) { position } }'
    async with opened(engine.url) as client:
        unseen = await client.key("*")
        async with following(client, live) as followed, stream(client, live) as hear:
            assert (await hear())[0] == 200
            engine.stop()
            try:
                with pytest.raises(AssertionError, match="UNAVAILABLE"):
                    await followed.next()
                assert code(await hear()) == "UNAVAILABLE"
                async with socket(client, greet=False) as late:
                    assert await late.greet({"Authorization": f"Bearer {unseen}"}) == {"close": 1013}
            finally:
                engine.start()
        async with following(client, live) as followed:
            await client.data(RECORD, events=[paid("later")])
            assert (await followed.next())["eventRecorded"]["position"] >= 1


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "killed"])
async def test_a_restart_that_nobody_noticed_costs_no_request(server: Server, crash: bool) -> None:
    """Every connection of both pools is dead by then."""
    server.crash = crash
    async with opened(server.url) as client:

        async def ask() -> list[int]:
            """Of all at once, so that both pools are full."""
            asked = (client.http.post("/graphql", json={"query": query}) for query in (SHORT, NAME, LONG) * 6)
            return [said.status_code for said in await asyncio.gather(*asked)]

        assert await ask() == [200] * 18
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        assert await ask() == [200] * 18


async def test_a_server_that_stands_still_keeps_nobody_waiting(server: Server) -> None:
    """As when its machine or its disk hangs: connections are open, and nothing comes over them."""
    async with opened(server.url, server=ServerSettings(timeout_seconds=1)) as client:
        unseen = client.with_key(await client.key("*", name="unseen"))

        async def ask(asker: Client, query: str) -> int:
            async with asyncio.timeout(15):
                return (await asker.http.post("/graphql", json={"query": query})).status_code

        asked = [(asker, query) for asker in (client, unseen) for query in (SHORT, NAME, LONG)]
        await ask(client, NAME)
        stopped = await server.processes()
        for process in stopped:
            process.suspend()
        try:
            assert await asyncio.gather(*(ask(*each) for each in asked)) == [503] * 6
        finally:
            for process in stopped:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
        async with asyncio.timeout(15):
            while await ask(client, LONG) != 200:
                pass
        assert [await ask(*each) for each in asked] == [200] * 6


async def test_nothing_acknowledged_is_lost_when_it_goes_under_load(engine: Engine) -> None:
    if isinstance(engine, Server):
        engine.crash = True
    noted: set[str] = set()
    async with opened(engine.url) as client, working(client, 2):
        busy, away = asyncio.Event(), asyncio.Event()

        async def post(name: int) -> None:
            for n in range(12):
                keys = [f"{name}-{n}-{m}" for m in range(5)]
                while True:
                    said = await client.http.post("/events", json=[paid(key, f"m{name}") for key in keys])
                    if said.status_code == 200:
                        break
                    assert (said.status_code, code(said.json())) == (503, "UNAVAILABLE")
                    away.set()
                    await asyncio.sleep(0.05)
                assert {one["status"] for one in said.json()["results"]} <= {"ACCEPTED", "DUPLICATE"}
                noted.update(keys)
                if len(noted) >= 60:
                    busy.set()

        posting = asyncio.gather(*(post(name) for name in range(6)))
        await asyncio.wait_for(busy.wait(), 20)
        await asyncio.to_thread(engine.stop)
        await asyncio.wait_for(away.wait(), 10)
        await asyncio.to_thread(engine.start)
        await asyncio.wait_for(posting, 30)
        await settle(client.services.db)
        await Sound(client).check(noted)
    assert len(noted) == 6 * 12 * 5


async def test_a_handler_that_was_at_work_when_it_went_is_not_at_fault(server: Server) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handle(tx: HandlerTx, _batch: Sequence[Any], _rules: Any) -> None:
        loop.call_soon_threadsafe(begun.set)
        tx.scalar(sa.text("select pg_sleep(0.7)"))

    def contribute() -> Contribution:
        return Contribution(name="slow", version="1.0", handlers=[Handler(("order.paid",), handle)])

    slow = SimpleNamespace(__name__="slow", contribute=hookimpl(contribute))
    async with opened(server.url, modules={"slow": slow}) as client, working(client):
        for crash in (True, False):
            server.crash = crash
            begun.clear()
            await client.events([paid(key_of("slow"))])
            await asyncio.wait_for(begun.wait(), 20)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            await answers(lambda: client.http.get("/readyz"))
        await settle(client.services.db, ["core", "slow"])
        await Sound(client).check(readers=["core", "slow"])


# ---- no room, no lock, no connection


async def test_a_full_disk_is_said_and_nothing_is_half_done(file: File) -> None:
    async with opened(file.url) as client, working(client):
        await client.data(RECORD, events=[paid("first")], waitFor=["loyalty"])
        pages = limit_pages(client.services.db)
        noted, refused = ["first"], []
        for n in range(16):
            keys = [f"{n}-{m}" for m in range(30)]
            said = await client.http.post("/events", json=[paid(key, f"m{key}") for key in keys])
            if said.status_code == 200:
                noted += keys
            else:
                assert (said.status_code, code(said.json())) == (503, "UNAVAILABLE")
                refused.append(keys)
        assert 16 > len(refused) > 4, "there was room for all of it"
        assert (await client.http.post("/graphql", json={"query": SHORT})).status_code == 200, "reading needs no room"
        pages.clear()
        for keys in refused:
            answer = (await client.http.post("/events", json=[paid(key, f"m{key}") for key in keys])).json()
            assert (answer["accepted"], answer["duplicates"]) == (30, 0)
            noted += keys
        await settle(client.services.db)
        await Sound(client).check(noted)


def limit_pages(db: Database) -> list[int]:
    """Let the database hardly grow any more, while the list that is returned has something in it."""
    with closing(sqlite3.connect(str(db.url.database))) as connection:
        limit = [connection.execute("pragma page_count").fetchone()[0] + 20]

    def limited(connection: Any, _record: object, _proxy: object) -> None:
        connection.execute(f"pragma max_page_count = {limit[0] if limit else 1 << 30}").fetchone()

    sa.event.listen(db._backend.engine, "checkout", limited)
    return limit


async def test_a_lock_that_is_never_given_up_is_said(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrm.db, "PATIENCE", 0.2)
    async with opened(file.url) as client:
        with closing(sqlite3.connect(file.path, isolation_level=None)) as other:
            other.execute("begin immediate")
            said = await client.http.post("/graphql", json={"query": NAME})
            assert (said.status_code, code(said.json())) == (503, "UNAVAILABLE")
            said = await client.http.post("/events", json=[paid("locked")])
            assert (said.status_code, code(said.json())) == (503, "UNAVAILABLE")
            assert (await client.http.post("/graphql", json={"query": SHORT})).status_code == 200
        assert (await client.events([paid("locked")]))["accepted"] == 1


async def test_a_pool_that_gives_none_is_said(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if migrated_url.startswith("sqlite"):
        pytest.skip("has threads and no pool: what waits too long is TIMEOUT")
    monkeypatch.setattr(scrm.db, "PATIENCE", 0.2)
    async with opened(migrated_url, database_pool=1) as client:
        db = client.services.db
        taken, release = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with db.snapshot() as snapshot:
                await snapshot.fetch("select 1", ())
                taken.set()
                await release.wait()

        holding = asyncio.create_task(hold())
        await taken.wait()
        said = await client.http.post("/graphql", json={"query": SHORT})
        assert (said.status_code, code(said.json())) == (503, "UNAVAILABLE")
        writing = asyncio.create_task(db.write(lambda tx: tx.execute(sa.text("select pg_sleep(1)"))))
        await asyncio.sleep(0)
        said = await client.http.post("/graphql", json={"query": NAME})
        assert (said.status_code, code(said.json())) == (503, "UNAVAILABLE")
        release.set()
        await asyncio.gather(holding, writing)
        for query in (SHORT, NAME):
            assert (await client.http.post("/graphql", json={"query": query})).status_code == 200


async def test_a_server_without_a_free_connection_is_said(server: Server) -> None:
    connection = await asyncpg.connect(server.url.replace("+asyncpg", ""))
    await connection.execute("drop role if exists few")
    await connection.execute("create role few login password 'few' connection limit 1")
    url = make_url(server.url).set(username="few", password="few").render_as_string(hide_password=False)
    db = Database(url, pool_size=1)
    try:
        assert await db.fetch("select 1", ()) == [(1,)]
        with pytest.raises(UnavailableError):
            await db.read(lambda tx: tx.scalar(sa.text("select 1")))
    finally:
        await db.close()
        await connection.execute("drop role few")
        await connection.close()


# ---- what counts


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode, error.sqlite_errorname = code, f"SQLITE_{code}"
    return error


class Stated(Exception):
    """What PostgreSQL says, by its state."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("x")
        self.sqlstate = sqlstate


AWAY = [ConnectionResetError(), sa.exc.TimeoutError(), *(sqlite_error(code) for code in (5, 6, 8, 10, 11, 13, 14, 261, 1038))]
AWAY += [Stated(state) for state in ("08006", "25006", "3D000", "53100", "53300", "57P01", "57P02", "57P03", "58030")]
AWAY += [asyncpg.InterfaceError("cannot call Connection.fetch(): connection is closed"), asyncpg.CannotConnectNowError("x")]
AWAY += [asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")]
HERE = [ValueError(), OSError(), FileNotFoundError(), TimeoutError(), *(sqlite_error(code) for code in (1, 9, 19))]
HERE += [Stated(state) for state in ("23505", "40001", "40P01", "42P01", "57014")]
HERE += [asyncpg.InterfaceError("the server expects 1 argument for this query, 2 were passed")]


@pytest.mark.parametrize("wrapped", [False, True], ids=["raw", "by SQLAlchemy"])
def test_what_counts_as_away(wrapped: bool) -> None:
    def is_away(error: BaseException) -> bool:
        return why_unavailable(sa.exc.OperationalError("select 1", {}, error) if wrapped else error) is not None

    drivers = [error for error in AWAY + HERE if not wrapped or not isinstance(error, OSError | sa.exc.TimeoutError)]
    assert [error for error in drivers if is_away(error)] == [error for error in drivers if error in AWAY]


async def test_a_function_that_cannot_open_a_file_does_not_speak_of_the_database(database: Database) -> None:
    def missing(_tx: Tx) -> None:
        raise FileNotFoundError("a file of the caller's")

    with pytest.raises(FileNotFoundError):
        await database.read(missing)
    with pytest.raises(FileNotFoundError):
        await database.write(missing)
