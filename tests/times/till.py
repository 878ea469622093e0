"""A till with members and points: what happens at it, and whether the log and all that is made of it are sound afterwards."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

import scrm_loyalty
from scrm.config import PluginSection, Settings
from scrm.db import Database, Tx
from scrm.events.consumers import ACTIVE, progress, wait_for
from scrm.events.models import events, parked_events, workers
from scrm.events.sequencer import head
from scrm.loader import load_plugins
from scrm.testing.client import Client, replayed, serving
from scrm.users.handlers import core_chores, core_handlers
from scrm.users.models import users
from scrm.worker import run_worker

LOYALTY = {"loyalty": scrm_loyalty}
READERS = ("core", "loyalty")
RECORD = """mutation($events: [EventInput!]!, $waitFor: [String!]) { recordEvents(input: {events: $events, waitFor: $waitFor,
  waitSeconds: 20}) { accepted duplicates rejected caughtUp results { status errors { code } } errors { code } } }"""
REDEEM = """mutation($input: RedeemPointsInput!) { redeemPoints(input: $input) {
  entry { id points } account { balance } errors { code } } }"""
_LATELY = datetime.now(UTC) - timedelta(hours=1)
_KEYS = (events.c.position, events.c.source, events.c.external_id, events.c.type, events.c.user_id)


def paid(key: str, member: str = "m1", yuan: int = 10, **more: Any) -> dict[str, Any]:
    """An order that was paid an hour ago by a member of the store."""
    return {
        "type": "order.paid",
        "identity": {"channel": "store", "externalId": member},
        "occurredAt": _LATELY.isoformat(),
        "amount": {"amountMinor": 100 * yuan, "currency": "CNY"},
        "properties": {"orderId": key},
        "source": "till",
        "externalId": key,
    } | more


def redemption(user: str, points: int, key: str) -> dict[str, Any]:
    """The variables of `REDEEM`."""
    return {"input": {"userId": user, "points": points, "idempotencyKey": key}}


@asynccontextmanager
async def opened(url: str, **more: Any) -> AsyncIterator[Client]:
    """The brand's server, with its one channel."""
    async with serving(url, **{"modules": LOYALTY, **more}) as client:
        await client.data('mutation { createChannel(input: {key: "store", name: "门店", kind: STORE}) { errors { code } } }')
        yield client


async def member(client: Client, name: str) -> str:
    """The global id of who has this identity."""
    found = await client.data('query($id: String!) { user(identity: {channel: "store", externalId: $id}) { id } }', id=name)
    return str(found["user"]["id"])


@asynccontextmanager
async def working(
    client: Client, count: int = 1, plugins: Any = None, clock: Callable[[], datetime] | None = None
) -> AsyncIterator[None]:
    """Workers beside the server, each with its own way to the database."""
    settings, db = client.services.settings, client.services.db
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(_worker(settings, plugins or client.services.plugins, clock))
        await until(lambda: db.read(lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(workers)) >= count))
        yield


@asynccontextmanager
async def _worker(settings: Settings, plugins: Any, clock: Callable[[], datetime] | None) -> AsyncIterator[None]:
    stop = asyncio.Event()
    db = Database(settings.database_url, clock=clock)
    work = run_worker(db, settings, plugins, core_handlers(settings.zone), stop, chores=core_chores(settings.zone))
    task = asyncio.create_task(work)
    try:
        yield
        assert not task.done(), "the worker ended"
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)
        await db.close()


def with_loyalty(settings: Settings) -> tuple[Settings, Any]:
    """The same settings with the plugin enabled, and the plugins they load."""
    chosen = settings.model_copy(update={"plugins": {"loyalty": PluginSection(enabled=True)}})
    return chosen, load_plugins(chosen, LOYALTY)


async def settle(db: Database, readers: Sequence[str] = READERS) -> None:
    """Wait until a worker has numbered everything and all who read the log have come to its end."""

    async def at_rest() -> bool:
        top = await db.read(head)
        return await wait_for(db, readers, top, 60) and await db.read(_unnumbered) == 0 and await db.read(head) == top

    await until(at_rest, 60)


def _unnumbered(tx: Tx) -> int:
    if tx.dialect == "sqlite":
        return 0
    return int(tx.scalar(sa.select(sa.func.count()).where(events.c.position.is_(None))))


async def until(so: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait until it is so.

    Raises: TimeoutError.
    """
    async with asyncio.timeout(seconds):
        while True:
            if await so():
                return
            await asyncio.sleep(0.05)


async def answers(call: Callable[[], Any]) -> None:
    """Wait until a request is answered with 200, which must be within five seconds."""

    async def well() -> bool:
        return bool((await call()).status_code == 200)

    await until(well, 5)


class Sound:
    """The log of a brand that has come to rest, checked as a whole."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.db = client.services.db
        self.rows: list[Any] = []

    async def check(self, acknowledged: Iterable[str] = (), readers: Sequence[str] = READERS) -> None:
        """Every acknowledged event is there once, nothing has a gap, and everybody has read all of it to the same effect."""
        self.rows = await self.db.read(
            lambda tx: list(tx.rows(sa.select(*_KEYS, events.c.amount_minor, events.c.properties).order_by(events.c.position)))
        )
        assert [row.position for row in self.rows] == list(range(1, len(self.rows) + 1))
        said = Counter((row.source, row.external_id) for row in self.rows)
        assert [key for key, times in said.items() if times > 1] == []
        assert [key for key in acknowledged if ("till", key) not in said] == []
        places = {one.plugin: (one.cursor, one.state) for one in await self.db.read(progress)}
        assert places == dict.fromkeys(readers, (len(self.rows), ACTIVE))
        assert await self.db.read(lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(parked_events))) == 0
        people = await self.db.read(lambda tx: tx.scalar(sa.select(sa.func.count()).select_from(users)))
        assert people == len([row for row in self.rows if row.type == "user.created"])
        if "loyalty" in readers:
            await self._effects()

    async def _effects(self) -> None:
        expected = self.fold()
        shown = await self.balances()
        assert {user: points for user, points in shown.items() if points} == {u: p for u, p in expected.items() if p}
        report = await replayed(self.client, "loyalty")
        assert report.differences == []
        assert report.equal

    def fold(self) -> dict[str, int]:
        """What everybody has, by the log alone."""
        found: Counter[str] = Counter()
        for row in self.rows:
            user = f"User_{row.user_id.hex}" if row.user_id else ""
            if row.type == "order.paid":
                found[user] += row.amount_minor // 100
            elif row.type == "points.redeemed":
                found[user] -= row.properties["points"]
        return dict(found)

    async def balances(self) -> dict[str, int]:
        """What the server says that everybody has."""
        query = """query($after: String) { users(first: 100, after: $after) {
            nodes { id points { balance } } pageInfo { hasNextPage endCursor } } }"""
        found: dict[str, int] = {}
        after = None
        while True:
            page = (await self.client.data(query, after=after))["users"]
            found |= {node["id"]: int(node["points"]["balance"]) for node in page["nodes"]}
            if not page["pageInfo"]["hasNextPage"]:
                return found
            after = page["pageInfo"]["endCursor"]

    def redeemed(self) -> Counter[str]:
        """How often each key has been redeemed."""
        return Counter(row.external_id for row in self.rows if row.source == "mutation:redeemPoints")


def key_of(prefix: str) -> str:
    """A key that nobody else has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"
