"""Many at once: the same key, the same stranger, several servers, workers and sequencers; each thing happens once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from scrm.db import Database
from scrm.events.sequencer import Nudge, sequence
from scrm.provision import provision
from scrm.testing.client import Client, serving
from scrm.users.models import identities
from tests.times.conftest import File
from tests.times.till import LOYALTY, RECORD, REDEEM, Sound, member, opened, paid, redemption, settle, with_loyalty, working

MANY = 20


async def test_one_key_many_times_at_once(migrated_url: str) -> None:
    """Through every door that takes a key."""
    async with opened(migrated_url) as client, working(client):
        await client.data(RECORD, events=[paid("first", "ann", 100)], waitFor=["loyalty"])
        ann = await member(client, "ann")
        bulk = await asyncio.gather(*(client.events([paid("one", "ann", 1)]) for _ in range(MANY)))
        assert Counter(one["results"][0]["status"] for one in bulk) == {"ACCEPTED": 1, "DUPLICATE": MANY - 1}
        typed = await asyncio.gather(*(client.data(RECORD, events=[paid("two", "ann", 1)]) for _ in range(MANY)))
        found = Counter(one["recordEvents"]["results"][0]["status"] for one in typed)
        assert found == {"ACCEPTED": 1, "DUPLICATE": MANY - 1}
        spent = await asyncio.gather(*(client.data(REDEEM, **redemption(ann, 30, "spend")) for _ in range(MANY)))
        assert [one["redeemPoints"]["errors"] for one in spent] == [[]] * MANY
        assert len({one["redeemPoints"]["entry"]["id"] for one in spent}) == 1
        # Each with a key of its own: as many as the points last for.
        spent = await asyncio.gather(*(client.data(REDEEM, **redemption(ann, 10, f"spend {n}")) for n in range(MANY)))
        assert Counter(bool(one["redeemPoints"]["errors"]) for one in spent) == {False: 7, True: MANY - 7}
        await settle(client.services.db)
        sound = Sound(client)
        await sound.check(["first", "one", "two"])
        assert set(sound.redeemed().values()) == {1}
        assert sound.redeemed().total() == 8
        assert (await sound.balances())[ann] == 100 + 1 + 1 - 30 - 70


async def test_a_stranger_who_comes_many_times_at_once_is_one_user(migrated_url: str) -> None:
    new = """mutation($id: String!) { createUser(input: {identities: [{channel: "store", externalId: $id}]}) {
        user { id } errors { code } } }"""
    async with opened(migrated_url) as client, working(client):
        bulk = await asyncio.gather(*(client.events([paid(f"bulk {n}", "ann")]) for n in range(MANY)))
        assert [one["accepted"] for one in bulk] == [1] * MANY
        mixed = await asyncio.gather(
            *(client.events([paid(f"mixed {n}", "ben")]) for n in range(MANY // 2)),
            *(client.data(new, id="ben") for _ in range(MANY // 2)),
        )
        made = [one["createUser"] for one in mixed[MANY // 2 :]]
        assert {error["code"] for one in made for error in one["errors"]} <= {"IDENTITY_TAKEN"}
        found = await client.services.db.read(lambda tx: Counter(row.external_id for row in tx.rows(sa.select(identities))))
        assert found == {"ann": 1, "ben": 1}
        await settle(client.services.db)
        sound = Sound(client)
        await sound.check(f"{kind} {n}" for kind, count in (("bulk", MANY), ("mixed", MANY // 2)) for n in range(count))
        assert (await sound.balances())[await member(client, "ann")] == 10 * MANY
        assert (await sound.balances())[await member(client, "ben")] == 5 * MANY


async def test_two_servers_and_two_more_sequencers_number_without_a_gap(migrated_url: str) -> None:
    async with opened(migrated_url) as first, serving(migrated_url, modules=LOYALTY) as second, working(first, 2):
        done = asyncio.Event()

        async def number() -> None:
            db = Database(migrated_url)
            while not done.is_set():
                await sequence(db, chunk=7)
            await db.close()

        async def post(client: Client, name: str) -> None:
            for n in range(10):
                assert (await client.events([paid(f"{name}-{n}-{m}", f"m{m}") for m in range(4)]))["accepted"] == 4

        numbering = [asyncio.create_task(number()) for _ in range(2)]
        await asyncio.gather(*(post(client, f"{at}{name}") for at, client in (("a", first), ("b", second)) for name in range(3)))
        done.set()
        await asyncio.gather(*numbering)
        await settle(first.services.db)
        await Sound(second).check(f"{at}{name}-{n}-{m}" for at in "ab" for name in range(3) for n in range(10) for m in range(4))


async def test_four_workers_share_a_backlog(migrated_url: str) -> None:
    keys = [f"o{n}" for n in range(1_200)]
    async with opened(migrated_url) as client:
        for start in range(0, len(keys), 400):
            said = [paid(key, f"m{number % 37}") for number, key in enumerate(keys[start : start + 400])]
            assert (await client.events(said))["accepted"] == 400
        async with working(client, 4):
            await settle(client.services.db)
            await Sound(client).check(keys)


async def test_a_plugin_that_is_enabled_while_events_come_reads_all_of_them(migrated_url: str) -> None:
    keys: list[str] = []
    async with opened(migrated_url, modules={}) as client:

        async def post(name: int) -> None:
            for n in range(20):
                said = [paid(f"{name}-{n}-{m}", f"m{name}") for m in range(3)]
                assert (await client.events(said))["accepted"] == 3
                keys.extend(one["externalId"] for one in said)

        posting = asyncio.gather(*(post(name) for name in range(3)))
        settings, plugins = with_loyalty(client.services.settings)
        assert (await provision(settings, plugins)).problems == []
        async with working(client, 2, plugins):
            await posting
            await settle(client.services.db)
    async with serving(migrated_url, modules=LOYALTY) as client:
        await Sound(client).check(keys)
    assert len(keys) == 180


async def test_two_who_are_merged_while_events_come_keep_all_their_points(migrated_url: str) -> None:
    merge = "mutation($k: ID!, $a: ID!) { mergeUsers(input: {keptId: $k, absorbedId: $a}) { errors { code } } }"
    pairs = 6
    async with opened(migrated_url) as client, working(client, 2):
        await client.events([paid(f"{side}{n}", f"{side}{n}") for side in "ka" for n in range(pairs)])
        ids = {f"{side}{n}": await member(client, f"{side}{n}") for side in "ka" for n in range(pairs)}

        async def post(side: str, n: int) -> None:
            for m in range(8):
                assert (await client.events([paid(f"{side}{n}-{m}", f"{side}{n}")]))["accepted"] == 1

        async def join(n: int) -> None:
            said = await client.data(merge, k=ids[f"k{n}"], a=ids[f"a{n}"])
            assert said["mergeUsers"]["errors"] == []

        await asyncio.gather(*(post(side, n) for side in "ka" for n in range(pairs)), *(join(n) for n in range(pairs)))
        await settle(client.services.db)
        sound = Sound(client)
        await sound.check(f"{side}{n}-{m}" for side in "ka" for n in range(pairs) for m in range(8))
        found = await sound.balances()
        assert [found[ids[f"k{n}"]] for n in range(pairs)] == [2 * 10 * 9] * pairs


async def test_two_hundred_callers_and_two_connections(migrated_url: str) -> None:
    """One that had one connection and waited for another would wait for all who do the same."""
    several = """{ users(first: 2) { totalCount nodes { id events { nodes { id } } } } channels { nodes { key } }
        plugins { name lag failures(first: 1) { totalCount } } }"""
    async with opened(migrated_url, database_pool=2) as client, working(client):
        calls = [
            *(client.http.post("/graphql", json={"query": several}) for _ in range(80)),
            *(client.http.post("/events", json=[paid(f"o{n}", f"m{n % 5}")]) for n in range(60)),
            *(client.http.post("/graphql", json={"query": RECORD, "variables": {"events": [paid(f"r{n}")]}}) for n in range(60)),
        ]
        said = await asyncio.gather(*calls)
        assert Counter(one.status_code for one in said) == {200: 200}
        assert [one.json()["errors"] for one in said if "errors" in one.json()] == []
        await settle(client.services.db)
        await Sound(client).check([*(f"o{n}" for n in range(60)), *(f"r{n}" for n in range(60))])


async def test_what_nobody_was_nudged_for_is_numbered_in_time(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def asleep(_nudge: Nudge) -> None:
        return None

    monkeypatch.setattr(Nudge, "__call__", asleep)
    async with opened(migrated_url) as client, working(client):
        for n in range(5):
            assert (await client.events([paid(f"o{n}")]))["accepted"] == 1
        await settle(client.services.db)
        await Sound(client).check(f"o{n}" for n in range(5))


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
for n in range(3):
    connection.execute("begin immediate")
    print("held", flush=True)
    sys.stdin.readline()
    connection.execute("commit")
    print("free", flush=True)
    sys.stdin.readline()
"""


async def test_who_writes_long_beside_makes_nobody_fail(file: File) -> None:
    """Another process holds the file's one lock until it is told, and again: who reads is answered, who writes waits."""
    noted: list[str] = []
    async with opened(file.url) as client, working(client, 2):

        async def write(key: str) -> None:
            said = await client.events([paid(key)])
            assert said["accepted"] == 1, said
            noted.append(key)

        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HOLD, str(file.path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert other.stdin is not None
        assert other.stdout is not None
        for n in range(3):
            assert await other.stdout.readline() == b"held\n"
            before = len(noted)
            writing = [asyncio.create_task(write(f"o{n} {m}")) for m in range(20)]
            for _ in range(10):
                await asyncio.wait_for(client.data("{ users { nodes { id points { balance } } } }"), 20)
            assert len(noted) == before
            other.stdin.write(b"\n")
            assert await other.stdout.readline() == b"free\n"
            await asyncio.wait_for(asyncio.gather(*writing), 20)
            await asyncio.wait_for(write(f"o{n} alone"), 20)
            other.stdin.write(b"\n")
        assert await other.wait() == 0
        await settle(client.services.db)
        await Sound(client).check(noted)


async def test_processes_that_migrate_at_once_take_turns(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "scrm.toml").write_text("[plugins.loyalty]\nenabled = true\n")
    there = {**os.environ, "SCRM_DATABASE_URL": database_url, "SCRM_SECRET_KEY": "s" * 40}
    command = [sys.executable, "-m", "scrm.cli", "db", "upgrade"]
    running = [
        await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=there, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [(await one.communicate(), one.returncode) for one in running]
    assert [code for _, code in said] == [0, 0, 0], said
    async with opened(database_url) as client, working(client):
        await client.events([paid("one")])
        await settle(client.services.db)
        await Sound(client).check(["one"])
