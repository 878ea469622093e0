"""Rows handed to the database as one parameter come out as what they went in as, on both engines."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from scrm.db import Database, Id, Instant, Text, Tx, json_rows
from scrm.rowset import id_set, row_set
from scrm.users.models import users

ONE = uuid.UUID("019ccc84-e1d7-735d-80c8-dac5a25af29e")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KINDS: dict[str, TypeEngine[Any]] = {"id": Id, "at": Instant(), "day": sa.Date(), "text": Text, "n": sa.Integer()}
ROW = {"id": ONE, "at": AT, "day": date(2026, 1, 2), "text": "王", "n": 7}


def test_ids_and_times_are_written_as_sqlite_keeps_them() -> None:
    there = AT.astimezone(timezone(timedelta(hours=8)))
    said = orjson.loads(json_rows([{**ROW, "at": there}, {"id": None}, ONE, "x", 1]))
    kept = {**ROW, "id": ONE.hex, "at": "2026-01-02T03:04:05.000000Z", "day": "2026-01-02"}
    assert said == [kept, {"id": None}, ONE.hex, "x", 1]


async def test_rows_come_out_as_they_went_in(database: Database) -> None:
    nothing = dict.fromkeys(KINDS)

    def read(tx: Tx) -> list[dict[str, object]]:
        said = row_set(tx, "said", KINDS, [ROW, nothing])
        return [dict(row._mapping) for row in tx.rows(sa.select(said).order_by(sa.column("n").nulls_last()))]

    assert await database.read(read) == [ROW, nothing]


async def test_ids_meet_the_ids_of_a_table(database: Database) -> None:
    def write(tx: Tx) -> list[uuid.UUID]:
        tx.execute(sa.insert(users).values(id=ONE, attributes={}, created_at=AT, updated_at=AT))
        said = id_set(tx, "said", [ONE, uuid.UUID(int=1)])
        return [row.id for row in tx.rows(sa.select(users.c.id).join(said, said.c.id == users.c.id))]

    assert await database.write(write) == [ONE]
