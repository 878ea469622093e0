"""What a plugin's migration may touch: its own tables, inside the host's transaction. Anything else is refused, however it is
written: SQLite is asked while a statement is prepared, PostgreSQL says by its locks what a transaction has changed."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

_ENDS = re.compile(
    r"(?:[\s;\ufeff]|--[^\n\r]*[\n\r]|/\*.*?\*/)*(begin|commit|end|rollback(?!\s+to)|abort|start\s+transaction|prepare\s+transaction)\b",
    re.I | re.S,
)
_BY_TABLE = {
    sqlite3.SQLITE_CREATE_TABLE,
    sqlite3.SQLITE_DROP_TABLE,
    sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_DROP_VIEW,
    sqlite3.SQLITE_CREATE_VTABLE,
    sqlite3.SQLITE_DROP_VTABLE,
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_UPDATE,
    sqlite3.SQLITE_DELETE,
}
_BY_SECOND = {
    sqlite3.SQLITE_CREATE_INDEX,
    sqlite3.SQLITE_DROP_INDEX,
    sqlite3.SQLITE_CREATE_TRIGGER,
    sqlite3.SQLITE_DROP_TRIGGER,
    sqlite3.SQLITE_ALTER_TABLE,
}
_NEVER = {sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}

_RELATIONS = sa.text("""
select c.oid, coalesce(t.relname, o.relname, c.relname) as name
from pg_class c join pg_namespace s on s.oid = c.relnamespace
left join pg_index i on i.indexrelid = c.oid left join pg_class t on t.oid = i.indrelid
left join pg_depend d on c.relkind = 'S' and d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i')
left join pg_class o on o.oid = d.refobjid
where s.nspname not in ('pg_catalog', 'information_schema', 'pg_toast') and not starts_with(s.nspname, 'pg_temp')
  and not starts_with(s.nspname, 'pg_toast_temp')
""")
_OTHERS = sa.text("""
select 'schema' as kind, nspname::text as name from pg_namespace
where not starts_with(nspname, 'pg_temp') and not starts_with(nspname, 'pg_toast_temp')
union all select 'type', typname::text from pg_type t
where typtype in ('e', 'd', 'r') or (typtype = 'c' and (select relkind from pg_class c where c.oid = t.typrelid) = 'c')
union all select 'function', proname::text from pg_proc
union all select 'extension', extname::text from pg_extension
""")
_CHANGED = sa.text("""
select distinct relation as oid from pg_locks
where locktype = 'relation' and pid = pg_backend_pid() and mode not in ('AccessShareLock', 'RowShareLock')
""")


_NAMED = frozenset({"type", "function"})
"""What else may stay where it has the plugin's prefix."""


class MigrationRefusedError(Exception):
    """A migration touched what is not its plugin's."""


@dataclass
class _Seen:
    """What a migration has touched that is not its own."""

    owner: str
    owns: Callable[[str], bool]
    whose: Callable[[str], str | None]
    tables: dict[str, None] = field(default_factory=dict)
    made: dict[str, None] = field(default_factory=dict)
    ended: bool = False
    opened: bool = False

    def touch(self, table: str) -> bool:
        """Whether this is somebody else's."""
        if self.owns(table):
            return False
        self.tables[table] = None
        return True

    def check(self) -> None:
        if self.ended:
            raise MigrationRefusedError("it ends the transaction, which is the host's to end; take commit and rollback out")
        if self.opened:
            raise MigrationRefusedError("it opens a connection of its own, which the host could not undo; use op.get_bind()")
        if self.made:
            raise MigrationRefusedError(
                f"it makes {' and '.join(self.made)}, which a purge of {self.owner} would leave behind;"
                f" a migration makes tables, and types and functions whose names begin with {self.owner}_"
            )
        if not self.tables:
            return
        said = [f"{table}, which is {whose}'s" if (whose := self.whose(table)) else table for table in self.tables]
        raise MigrationRefusedError(
            f"it touches {' and '.join(said)}; a migration of {self.owner} makes, changes and refers to tables"
            f" whose names begin with {self.owner}_"
        )


@contextmanager
def guarded(
    connection: Connection, owner: str, owns: Callable[[str], bool], whose: Callable[[str], str | None]
) -> Iterator[None]:
    """Refuse what does not belong to `owner`; `whose` says for a table that is somebody's whose it is.

    Raises: MigrationRefusedError, also where the migration has swallowed what it was refused.
    """
    seen = _Seen(owner, owns, whose)
    look = _on_sqlite if connection.dialect.name == "sqlite" else _on_postgresql
    with _inside_the_transaction(connection, seen), look(connection, seen):
        try:
            yield
        except Exception:
            seen.check()
            raise
    seen.check()


@contextmanager
def _inside_the_transaction(connection: Connection, seen: _Seen) -> Iterator[None]:
    def refuse(*_: object) -> None:
        seen.ended = True
        seen.check()

    def read(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if _ENDS.match(statement):
            refuse()

    def opened(*_: object) -> None:
        seen.opened = True
        seen.check()

    sa.event.listen(connection.engine, "do_connect", opened)
    listeners: Mapping[str, Any] = {"commit": refuse, "rollback": refuse, "before_cursor_execute": read}
    for name, listener in listeners.items():
        sa.event.listen(connection, name, listener)
    try:
        yield
    finally:
        for name, listener in listeners.items():
            sa.event.remove(connection, name, listener)
        sa.event.remove(connection.engine, "do_connect", opened)


@contextmanager
def _on_sqlite(connection: Connection, seen: _Seen) -> Iterator[None]:
    raw: Any = connection.connection.driver_connection

    def authorize(action: int, first: str | None, second: str | None, database: str | None, _trigger: str | None) -> int:
        if action in _NEVER or (action == sqlite3.SQLITE_PRAGMA and first == "writable_schema"):
            seen.ended = True
            return sqlite3.SQLITE_DENY
        table = first if action in _BY_TABLE else second if action in _BY_SECOND else None
        if table is None or database == "temp" or table.startswith("sqlite_"):
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY if seen.touch(table) else sqlite3.SQLITE_OK

    before = _tables(connection)
    raw.set_authorizer(authorize)
    try:
        yield
    finally:
        raw.set_authorizer(None)
    after = _tables(connection)
    for table in after - before:  # a new name is given without asking for it
        seen.touch(table)
    for table in filter(seen.owns, sorted(after)):
        for key in connection.exec_driver_sql(f'pragma foreign_key_list("{table}")'):
            seen.touch(key[2])


def _tables(connection: Connection) -> set[str]:
    found = connection.exec_driver_sql(
        "select name from sqlite_master where type in ('table', 'view') and name not like 'sqlite%'"
    )
    return {row[0] for row in found}


@contextmanager
def _on_postgresql(connection: Connection, seen: _Seen) -> Iterator[None]:
    before = {row.oid: row.name for row in connection.execute(_RELATIONS)}
    known = {tuple(row) for row in connection.execute(_OTHERS)}
    yield
    for kind, name in sorted({tuple(row) for row in connection.execute(_OTHERS)} - known):
        if kind not in _NAMED or not seen.owns(name):
            seen.made[f"the {kind} {name}"] = None
    after = {row.oid: row.name for row in connection.execute(_RELATIONS)}
    for row in connection.execute(_CHANGED):
        for name in {before.get(row.oid), after.get(row.oid)} - {None}:
            seen.touch(str(name))
    for oid in after.keys() - before.keys():
        seen.touch(after[oid])
