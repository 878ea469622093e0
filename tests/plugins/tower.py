"""A shop that is watched: rules on what its members do, asked as a front end asks; its clock is set by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import scrm_risk
from scrm.testing.client import drain, replayed, run_jobs, serving
from tests.plugins.shop import Shop, local

ALERT = """id state severity scope value threshold explanation startedAt firedAt dueAt breached escalations assignee
  acknowledgedAt acknowledgedBy resolvedAt snoozedUntil phase rule { key } user { id }"""
ERRORS = "errors { code message path params }"
ANSWERS = {
    "evaluateRisks": "asOf rules fired resolved problems",
    "saveRiskRule": "rule { id key name severity forPeriods period per enabled saved condition }",
    "deleteRiskRule": "deletedId",
    "saveRisk": "risk { id key score band status acceptance { by until reason } residual { score band } }",
    "acceptRisk": "risk { id key score band status acceptance { by until reason } residual { score band } }",
}
INPUTS = {"acknowledgeAlert": "AlertActionInput", "resolveAlert": "AlertActionInput"}


def threshold(indicator: str = "complaints", severity: str = "GENERAL", **more: Any) -> dict[str, Any]:
    """A rule on a daily value: above 2 unless said."""
    condition = more.pop("condition", {"kind": "threshold", "above": 2})
    return {"name": "规则", "names": {"en": "Rule"}, "indicator": indicator, "severity": severity, "condition": condition, **more}


class Tower(Shop):
    """What happens, and what is alerted of it."""

    async def call(self, name: str, /, **said: Any) -> dict[str, Any]:
        """The payload of a mutation of risk."""
        kind = INPUTS.get(name, f"{name[0].upper()}{name[1:]}Input")
        answer = ANSWERS.get(name, f"alert {{ {ALERT} }}")
        document = f"mutation($input: {kind}!) {{ {name}(input: $input) {{ {answer} {ERRORS} }} }}"
        data = await self.client.data(document, input=said)
        await drain(self.client)
        payload: dict[str, Any] = data[name]
        return payload

    async def called(self, name: str, /, **said: Any) -> dict[str, Any]:
        """The payload of one that is not refused."""
        payload = await self.call(name, **said)
        assert payload["errors"] == []
        return payload

    async def denied(self, name: str, /, **said: Any) -> tuple[str, Any]:
        """Why one is refused: the code and the values in play."""
        [error] = (await self.call(name, **said))["errors"]
        return error["code"], error["params"]

    async def evaluate(self, at: str | None = None) -> dict[str, Any]:
        """Evaluate as of a time, which it is then."""
        if at is not None:
            self.set_time(at)
        return await self.called("evaluateRisks")

    async def complain(self, day: str, times: int, user: str | None = None) -> None:
        """So many complaints on a day."""
        who = user or await self.member()
        await self.send(*(self.event("complaint.filed", who, None, None, f"{day}T10:00") for _ in range(times)))

    async def report(self, day: str, value: float, indicator: str = "opinion_index") -> None:
        """A figure from outside."""
        said = self.event("indicator.reported", "", None, None, f"{day}T12:00")
        del said["userId"]
        await self.send(said | {"properties": {"indicator": indicator, "value": value}})

    async def alerts(self, filter: str = "", fields: str = ALERT) -> list[dict[str, Any]]:
        """Alerts, by when they are due."""
        data = await self.client.data(f"{{ riskAlerts{filter} {{ nodes {{ {fields} }} }} }}")
        found: list[dict[str, Any]] = data["riskAlerts"]["nodes"]
        return found

    async def states(self) -> list[tuple[str, str]]:
        """Rules and states of all alerts, the oldest first."""
        found = await self.alerts("(orderBy: [{startedAt: ASC}])", "rule { key } state")
        return [(each["rule"]["key"], each["state"]) for each in found]

    async def timeline(self, alert: str) -> list[tuple[str | None, str, str | None]]:
        """What became of an alert: from, to, comment."""
        fields = "timeline { from to comment actor at value phase }"
        data = await self.client.data(f"query($id: ID!) {{ node(id: $id) {{ ... on RiskAlert {{ {fields} }} }} }}", id=alert)
        return [(line["from"], line["to"], line["comment"]) for line in data["node"]["timeline"]]

    async def run_jobs(self) -> None:
        """What a worker does by the clock now."""
        await run_jobs(self.client, self.now)
        await drain(self.client)

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
        report = await replayed(self.client, "risk")
        assert report.differences == []
        assert report.equal


def utc(text: str) -> str:
    """A time of the business zone as GraphQL says it."""
    return local(text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@asynccontextmanager
async def opened(
    url: str,
    at: str = "2026-03-10T12:00",
    *,
    modules: Mapping[str, Any] | None = None,
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    **rules: Any,
) -> AsyncIterator[Tower]:
    """A watched shop on a database with the core's tables; `rules` is the section of risk, without presets unless said."""
    clock: list[datetime] = [local(at)]
    said = {"risk": {"enabled": True, "presets": False, **rules}, **(sections or {})}
    async with serving(url, modules={"risk": scrm_risk, **(modules or {})}, sections=said, clock=lambda: clock[0]) as client:
        client.http.headers["Accept-Language"] = "en"
        tower = Tower(client, clock)
        await drain(client)
        await run_jobs(client, clock[0])
        yield tower
