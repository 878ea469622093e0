"""A shop with members who earn and spend, asked as a front end asks; its clock is set by the test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import scrm_loyalty
from scrm.testing.client import Client, apply_rules, drain, replayed, run_jobs, serving
from scrm_loyalty.reconcile import drifts

ZONE = ZoneInfo("Asia/Shanghai")
NUMBERS = "balance pending debt earned redeemed expired"
REDEEM = """mutation($input: RedeemPointsInput!) { redeemPoints(input: $input) {
  entry { id kind points reason reference } account { balance redeemed user { id } } errors { code message path params } } }"""
ACCOUNT = "account { balance held redeemed user { id } } errors { code message path params }"
ENTRY = "entry { id kind points reason reference occurredAt expiresAt reverses { id } }"
ANSWERS = {
    "holdPoints": f"hold {{ id state points captured reference expiresAt }} {ACCOUNT}",
    "transferPoints": f"{ENTRY} {ACCOUNT} toAccount {{ balance user {{ id }} }}",
}
"""What is asked of a mutation's payload where it is not an entry."""


def local(text: str) -> datetime:
    """A time of the business zone."""
    return datetime.fromisoformat(text).replace(tzinfo=ZONE)


class Shop:
    """What members do, and what they have then."""

    def __init__(self, client: Client, clock: list[datetime]) -> None:
        self.client = client
        self._clock = clock
        self._keys = (f"{uuid.uuid4().hex}-{number}" for number in count())

    @property
    def now(self) -> datetime:
        return self._clock[0]

    def set_time(self, text: str) -> None:
        """It is this time now, in the business zone."""
        self._clock[0] = local(text)

    async def member(self) -> str:
        """A new person's global id."""
        made = await self.client.data('mutation { createUser(input: {displayName: "m"}) { user { id } errors { code } } }')
        return str(made["createUser"]["user"]["id"])

    @staticmethod
    def key(user: str) -> uuid.UUID:
        """The key in a person's global id."""
        return uuid.UUID(user.removeprefix("User_"))

    def event(self, type: str, user: str, order: str | None, amount: int | None, at: str | datetime | None, **more: Any) -> Any:
        when = local(at) if isinstance(at, str) else at or self.now
        money = {"amountMinor": amount, "currency": more.pop("currency", "CNY")} if amount is not None else None
        said = {"type": type, "userId": user, "occurredAt": when.isoformat(), "source": "shop", "externalId": next(self._keys)}
        properties = {"orderId": order} if order is not None else {}
        return {**said, "properties": properties, **({"amount": money} if money else {}), **more}

    async def send(self, *events: Any) -> None:
        """Record events through the bulk door and let everybody read them."""
        answer = await self.client.events(events)
        assert answer["rejected"] == 0, answer
        await drain(self.client)

    async def pay(self, user: str, order: str, amount: int, at: str | datetime | None = None, **more: Any) -> None:
        await self.send(self.event("order.paid", user, order, amount, at, **more))

    async def refund(self, user: str, order: str, amount: int, at: str | datetime | None = None, **more: Any) -> None:
        await self.send(self.event("order.refunded", user, order, amount, at, **more))

    async def redeem(self, user: str, points: int, key: str | None = None, **more: Any) -> dict[str, Any]:
        """The payload of a redemption."""
        said = {"userId": user, "points": points, "idempotencyKey": key or next(self._keys), **more}
        data = await self.client.data(REDEEM, input=said)
        payload: dict[str, Any] = data["redeemPoints"]
        return payload

    async def do(self, name: str, key: str | None = None, **said: Any) -> dict[str, Any]:
        """The payload of a mutation of points."""
        kind = f"{name[0].upper()}{name[1:]}Input"
        answer = ANSWERS.get(name, f"{ENTRY} {ACCOUNT}")
        document = f"mutation($input: {kind}!) {{ {name}(input: $input) {{ {answer} }} }}"
        data = await self.client.data(document, input={**said, "idempotencyKey": key or next(self._keys)})
        payload: dict[str, Any] = data[name]
        return payload

    async def done(self, name: str, **said: Any) -> dict[str, Any]:
        """The payload of one that is not refused."""
        payload = await self.do(name, **said)
        assert payload["errors"] == []
        return payload

    async def refusal(self, name: str, **said: Any) -> tuple[str, Any]:
        """Why one is refused: the code and the values in play."""
        [error] = (await self.do(name, **said))["errors"]
        return error["code"], error["params"]

    async def hold(self, user: str, points: int, seconds: int | None = None, **more: Any) -> str:
        """A new hold's id."""
        said = {"userId": user, "points": points, "expiresInSeconds": seconds, **more}
        return str((await self.done("holdPoints", **said))["hold"]["id"])

    async def state(self, hold: str) -> tuple[str, int]:
        """What became of a hold, and how much of it was spent."""
        data = await self.client.data("query($id: ID!) { node(id: $id) { ... on PointsHold { state captured } } }", id=hold)
        return data["node"]["state"], data["node"]["captured"]

    async def expire(self) -> None:
        """Run the jobs that are due now, and let everybody read what they say."""
        await run_jobs(self.client, self.now)
        await drain(self.client)

    async def refused(self, user: str, points: int) -> tuple[str, Any]:
        """Why a redemption is refused: the code and the values in play."""
        [error] = (await self.redeem(user, points))["errors"]
        return error["code"], error["params"]

    async def account(self, user: str, fields: str = NUMBERS, **variables: Any) -> dict[str, Any]:
        """Fields of a person's account."""
        data = await self.client.data(f"query($id: ID!) {{ user(id: $id) {{ points {{ {fields} }} }} }}", id=user, **variables)
        found: dict[str, Any] = data["user"]["points"]
        return found

    async def balance(self, user: str) -> int:
        return int((await self.account(user, "balance"))["balance"])

    async def entries(self, user: str, filter: str = "") -> list[tuple[str, int]]:
        """A person's ledger, newest first: kind and points."""
        found = await self.account(user, f"entries{filter} {{ nodes {{ kind points }} }}")
        return [(node["kind"], node["points"]) for node in found["entries"]["nodes"]]

    async def merge(self, kept: str, absorbed: str, *, followed: bool = True) -> str:
        """Make one of two, and let the plugin follow; the merge's id."""
        data = await self.client.data(
            "mutation($k: ID!, $a: ID!) { mergeUsers(input: {keptId: $k, absorbedId: $a}) { mergeId errors { code message } } }",
            k=kept,
            a=absorbed,
        )
        assert data["mergeUsers"]["errors"] == []
        if followed:
            await drain(self.client)
        return str(data["mergeUsers"]["mergeId"])

    async def unmerge(self, merge: str, *, followed: bool = True) -> None:
        data = await self.client.data(
            "mutation($m: ID!) { unmergeUsers(input: {mergeId: $m}) { errors { code message } } }", m=merge
        )
        assert data["unmergeUsers"]["errors"] == []
        if followed:
            await drain(self.client)

    async def configure(self, rules: dict[str, Any]) -> None:
        """Put other rules of loyalty in force, as `scrm config apply` does."""
        await apply_rules(self.client, "loyalty", rules)
        await drain(self.client)

    async def suppose(self, rules: dict[str, Any]) -> Any:
        """What other rules of loyalty would have meant for all there was, as `scrm plugins replay --rules` says it."""
        return await replayed(self.client, "loyalty", rules)

    async def level(self, user: str, multiplier: str) -> None:
        """Let another plugin say what the points of a member are multiplied by."""
        await self.send(self.event("level.set", user, None, None, None, properties={"multiplier": multiplier}))

    async def check(self) -> None:
        """The ledger agrees with itself, and the log gives the same rows again."""
        await drain(self.client)
        assert await self.client.services.db.read(drifts) == []
        report = await replayed(self.client, "loyalty")
        assert report.differences == []
        assert report.equal
        await self.check_failures()

    async def check_failures(self) -> None:
        """No event was set aside, and no plugin is degraded."""
        data = await self.client.data("{ plugins { state reason failures { nodes { error state } } } }")
        well: dict[str, Any] = {"state": "ACTIVE", "reason": None, "failures": {"nodes": []}}
        running = [plugin for plugin in data["plugins"] if plugin["state"] != "DISABLED"]
        assert running == [well] * len(self.client.services.plugins)


@asynccontextmanager
async def opened(
    url: str, at: str = "2026-03-01T12:00", *, beside: Mapping[str, Any] | None = None, **rules: Any
) -> AsyncIterator[Shop]:
    """A shop on a database with the core's tables; `rules` are loyalty's, `beside` are other plugins by name."""
    clock = [local(at)]
    sections = {"loyalty": {"enabled": True, **rules}}
    async with serving(
        url, modules={"loyalty": scrm_loyalty, **(beside or {})}, sections=sections, clock=lambda: clock[0]
    ) as client:
        yield Shop(client, clock)
