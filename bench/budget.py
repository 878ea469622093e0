"""Commitments of one hot line, each with a key of its own, against the bare conditional UPDATE and INSERT; on both engines."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import orjson
import sqlalchemy as sa

from bench.load import Wire, post, wires
from bench.points import CONNECTIONS, RICH, Spending, Way, bare, engines, in_turn, shown
from bench.reads import served
from bench.served import settings_for
from scrm.auth import create_key, signing_secret
from scrm.db import Database
from scrm.events.consumers import consumer_of, enable
from scrm.events.decide import Decided, decide
from scrm.loader import load_plugins
from scrm.provision import provision
from scrm_budget.models import lines
from scrm_budget.mutations import commit_budget, create_budget

PLUGINS = ("budget",)
COMMIT = "mutation($i: CommitBudgetInput!) { commitBudget(input: $i) { entry { id amount { amountMinor } } errors { code } } }"
BUDGET = {
    **{"name": "bench", "currency": "CNY", "currencies": [], "total": RICH},
    **{"reserve": 0, "preset": None, "previous": None, "rollover": "NONE", "rolloverCap": None},
}
LINE = {"category": "hot", "policy": "BLOCK", "share": None, "amount": RICH, "capPerDay": None, "capPerUser": None}
_HOT = sa.select(lines.c.id).where(lines.c.category == "hot")


def run(seconds: float, rounds: int) -> None:
    """Print the figures."""
    for engine, url, _ in engines():
        with url() as fresh:
            asyncio.run(commitments(engine, fresh, seconds, rounds))


async def commitments(engine: str, url: str, seconds: float, rounds: int) -> None:
    """One minor unit at a time."""
    async with committing(url) as made:
        with served(url, PLUGINS) as (port, process):
            async with wires(port, CONNECTIONS) as opened, bare(url, made.people) as take_bare:
                ways = {"scrm": _over_http(made, opened), "decision": _decision(made), "bare": take_bare}
                found = await in_turn(made, ways, {"one line": made.people}, seconds, rounds, process)
        print(f"budget: {engine:10}  commitments of one line {shown(found, 'one line')}")


@asynccontextmanager
async def committing(url: str) -> AsyncIterator[Spending]:
    """A line with more money than can be committed."""
    settings = settings_for(url, PLUGINS)
    plugins = load_plugins(settings)
    await provision(settings, plugins)
    db = Database(url, pool_size=CONNECTIONS)
    try:
        consumer = consumer_of(plugins.active[0], settings)
        await db.write(enable, consumer, db.clock())
        key = await db.write(create_key, signing_secret(settings), "bench", ["*"], at=db.clock(), actor="bench")
        line: dict[str, Any] = {**LINE, "expectedRoi": None, "channels": [], "campaigns": []}
        today = db.clock().date()
        days = {"start": (today - timedelta(days=2)).isoformat(), "end": (today + timedelta(days=365)).isoformat()}
        said = {**BUDGET, **days, "lines": [line]}
        decided = await decide(db, consumer, create_budget, said, key="budget", at=db.clock(), actor="bench")
        if not isinstance(decided, Decided):
            raise AssertionError(decided)
        yield Spending(url, settings, consumer, db, key, [await db.read(lambda tx: tx.scalar(_HOT))])
    finally:
        await db.close()


def _over_http(made: Spending, opened: list[Wire]) -> Way:
    async def commit(place: int, line: uuid.UUID, number: int) -> None:
        amount = {"amountMinor": 1, "currency": "CNY"}
        said = {"lineId": f"BudgetLine_{line.hex}", "amount": amount, "reference": "bench", "idempotencyKey": f"http {number}"}
        asked = orjson.dumps({"query": COMMIT, "variables": {"i": said}})
        status, body = await opened[place].ask(post("/graphql", asked, {"Authorization": f"Bearer {made.key}"}))
        if status != 200 or b'"amountMinor":1' not in body:
            raise AssertionError(body[:500])

    return commit


def _decision(made: Spending) -> Way:
    async def commit(_place: int, line: uuid.UUID, number: int) -> None:
        said = {"line": line.hex, "amount": 1, "currency": "CNY", "user": None, "reference": "bench", "seconds": None}
        key = f"decision {number}"
        decided = await decide(made.db, made.consumer, commit_budget, said, key=key, at=made.db.clock(), actor="bench")
        if not isinstance(decided, Decided):
            raise AssertionError(decided)

    return commit
