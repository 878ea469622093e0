"""kill -9 at random moments under load: what was acknowledged is there, once, and everything made of it is as a fold of the log.

`make test` kills a few; `make kills`, or SCRM_KILLS=50, so many on each engine. SCRM_SEED chooses other moments.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from pathlib import Path
from typing import Any

import httpx2
import pytest

from scrm.auth import create_key
from scrm.testing.client import Client, drain, serving
from tests.times.fleet import SECRET, Fleet
from tests.times.till import LOYALTY, RECORD, REDEEM, Sound, member, opened, paid, redemption, settle, until

KILLS = int(os.environ.get("SCRM_KILLS", "4"))
SEED = int(os.environ.get("SCRM_SEED", "1"))
VICTIMS = ("serve", "worker", "import", "its worker")
RICH = 5


class Callers:
    """Who sends, notes what was acknowledged, and sends again what was not."""

    def __init__(self, http: httpx2.AsyncClient, users: list[str], chance: random.Random) -> None:
        self.events: set[str] = set()
        self.spent: dict[str, str] = {}
        self.cut = 0
        self._http = http
        self._users = users
        self._chance = chance

    async def bulk(self, name: int, enough: asyncio.Event) -> None:
        """`POST /events`, ten at a time."""
        for n in itertools.count():
            keys = [f"b{name}-{n}-{m}" for m in range(10)]
            answer, tries = await self._ask("/events", [paid(key, f"m{self._chance.randrange(40)}") for key in keys])
            self._note(keys, [one["status"] for one in answer["results"]], tries)
            if enough.is_set():
                return

    async def typed(self, name: int, enough: asyncio.Event) -> None:
        """`recordEvents`, five at a time."""
        for n in itertools.count():
            keys = [f"t{name}-{n}-{m}" for m in range(5)]
            said = {"events": [paid(key, f"m{self._chance.randrange(40)}") for key in keys]}
            answer, tries = await self._ask("/graphql", {"query": RECORD, "variables": said})
            self._note(keys, [one["status"] for one in answer["data"]["recordEvents"]["results"]], tries)
            if enough.is_set():
                return

    async def spend(self, name: int, enough: asyncio.Event) -> None:
        """`redeemPoints`, now and then twice with one key."""
        for n in itertools.count():
            key = f"s{name}-{n}"
            said = redemption(self._chance.choice(self._users), 1 + n % 3, key)
            for _ in range(self._chance.choice((1, 1, 2))):
                answer, _ = await self._ask("/graphql", {"query": REDEEM, "variables": said})
                payload = answer["data"]["redeemPoints"]
                assert payload["errors"] == []
                assert self.spent.setdefault(key, payload["entry"]["id"]) == payload["entry"]["id"]
            if enough.is_set():
                return

    async def get_on(self, count: int) -> None:
        """Wait until so much more has been acknowledged."""
        wanted = len(self.events) + len(self.spent) + count

        async def is_there() -> bool:
            return len(self.events) + len(self.spent) >= wanted

        await until(is_there, 60)

    def _note(self, keys: list[str], statuses: list[str], tries: int) -> None:
        assert set(statuses) <= ({"ACCEPTED"} if tries == 1 else {"ACCEPTED", "DUPLICATE"}), statuses
        self.events.update(keys)

    async def _ask(self, path: str, body: Any) -> tuple[Any, int]:
        """What is answered in the end, and after how many tries."""
        for tries in itertools.count(1):
            try:
                response = await self._http.post(path, json=body)
            except httpx2.TransportError:
                self.cut += 1
                await asyncio.sleep(self._chance.uniform(0.1, 0.4))
                continue
            answer = response.json()
            if response.status_code == 200 and "errors" not in answer:
                return answer, tries
            assert response.status_code == 503, answer
            await asyncio.sleep(0.2)
        raise AssertionError


@pytest.fixture
async def ready(migrated_url: str) -> tuple[str, str, list[str]]:
    """A brand with some who have points enough: its database, a key, and their ids."""
    async with opened(migrated_url) as client:
        await client.data(RECORD, events=[paid(f"r{n}", f"m{n}", 100_000) for n in range(RICH)])
        await drain(client)
        users = [await member(client, f"m{n}") for n in range(RICH)]
        db = client.services.db
        key = await db.write(create_key, SECRET.encode(), "fleet", ["*"], at=db.clock(), actor="test")
    return migrated_url, key, users


async def test_kill_at_random_moments_under_load(ready: tuple[str, str, list[str]], tmp_path: Path) -> None:
    url, key, users = ready
    chance = random.Random(SEED)
    fleet = Fleet(tmp_path, url)
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with httpx2.AsyncClient(base_url=fleet.address, headers=headers, timeout=60) as http:
            callers = Callers(http, users, chance)
            await attack(fleet, callers, chance)
        async with serving(url, modules=LOYALTY) as client:
            await settle(client.services.db)
            await fleet.end()
            await checked(client, callers, fleet)
        assert (await fleet.command("plugins", "replay", "loyalty")).splitlines()[-1] == "equal"
    finally:
        fleet.abandon()
    assert len(fleet.kills) == KILLS


async def attack(fleet: Fleet, callers: Callers, chance: random.Random) -> None:
    """Send from all sides, and kill; when it is over everything sent has been acknowledged."""
    enough = asyncio.Event()
    for name in ("serve", "worker"):
        await fleet.start(name)
    await fleet.answers()
    async with asyncio.timeout(60 + 20 * KILLS), asyncio.TaskGroup() as group:
        for caller in range(2):
            group.create_task(callers.bulk(caller, enough))
            group.create_task(callers.spend(caller, enough))
        group.create_task(callers.typed(0, enough))
        group.create_task(fleet.import_until(enough))
        while len(fleet.kills) < KILLS:
            for victim in chance.sample(VICTIMS, len(VICTIMS)):
                if len(fleet.kills) < KILLS:
                    await callers.get_on(chance.randrange(1, 100))
                    await fleet.kill(victim, chance)
        await fleet.answers()
        enough.set()


async def checked(client: Client, callers: Callers, fleet: Fleet) -> None:
    """Nothing is missing, doubled or half done."""
    sound = Sound(client)
    await sound.check([*callers.events, *fleet.imported])
    spent = sound.redeemed()
    assert {key: spent[key] for key in callers.spent} == dict.fromkeys(callers.spent, 1)
    assert set(spent) == set(callers.spent), "every redemption was asked for until it was acknowledged"
    assert {row.external_id for row in sound.rows if row.source == "till"} >= {*callers.events, *fleet.imported}
    assert len(callers.spent) > 4, "next to nothing was spent"
