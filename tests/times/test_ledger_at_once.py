"""Many callers at a few accounts: what was answered is one serial order of what was done, and nothing is lost or made.

`SCRM_OPERATIONS=200` lets each of the 8 callers do so many things; by default it is fewer.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import sqlalchemy as sa

from scrm.api import Tx
from scrm.events.models import events
from scrm_loyalty.facts import hold_of
from tests.plugins.shop import Shop, opened

CALLERS, ACCOUNTS = 8, 3
OPERATIONS = int(os.environ.get("SCRM_OPERATIONS", "25"))


class Caller:
    """Does one thing after the other, each with a key of its own, some of them twice, and notes what came of it."""

    def __init__(self, shop: Shop, people: list[str], seed: int) -> None:
        self._shop, self._people, self._seed = shop, people, seed
        self._chance = random.Random(seed)
        self._holds: list[str] = []
        self._entries: list[str] = []
        self.done: list[str] = []
        self.refused: list[str] = []

    async def run(self) -> None:
        for n in range(OPERATIONS):
            kind = self._chance.choice(("pay", "redeem", "redeem", "hold", "capture", "release", "transfer", "undo", "adjust"))
            await getattr(self, f"_{kind}")(f"{self._seed}-{n}")

    async def _ask(self, name: str, key: str, **said: Any) -> dict[str, Any]:
        payload = await self._shop.do(name, key, **said)
        if self._chance.random() < 0.2:
            again = await self._shop.do(name, key, **said)
            assert payload["errors"] != [] or again["errors"] == [], "who was answered once is answered so again"
            if payload["errors"] == []:
                assert _ids(again) == _ids(payload)
            payload = again
        if payload["errors"]:
            self.refused.append(payload["errors"][0]["code"])
        else:
            self.done.append(key)
        return payload

    async def _pay(self, key: str) -> None:
        await self._shop.pay(self._chance.choice(self._people), f"o{key}", 100 * self._chance.randint(1, 20))

    async def _redeem(self, key: str) -> None:
        payload = await self._ask(
            "redeemPoints", key, userId=self._chance.choice(self._people), points=self._chance.randint(1, 15)
        )
        if not payload["errors"]:
            self._entries.append(payload["entry"]["id"])

    async def _hold(self, key: str) -> None:
        points = self._chance.randint(1, 15)
        payload = await self._ask("holdPoints", key, userId=self._chance.choice(self._people), points=points)
        if not payload["errors"]:
            self._holds.append(payload["hold"]["id"])

    async def _capture(self, key: str) -> None:
        if self._holds:
            await self._ask("captureHold", key, holdId=self._chance.choice(self._holds))

    async def _release(self, key: str) -> None:
        if self._holds:
            await self._ask("releaseHold", key, holdId=self._chance.choice(self._holds))

    async def _transfer(self, key: str) -> None:
        giver, taker = self._chance.sample(self._people, 2)
        await self._ask("transferPoints", key, userId=giver, toUserId=taker, points=self._chance.randint(1, 10))

    async def _undo(self, key: str) -> None:
        if self._entries:
            await self._ask("reversePointsEntry", key, entryId=self._chance.choice(self._entries))

    async def _adjust(self, key: str) -> None:
        points = self._chance.choice((-5, -1, 3, 8))
        await self._ask("adjustPoints", key, userId=self._chance.choice(self._people), points=points, reason="because")


def _ids(payload: dict[str, Any]) -> set[str]:
    return {part["id"] for part in payload.values() if isinstance(part, dict) and "id" in part}


def lived(tx: Tx) -> tuple[dict[str, dict[str, int]], set[str]]:
    """What the log says everybody has, by plain sums in its order, in which nobody may ever have less than nothing; and the keys
    of what was decided."""
    have: dict[str, dict[str, int]] = {}
    holds: dict[str, int] = {}
    keys = set()

    def add(user: str, **points: int) -> None:
        own = have.setdefault(user, {"balance": 0, "held": 0})
        for name, count in points.items():
            own[name] += count
            assert own[name] >= 0, (user, name)

    for row in tx.rows(sa.select(events).where(events.c.user_id.is_not(None)).order_by(events.c.position)):
        user, said, type_ = f"User_{row.user_id.hex}", row.properties, row.type.removeprefix("points.")
        if row.source.startswith("mutation:"):
            keys.add(row.external_id)
        if row.type == "order.paid":
            add(user, balance=row.amount_minor // 100)
        elif type_ in ("redeemed", "released"):
            spent = said["points"] if type_ == "redeemed" else 0
            kept = holds.pop(said["hold"]) if said.get("hold") else 0
            add(user, balance=kept - spent, held=-kept)
        elif type_ == "held":
            holds[hold_of(row.id).hex] = said["points"]
            add(user, balance=-said["points"], held=said["points"])
        elif type_ in ("undone", "adjusted"):
            add(user, balance=said["points"])
        elif type_ == "transferred":
            add(user, balance=-said["points"])
            add(f"User_{said['to'].replace('-', '')}", balance=said["points"])
    return have, keys


async def test_eight_callers_at_three_accounts_are_one_after_the_other(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        people = [await shop.member() for _ in range(ACCOUNTS)]
        for number, person in enumerate(people):
            await shop.pay(person, f"first{number}", 2_000)
        callers = [Caller(shop, people, seed) for seed in range(CALLERS)]
        await asyncio.gather(*(caller.run() for caller in callers))
        await shop.check()
        have, keys = await shop.client.services.db.read(lived)
        for person in people:
            assert await shop.account(person, "balance held") == have[person]
        assert {key for caller in callers for key in caller.done} <= keys
        assert sum(len(caller.done) for caller in callers) > CALLERS * OPERATIONS / 8
        assert "INSUFFICIENT_POINTS" in {code for caller in callers for code in caller.refused}
