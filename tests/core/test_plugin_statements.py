"""What a statement writes is read from its text: whatever a plugin built it of."""

from __future__ import annotations

import pytest

from scrm.statements import Reading, read_statement

SQLITE, POSTGRESQL = "sqlite", "postgresql"
UPSERT = "INSERT INTO a_rows (x) VALUES (?) ON CONFLICT (x) DO UPDATE SET x = excluded.x"
MERGE = "merge into a_rows using x on 1 = 1 when matched then update set a = 1 when not matched then insert (a) values (1)"


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def dialect(request: pytest.FixtureRequest) -> str:
    """Each of the two."""
    return str(request.param)


@pytest.mark.parametrize(
    ("text", "writes"),
    [
        ("select 1", ()),
        ("(select 1)", ()),
        ("select * from x where b = 'delete from users; commit'", ()),
        ("select 1 -- delete from users", ()),
        ("select replace(a, 'x', 'y'), update_time, \"update\", x.delete from x", ()),
        ("select * from x for update of a_rows", ()),
        ("select * from x for no key update", ()),
        ("delete from users", ("users",)),
        ('DELETE FROM ONLY public."Users" WHERE true', ("Users",)),
        ("with gone as (delete from users returning 1) select * from gone", ("users",)),
        ("WITH m AS (SELECT 1) UPDATE a_rows SET x = 1 FROM m", ("a_rows",)),
        (UPSERT, ("a_rows",)),
        (MERGE, ("a_rows",)),
        ("update or replace a_rows set x = 1", ("a_rows",)),
        ("insert or ignore into a_rows select * from users", ("a_rows",)),
        ("select 1 into copied", ("copied",)),
        ("with a as (insert into b values (1) returning 1), c as (update d set e = 1) select 1", ("b", "d")),
    ],
)
def test_the_tables_that_are_written_are_found(text: str, writes: tuple[str, ...], dialect: str) -> None:
    read = read_statement(text, dialect)
    assert (read.writes, read.refused) == (writes, None)


@pytest.mark.parametrize(
    ("dialect", "text", "writes"),
    [
        (POSTGRESQL, "select E'it\\'s; delete from users'", ()),
        (POSTGRESQL, "select $$ delete from users $$, $a$ $$ update users $a$", ()),
        (POSTGRESQL, "with x as (select 1) /* /* */ ' */ update users set a = 1 where 'a' <> ''", ("users",)),
        (POSTGRESQL, "with x as (select 1) -- '\r update users set a = 1 where 'a' <> ''", ("users",)),
        (POSTGRESQL, "select a[1] from x where b ~ '^\\d+$'", ()),
        (SQLITE, "replace into `a_rows` values (1)", ("a_rows",)),
        (SQLITE, "with x as (select e'\\') update users set a = 1 where 'a' <> ''", ("users",)),
        (SQLITE, "with x as (select $$ from y) update users set a = 1 where $$", ("users",)),
        (SQLITE, "with x as (select 1) /* /* */ update users set a = 1 -- */", ("users",)),
        (SQLITE, "with x as (select 1) \ufeffupdate users set a = 1", ("users",)),
    ],
)
def test_comments_and_quotes_are_read_as_each_database_reads_them(dialect: str, text: str, writes: tuple[str, ...]) -> None:
    read = read_statement(text, dialect)
    assert read == Reading(writes)


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        (POSTGRESQL, 'with x as (select 1) update U&"\\0075sers" set a = 1'),
        (POSTGRESQL, "select U&'a'"),
        (POSTGRESQL, "with x as (select 1 as \u00a0e'\\') update users set a = 1 where 'a' <> ''"),
        (POSTGRESQL, "with x as (select '\\') update users set a = 1 where 'a' <> ''"),
        (POSTGRESQL, "with x as (select E'a'\n'\\'') update users set a = 1 where 'a' <> ''"),
        (POSTGRESQL, "select 1 /* /* */"),
        (POSTGRESQL, "select ` update users `"),
        (SQLITE, "with x as (select 1 as [ ' ]) update users set a = 1 where 'a' <> ''"),
        (SQLITE, "with x as (select $a(')) update users set a = 1 where 'a' <> ''"),
        (SQLITE, "select 1 /* and so on"),
        (SQLITE, "select 'half"),
        (SQLITE, "select 1 \0 update"),
    ],
)
def test_what_cannot_be_read_for_sure_is_refused(dialect: str, text: str) -> None:
    assert read_statement(text, dialect).refused == "what cannot be read for sure"


@pytest.mark.parametrize(
    "text",
    [
        "commit",
        "/* done */ ROLLBACK",
        "-- done\nsavepoint x",
        "begin",
        "select 1; commit",
        "drop table users",
        "create table a_more (id int)",
        "truncate users",
        "copy users from stdin",
        "do $$ begin delete from users; end $$",
        "explain analyze delete from users",
        "pragma writable_schema = on",
        "attach database 'x' as y",
        "delete from [users]",
        "",
    ],
)
def test_what_no_plugin_sends_is_refused(text: str, dialect: str) -> None:
    assert read_statement(text, dialect).refused is not None
