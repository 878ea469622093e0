"""What a statement writes is read from its text: whatever a plugin built it of."""

from __future__ import annotations

import pytest

from scrm.statements import read_statement

UPSERT = "INSERT INTO a_rows (x) VALUES (?) ON CONFLICT (x) DO UPDATE SET x = excluded.x"
MERGE = "merge into a_rows using x on 1 = 1 when matched then update set a = 1 when not matched then insert (a) values (1)"


@pytest.mark.parametrize(
    ("text", "writes"),
    [
        ("select 1", ()),
        ("(select 1)", ()),
        ("select * from x where b = 'delete from users; commit'", ()),
        ("select E'it\\'s; delete from users'", ()),
        ("select $$ delete from users $$", ()),
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
        ("replace into `a_rows` values (1)", ("a_rows",)),
        ("select 1 into copied", ("copied",)),
        ("with a as (insert into b values (1) returning 1), c as (update d set e = 1) select 1", ("b", "d")),
    ],
)
def test_the_tables_that_are_written_are_found(text: str, writes: tuple[str, ...]) -> None:
    read = read_statement(text)
    assert (read.writes, read.refused) == (writes, None)


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
def test_what_no_plugin_sends_is_refused(text: str) -> None:
    assert read_statement(text).refused is not None
