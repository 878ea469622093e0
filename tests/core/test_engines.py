"""Both engines of the tests are there and are what they say."""

import asyncio

import pytest
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from scrm.db import Database
from scrm.errors import UnavailableError
from scrm.testing import PostgresServer, PostgresUnavailableError, postgres_server


def count(connection: Connection) -> int:
    return int(connection.execute(text("select count(*) from probe")).scalar_one())


def answer(connection: Connection) -> int:
    connection.execute(text("create table probe (n integer)"))
    connection.execute(text("insert into probe values (1)"))
    return count(connection)


async def test_engine_answers_from_an_empty_database(database_url: str) -> None:
    if make_url(database_url).get_backend_name() == "sqlite":
        engine = create_engine(database_url)
        with engine.begin() as connection:
            assert answer(connection) == 1
        engine.dispose()
        return
    async_engine = create_async_engine(database_url)
    async with async_engine.begin() as async_connection:
        assert await async_connection.run_sync(answer) == 1
    await async_engine.dispose()


async def rows(url: str) -> int:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(count)
    finally:
        await engine.dispose()


async def test_a_database_made_from_a_template_is_a_copy_of_its_own(postgres: PostgresServer) -> None:
    with postgres.database() as template:
        engine = create_async_engine(template)
        async with engine.begin() as connection:
            await connection.run_sync(answer)
        await engine.dispose()
        with postgres.database(template) as first, postgres.database(template) as second:
            engine = create_async_engine(first)
            async with engine.begin() as connection:
                await connection.execute(text("delete from probe"))
            await engine.dispose()
            assert [await rows(first), await rows(second), await rows(template)] == [0, 1, 1]


def test_a_foreign_database_is_neither_copied_nor_dropped(postgres: PostgresServer) -> None:
    foreign = postgres.url.render_as_string(hide_password=False)
    with pytest.raises(ValueError, match="database postgres was not created"):
        postgres.drop_database(foreign)
    with pytest.raises(ValueError, match="database postgres was not created"):
        postgres.create_database(foreign)


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRM_TEST_POSTGRES", "postgresql://nobody:secret@127.0.0.1:1/postgres")
    with pytest.raises(PostgresUnavailableError, match=r"nobody:\*\*\*@127.0.0.1:1/postgres does not answer"), postgres_server():
        pass


async def test_a_query_that_nobody_waits_for_ends(database_url: str) -> None:
    """Else a few of them would hold every connection for as long as they take, which is hours."""
    endless = "with recursive c(n) as (select 1 union all select n + 1 from c where n < 1000000000) select count(*) from c"
    db = Database(database_url, pool_size=2)
    try:
        await db.write(lambda tx: tx.execute(text("create table probe (n integer)")))
        for _ in range(3):
            asked = [asyncio.create_task(db.fetch(endless, ())) for _ in range(4)]
            done, _ = await asyncio.wait(asked, timeout=0.2)
            assert not done
            for each in asked:
                each.cancel()
            assert await asyncio.wait_for(db.fetch("select count(*) from probe", ()), 10) == [(0,)]
    finally:
        await db.close()


async def test_what_the_url_says_of_the_connection_holds_for_services_and_queries(postgres: PostgresServer) -> None:
    with postgres.database() as url:
        for option in ("ssl=prefer", "ssl=disable"):
            db = Database(f"{url}?{option}")
            assert await db.read(lambda tx: tx.scalar(text("select 1"))) == 1
            assert await db.fetch("select 1", ()) == [(1,)]
            await db.close()
        db = Database(f"{url}?ssl=require")
        for ask in (db.read(lambda tx: tx.scalar(text("select 1"))), db.fetch("select 1", ())):
            with pytest.raises(UnavailableError):
                await ask
        await db.close()
