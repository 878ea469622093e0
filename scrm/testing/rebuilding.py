"""A plugin's tables built again and again in one process: its migrations run once, what they said is said again."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scrm.migrate import HasContribution, upgrade_owner

_said: dict[tuple[Any, ...], list[tuple[str, Any]]] = {}
"""By engine and migrations: statements with their parameters, in which `_SCHEMA` stands for the schema."""
_SCHEMA = "\0schema\0"


def rebuild(connection: Connection, plugin: HasContribution, schema: str | None = None) -> None:
    """What `scrm.migrate.upgrade_owner` does, for tables that are built where there are none."""
    directory = plugin.contribution.migrations
    if directory is None:
        return
    files = sorted((file.name, file.stat().st_mtime_ns) for file in directory.glob("*.py"))
    key = (connection.dialect.name, plugin.contribution.name, directory, tuple(files))
    if key not in _said:
        _said[key] = _listening(connection, plugin, schema)
        return
    for statement, parameters in _said[key]:
        connection.exec_driver_sql(statement.replace(_SCHEMA, schema or ""), parameters or None)


def _listening(connection: Connection, plugin: HasContribution, schema: str | None) -> list[tuple[str, Any]]:
    heard: list[tuple[str, Any]] = []

    def hear(_connection: object, _cursor: object, statement: str, parameters: Any, _context: object, _many: bool) -> None:
        heard.append((statement.replace(schema, _SCHEMA) if schema else statement, parameters))

    sa.event.listen(connection, "before_cursor_execute", hear)
    try:
        upgrade_owner(connection, plugin, schema)
    finally:
        sa.event.remove(connection, "before_cursor_execute", hear)
    return heard
