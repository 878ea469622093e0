"""A brand whose customers are scored, asked as a front end asks; its clock is set by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import scrm_rfm
from scrm.testing.client import apply_rules, drain, replayed, run_jobs, serving
from tests.plugins.shop import Shop, local

RUN = """id asOf state mode population otherCurrencyEvents bounds standing previous { id }
  segments { segment { key } count share revenue { amountMinor currency } change entered left }
  grid { r f count share revenue { amountMinor } } transitions { from { key } to { key } count }"""
COMPUTE = f"""mutation($input: ComputeRfmInput!) {{
  computeRfm(input: $input) {{ run {{ {RUN} }} errors {{ code message path params }} }} }}"""
SCORE = "recencyDays frequency monetary { amountMinor } r f m score segment { key }"
LAYERS = "value behavior health healthFactors { key value percentile weight }"


class Brand(Shop):
    """What customers do, and how they stand then."""

    async def members(self, count: int) -> list[str]:
        """New people's global ids."""
        asked = " ".join(f'm{n}: createUser(input: {{displayName: "m"}}) {{ user {{ id }} }}' for n in range(count))
        made = await self.client.data(f"mutation {{ {asked} }}")
        return [made[f"m{n}"]["user"]["id"] for n in range(count)]

    def paid(self, user: str, order: str, amount: int | None, at: str | datetime | None = None, **more: Any) -> Any:
        """A paid order, to send with others."""
        return self.event("order.paid", user, order, amount, at, **more)

    async def compute(self, as_of: str | None = None, **more: Any) -> dict[str, Any]:
        """The run as of a time of the business zone, or now, once it is made."""
        said = {"asOf": local(as_of).isoformat() if as_of else None, "waitSeconds": 0, **more}
        payload = (await self.client.data(COMPUTE, input=said))["computeRfm"]
        assert payload["errors"] == []
        await drain(self.client)
        found: dict[str, Any] = await self.run(payload["run"]["id"])
        return found

    async def run(self, id: str | None = None, fields: str = RUN) -> Any:
        """A run, or the current one."""
        return (await self.client.data(f"query($id: ID) {{ rfmRun(id: $id) {{ {fields} }} }}", id=id))["rfmRun"]

    async def refused(self, **said: Any) -> tuple[str, list[str]]:  # type: ignore[override]
        """Why a run is refused: the code and where."""
        [error] = (await self.client.data(COMPUTE, input={"waitSeconds": 0, **said}))["computeRfm"]["errors"]
        return error["code"], error["path"]

    async def rfm(self, user: str, fields: str = SCORE) -> Any:
        """Fields of a person's scores."""
        return (await self.client.data(f"query($id: ID!) {{ user(id: $id) {{ rfm {{ {fields} }} }} }}", id=user))["user"]["rfm"]

    async def layers(self, user: str, fields: str = LAYERS) -> Any:
        """Fields of a person's layers."""
        data = await self.client.data(f"query($id: ID!) {{ user(id: $id) {{ layers {{ {fields} }} }} }}", id=user)
        return data["user"]["layers"]

    async def everybody(self, users: Sequence[str], fields: str) -> list[Any]:
        """Fields of each of these."""
        asked = f"query($ids: [ID!]) {{ users(first: 100, filter: {{ids: $ids}}) {{ nodes {{ id {fields} }} }} }}"
        nodes = (await self.client.data(asked, ids=list(users)))["users"]["nodes"]
        found = {node.pop("id"): node for node in nodes}
        return [found[user] for user in users]

    async def scores(self, users: Sequence[str]) -> list[str | None]:
        """The three digits of each."""
        return [node["rfm"]["score"] for node in await self.everybody(users, "rfm { score }")]

    async def segments(self, users: Sequence[str]) -> list[str]:
        """The key of each one's segment."""
        return [node["rfm"]["segment"]["key"] for node in await self.everybody(users, "rfm { segment { key } }")]

    def act(self, user: str, at: str | datetime, type: str = "content.liked") -> Any:
        """An interaction, to send with others."""
        said = {"content": {"contentId": "c"}, "group": {"groupId": "g"}}.get(type.split(".")[0], {})
        return self.event(type, user, None, None, at) | {"properties": said}

    async def run_jobs(self) -> None:
        """What a worker does by the clock now."""
        await run_jobs(self.client, self.now)
        await drain(self.client)

    async def pass_to(self, text: str) -> None:
        """It becomes this time, and the jobs that are due by then have run."""
        await run_jobs(self.client, self.now)
        self.set_time(text)
        await self.run_jobs()

    async def configure(self, rules: dict[str, Any]) -> None:
        """Put other rules of rfm in force, as `scrm config apply` does."""
        await apply_rules(self.client, "rfm", rules)
        await drain(self.client)

    async def changes(self) -> list[tuple[str, str, str]]:
        """Who was announced to have changed: person, from, to; the oldest first."""
        asked = '{ events(first: 100, filter: {type: ["rfm.segment_changed"]}) { nodes { user { id } properties } } }'
        nodes = (await self.client.data(asked))["events"]["nodes"]
        said = [(node["user"]["id"], node["properties"]["from"], node["properties"]["to"]) for node in nodes]
        return sorted(said)

    async def five(self, at: str = "2026-02-20T12:00") -> list[str]:
        """Five buyers, the later the better: 111 to 515 a day after the last."""
        users, start = await self.members(5), local(at)
        await self.send(*(self.paid(user, "o", 100 * (n + 1), start + timedelta(days=n)) for n, user in enumerate(users)))
        return users

    async def check(self) -> None:
        """Nothing failed, and the log gives the same rows again."""
        await drain(self.client)
        data = await self.client.data("{ plugins { name state reason failures { nodes { error state } } } }")
        assert [each for each in data["plugins"] if each["failures"]["nodes"] or each["reason"]] == []
        report = await replayed(self.client, "rfm")
        assert report.differences == []
        assert report.equal


@asynccontextmanager
async def opened(
    url: str, at: str = "2026-03-01T12:00", *, serve: Mapping[str, Any] | None = None, **rules: Any
) -> AsyncIterator[Brand]:
    """A brand on a database with the core's tables; `rules` are those of rfm, `serve` what else `serving` is told."""
    clock: list[datetime] = [local(at)]
    sections = {"rfm": {"enabled": True, **rules}}
    async with serving(url, modules={"rfm": scrm_rfm}, sections=sections, clock=lambda: clock[0], **(serve or {})) as client:
        brand = Brand(client, clock)
        await drain(client)
        await run_jobs(client, clock[0])
        yield brand
