"""Tables built in a scratch take the place of the live ones: dropped and moved, so that no trigger stands in the way."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.engine import Connection

_RELATIONS = """
select c.relname, c.relkind::text as kind from pg_class c join pg_namespace s on s.oid = c.relnamespace
where s.nspname = '{schema}' and c.relkind in ('r', 'p', 'v', 'm', 'S') and not c.relname like 'alembic_version%%'
  and not exists (select from pg_depend d
    where d.objid = c.oid and d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i') and c.relkind = 'S')
order by c.relkind in ('v', 'm'), c.relname
"""
_FUNCTIONS = """
select quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')' as name
from pg_proc p join pg_namespace s on s.oid = p.pronamespace where s.nspname = '{schema}'
"""
_TYPES = """
select t.typname from pg_type t join pg_namespace s on s.oid = t.typnamespace
where s.nspname = '{schema}' and t.typtype in ('e', 'd')
"""
_WORDS = {"r": "table", "p": "table", "v": "view", "m": "materialized view", "S": "sequence"}


def swap_postgresql(connection: Connection, tables: Sequence[str], home: str, scratch: str) -> None:
    """Within the connection's transaction: all that the plugin's migrations made in `scratch` replaces its like in `home`."""
    run = connection.exec_driver_sql
    relations = [(row.relname, _WORDS[row.kind]) for row in run(_RELATIONS.format(schema=scratch))]
    functions = [row.name for row in run(_FUNCTIONS.format(schema=scratch))]
    types = [row.typname for row in run(_TYPES.format(schema=scratch))]
    for name, word in reversed(relations):
        if word != "table":
            run(f'drop {word} if exists "{home}"."{name}"')
    gone = dict.fromkeys([*tables, *(name for name, word in relations if word == "table")])
    if gone:
        run("drop table if exists " + ", ".join(f'"{home}"."{name}"' for name in gone))
    for name in functions:
        run(f'drop function if exists "{home}".{name}')
    for name in types:
        run(f'drop type if exists "{home}"."{name}"')
    for name, word in relations:
        run(f'alter {word} "{scratch}"."{name}" set schema "{home}"')
    for name in functions:
        run(f'alter function "{scratch}".{name} set schema "{home}"')
    for name in types:
        run(f'alter type "{scratch}"."{name}" set schema "{home}"')
    run(f'drop schema "{scratch}" cascade')


def swap_sqlite(live: Path, scratch: Path, tables: Sequence[str]) -> None:
    """In one transaction of its own: the tables in the file `scratch` replace those in `live`, with indexes and triggers."""
    with contextlib.closing(sqlite3.connect(live, isolation_level=None, timeout=60)) as connection:
        connection.execute("pragma foreign_keys = off")
        connection.execute("attach database ? as scratch", (str(scratch),))
        connection.execute("begin immediate")
        try:
            marks = ", ".join("?" * len(tables))
            made = connection.execute(
                "select type, name, sql from scratch.sqlite_master where tbl_name in (" + marks + ") and sql is not null"
                " order by case type when 'table' then 0 when 'index' then 1 else 2 end",
                list(tables),
            ).fetchall()
            for name in reversed(tables):
                connection.execute(f'drop table if exists main."{name}"')
            for _, name, sql in (one for one in made if one[0] == "table"):
                connection.execute(sql)
                connection.execute(f'insert into main."{name}" select * from scratch."{name}"')
            for _, _, sql in (one for one in made if one[0] != "table"):
                connection.execute(sql)
            connection.execute("commit")
        except BaseException:
            connection.execute("rollback")
            raise
