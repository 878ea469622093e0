"""A shop with a club of members, asked as a front end asks; its clock is set by the test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import scrm_loyalty
import scrm_tiers
from scrm.testing.client import drain, replayed, run_jobs, serving
from tests.plugins.shop import Shop, local

MODULES = {"loyalty": scrm_loyalty, "tiers": scrm_tiers}
THREE: list[dict[str, Any]] = [
    {"key": "bronze", "name": "铜", "names": {"en": "Bronze"}, "bounds": {"spend": 0}},
    {"key": "silver", "name": "银", "names": {"en": "Silver"}, "bounds": {"spend": 1_000}, "multiplier": "1.5"},
    {"key": "gold", "name": "金", "names": {"en": "Gold"}, "bounds": {"spend": 3_000}, "multiplier": 2},
]
"""Levels by small amounts of money."""
SET = """mutation($input: SetTierInput!) { setTier(input: $input) {
  membership { tier { key } pinnedUntil } errors { code message path params } } }"""
CLEAR = """mutation($input: ClearTierInput!) { clearTier(input: $input) {
  membership { tier { key } pinnedUntil } errors { code message path params } } }"""
GRANT = """mutation($input: GrantGrowthInput!) { grantGrowth(input: $input) {
  membership { tier { key } growth } errors { code message path params } } }"""
REVIEW = """mutation($input: ReviewTiersInput!) { reviewTiers(input: $input) {
  day changed left errors { code message path params } } }"""
HISTORY = "history(first: 100) { nodes { cause from { key } to { key } at progress { metric value required remaining } } }"


def bounds(metric: str, *values: int, **more: tuple[int, ...]) -> list[dict[str, Any]]:
    """Levels with such bounds: bronze, silver, gold, as many as there are."""
    asked = {metric: values, **more}
    return [
        {"key": key, "name": key, "bounds": {name: each[place] for name, each in asked.items()}}
        for place, key in enumerate(("bronze", "silver", "gold")[: len(values)])
    ]


class Club(Shop):
    """What members do, and which level they have then."""

    async def membership(self, user: str, fields: str) -> dict[str, Any]:
        """Fields of a person's membership."""
        data = await self.client.data(f"query($id: ID!) {{ user(id: $id) {{ membership {{ {fields} }} }} }}", id=user)
        found: dict[str, Any] = data["user"]["membership"]
        return found

    async def tier(self, user: str) -> str | None:
        """The key of a person's level."""
        tier = (await self.membership(user, "tier { key }"))["tier"]
        return tier["key"] if tier else None

    async def value(self, user: str, metric: str = "SPEND") -> int:
        """One value of a person."""
        rows = (await self.membership(user, "progress { metric value }"))["progress"]
        return next(int(row["value"]) for row in rows if row["metric"] == metric)

    async def history(self, user: str) -> list[tuple[str, str | None, str | None]]:
        """How a person's level changed, oldest first: cause, from, to."""
        nodes = (await self.membership(user, HISTORY))["history"]["nodes"]
        keys = [tuple(node[end]["key"] if node[end] else None for end in ("from", "to")) for node in nodes]
        return [(node["cause"], *pair) for node, pair in zip(nodes, keys, strict=True)][::-1]

    async def mutate(self, document: str, **input: Any) -> dict[str, Any]:
        """The payload of a mutation, with a key of its own unless it is said."""
        said = {"idempotencyKey": uuid.uuid4().hex, **input}
        data = await self.client.data(document, input=said)
        [payload] = data.values()
        await drain(self.client)
        found: dict[str, Any] = payload
        return found

    async def set_tier(self, user: str, tier: str, until: str, **more: Any) -> dict[str, Any]:
        return await self.mutate(SET, userId=user, tier=tier, until=local(until).isoformat(), **more)

    async def clear_tier(self, user: str, **more: Any) -> dict[str, Any]:
        return await self.mutate(CLEAR, userId=user, **more)

    async def grant(self, user: str, growth: int) -> dict[str, Any]:
        return await self.mutate(GRANT, userId=user, growth=growth)

    async def review(self, **more: Any) -> dict[str, Any]:
        return await self.mutate(REVIEW, **more)

    async def run_jobs(self) -> None:
        """What a worker does by the clock now."""
        await run_jobs(self.client, self.now)
        await drain(self.client)

    async def suppose(self, rules: dict[str, Any]) -> Any:
        """What another scheme would have meant for all there was, as `scrm plugins replay --rules` says it."""
        return await replayed(self.client, "tiers", rules)

    async def pass_to(self, text: str) -> None:
        """It becomes this time, and the jobs that are due by then have run."""
        await run_jobs(self.client, self.now)
        self.set_time(text)
        await self.run_jobs()

    async def check(self) -> None:
        """Nothing failed, and the log gives the same rows again."""
        await drain(self.client)
        data = await self.client.data("{ plugins { name state reason failures { nodes { error state } } } }")
        assert [each for each in data["plugins"] if each["failures"]["nodes"] or each["reason"]] == []
        report = await replayed(self.client, "tiers")
        assert report.differences == []
        assert report.equal


@asynccontextmanager
async def opened(
    url: str, at: str = "2026-03-01T12:00", *, loyalty: bool = False, serve: Mapping[str, Any] | None = None, **rules: Any
) -> AsyncIterator[Club]:
    """A club on a database with the core's tables; `rules` are those of tiers, `serve` what else `serving` is told."""
    clock = [local(at)]
    modules = {name: module for name, module in MODULES.items() if loyalty or name == "tiers"}
    said = {"levels": THREE, **rules} if "preset" not in rules else rules
    sections = {"tiers": {"enabled": True, **said}, "loyalty": {"enabled": loyalty}}
    async with serving(url, modules=modules, sections=sections, clock=lambda: clock[0], **(serve or {})) as client:
        club = Club(client, clock)
        await drain(client)
        await run_jobs(client, clock[0])
        yield club
