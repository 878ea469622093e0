"""A batch costs a handful of statements, whatever its size."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.api import Announcement, HandlerTx, LogEvent, Tx, new_id
from scrm_loyalty.handlers import follow
from scrm_loyalty.models import entries, lots
from scrm_loyalty.rules import LoyaltyRules
from tests.plugins.shop import opened

AT = datetime(2026, 3, 1, 4, tzinfo=UTC)


class Counting(HandlerTx):
    """A handler's transaction that counts statements."""

    def __init__(self, tx: Tx) -> None:
        self.dialect = tx.dialect
        self.count = 0
        self.announced = 0
        self._run = tx.execute

    def execute(self, statement: sa.Executable, parameters: Any = None) -> Any:
        self.count += 1
        return self._run(statement, parameters)

    def announce(self, announcement: Announcement) -> uuid.UUID:
        self.announced += 1
        return announcement.cause.id


def order(type: str, user: uuid.UUID, key: str, amount: int) -> LogEvent:
    """An event as a handler sees it."""
    properties = {"orderId": key}
    said = (AT, AT, date(2026, 3, 1), amount, "CNY", properties, "shop", f"{type} {key}")
    return LogEvent(new_id(), 1, type, user, None, *said)


@pytest.mark.parametrize("size", [10, 500])
async def test_a_batch_is_a_handful_of_statements(migrated_url: str, size: int) -> None:
    async with opened(migrated_url) as shop:
        people = [uuid.uuid4() for _ in range(50)]

        def run(tx: Tx) -> tuple[int, int, int, int]:
            first, second = Counting(tx), Counting(tx)
            paid = [order("order.paid", people[n % 50], f"o{n}", 1_000) for n in range(size)]
            follow(first, paid, LoyaltyRules())
            back = [order("order.refunded", people[n % 50], f"o{n}", 500) for n in range(size)]
            follow(second, back, LoyaltyRules())
            return first.count, first.announced, second.count, second.announced

        earning, earned, returning, returned = await shop.client.services.db.write(run)
        assert (earned, returned) == (size, size)
        assert earning <= 6
        assert returning <= 8
        counted = sa.select(sa.func.count()).select_from(entries).scalar_subquery()
        left = sa.select(sa.func.sum(lots.c.remaining)).scalar_subquery()
        found = await shop.client.services.db.read(lambda tx: tuple(tx.rows(sa.select(counted, left))[0]))
        assert found == (2 * size, 5 * size)
