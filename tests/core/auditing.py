"""A database whose audit log tests write, tamper with and verify."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.audit import audit
from scrm.cli import run
from scrm.db import Database, Tx
from scrm.models import audit_log

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECRET, OTHER = "s" * 40, "t" * 40


@dataclass
class Said:
    code: int
    out: str
    err: list[str]


class Brand:
    """A database and the command line on it."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Said:
        self._capsys.readouterr()
        code = run(["audit", *arguments])
        said = self._capsys.readouterr()
        return Said(code, said.out, said.err.splitlines())

    def verify(self, *arguments: str) -> dict[str, Any]:
        """What verify found; its exit code fits."""
        said = self("verify", "--json", *arguments)
        found: dict[str, Any] = json.loads(said.out)
        assert (said.code, said.err) == (1 if found["breaks"] else 0, [])
        return found

    def breaks(self, *arguments: str) -> list[tuple[str, int | None, str | None]]:
        return [(each["kind"], each["seq"], each["auditId"]) for each in self.verify(*arguments)["breaks"]]

    def write(self, change: Callable[[Tx], Any]) -> Any:
        async def work() -> Any:
            async with opened(self.url) as db:
                return await db.write(change)

        return asyncio.run(work())

    def fill(self, count: int) -> list[str]:
        """Write so many lines; returns the ids of all, in order."""
        found: list[str] = self.write(lambda tx: written(tx, count))
        return found


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    db = Database(url, clock=lambda: AT)
    try:
        yield db
    finally:
        await db.close()


def written(tx: Tx, count: int, actor: str = "shop") -> list[str]:
    """Write so many lines; returns the ids of all, in order."""
    for number in range(count):
        audit(tx, actor, "tag.created", f"Tag_{number:032x}", {"key": f"t{number}"}, at=AT + timedelta(seconds=number))
    return [row.id.hex for row in tx.rows(sa.select(audit_log.c.id).order_by(audit_log.c.id))]


def unguarded(tx: Tx, *statements: str) -> None:
    """Take the triggers away, as somebody can who owns the database, and do something."""
    for table in ("audit_log", "audit_chain"):
        if tx.dialect == "sqlite":
            for name in ("update", "delete", "replace"):
                tx.execute(sa.text(f"drop trigger {table}_no_{name}"))
        else:
            tx.execute(sa.text(f"drop trigger {table}_append_only on {table}"))
    for statement in statements:
        tx.execute(sa.text(statement.replace(":", r"\:")))
