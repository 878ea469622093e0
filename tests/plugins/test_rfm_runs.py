"""Runs by the clock and on demand, what they say of the run before and announce; people who merge and who are forgotten."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from scrm.api import instant_text
from scrm.testing.client import drain
from scrm.testing.following import following
from scrm.testing.issuer import Issuer
from tests.plugins.layering import COMPUTE, Brand, opened
from tests.plugins.shop import Shop, local


def said(at: str) -> str:
    """A local time as answers say it."""
    return instant_text(local(at))


RUNS = "{ rfmRuns { nodes { id asOf state standing position } } }"


async def test_the_run_of_the_clock_is_made_anew_for_what_comes_late(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-01T00:20") as brand:
        await brand.run_jobs()  # of an empty log
        users = await brand.five()
        await brand.pass_to("2026-03-01T00:20:50")
        assert await brand.rfm(users[0]) is None
        await brand.pass_to("2026-03-01T00:22")
        assert [(await brand.run())["population"], await brand.scores(users[-1:])] == [5, ["515"]]
        assert await brand.changes() == []  # it is the first one
        positions = [node["position"] for node in (await brand.client.data(RUNS))["rfmRuns"]["nodes"]]
        await brand.send(
            brand.paid(users[0], "late", 900, "2026-02-28T23:00"), brand.paid(users[1], "today", 9, "2026-03-01T00:21")
        )
        await brand.pass_to("2026-03-01T00:31")
        assert [node["position"] for node in (await brand.client.data(RUNS))["rfmRuns"]["nodes"]] == positions
        await brand.pass_to("2026-03-01T00:33")
        assert await brand.scores(users[:1]) == ["555"]
        assert (users[0], "LOST", "CHAMPIONS") in await brand.changes()
        later = [node["position"] for node in (await brand.client.data(RUNS))["rfmRuns"]["nodes"]]
        assert len(later) == len(positions)
        await brand.pass_to("2026-03-01T00:50")
        assert [node["position"] for node in (await brand.client.data(RUNS))["rfmRuns"]["nodes"]] == later
        await brand.check()


async def test_runs_by_the_clock(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-02-28T23:00", every="DAY", keep_runs=2) as brand:
        users = await brand.five()
        await brand.pass_to("2026-03-01T00:14:59")
        assert [node["asOf"] for node in (await brand.client.data(RUNS))["rfmRuns"]["nodes"]] == [
            said("2026-02-27T23:59:59.999999")
        ]
        await brand.pass_to("2026-03-01T00:15")
        await brand.pass_to("2026-03-01T00:16")
        found = (await brand.client.data(RUNS))["rfmRuns"]["nodes"]
        assert [node["asOf"] for node in found] == [said("2026-02-28T23:59:59.999999"), said("2026-02-27T23:59:59.999999")]
        rfm = await brand.rfm(users[4], "recencyDays score asOf computedAt stale previousSegment { key } history { asOf score }")
        assert rfm == {
            "recencyDays": 4,
            "score": "515",
            "asOf": said("2026-02-28T23:59:59.999999"),
            "computedAt": said("2026-03-01T00:15"),
            "stale": False,
            "previousSegment": {"key": "PROMISING"},
            "history": [{"asOf": node["asOf"], "score": "515"} for node in found],
        }
        for at, stale in (("2026-03-02T00:59:59", False), ("2026-03-02T01:00", True)):
            brand.set_time(at)
            assert [(await brand.rfm(users[0], "stale"))["stale"], (await brand.layers(users[0], "stale"))["stale"]] == [
                stale
            ] * 2
        assert await brand.changes() == []
        await brand.pay(users[0], "p", 600, "2026-03-01T12:00")
        await brand.pass_to("2026-03-02T01:00")
        changes = await brand.changes()
        assert changes == await shown(brand, users)
        assert changes[0] == (users[0], "LOST", "CHAMPIONS")
        run = await brand.run()
        moved = {(each["from"]["key"], each["to"]["key"]): each["count"] for each in run["transitions"]}
        assert sum(moved.values()) == 5
        assert moved["LOST", "CHAMPIONS"] == 1
        assert len(run["segments"]) == 11  # those that everybody has left too
        for each in run["segments"]:
            key = each["segment"]["key"]
            came = sum(count for (before, after), count in moved.items() if after == key != before)
            left = sum(count for (before, after), count in moved.items() if before == key != after)
            assert (each["entered"], each["left"], each["change"]) == (came, left, came - left)
        again = await brand.client.data("{ rfmTransitions { from { key } to { key } count } }")
        assert again["rfmTransitions"] == run["transitions"]
        three = (await brand.client.data(RUNS))["rfmRuns"]["nodes"]
        assert (await brand.run(three[2]["id"], "segments { count }"))["segments"] != []  # what was counted stays
        assert len((await brand.rfm(users[0], "history { score }"))["history"]) == 2  # of two runs the rows are kept
        between = "query($a: ID, $b: ID) { rfmTransitions(from: $a, to: $b) { count } }"
        assert (await brand.client.data(between, a=three[2]["id"], b=three[0]["id"]))["rfmTransitions"] == []
        assert len((await brand.client.data(between, a=three[1]["id"], b=three[0]["id"]))["rfmTransitions"]) == len(moved)
        await brand.check()


async def shown(brand: Brand, users: list[str]) -> list[tuple[str, str, str]]:
    """Who is shown in another segment than before."""
    found = await brand.everybody(users, "rfm { previousSegment { key } segment { key } }")
    pairs = [(each["rfm"]["previousSegment"]["key"], each["rfm"]["segment"]["key"]) for each in found]
    return [(user, *pair) for user, pair in zip(users, pairs, strict=True) if pair[0] != pair[1]]


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("every", "at", "as_of"),
    [("WEEK", "2026-03-09T00:15", "2026-03-08T23:59:59.999999"), ("MONTH", "2026-04-01T00:15", "2026-03-31T23:59:59.999999")],
)
async def test_other_periods(migrated_url: str, every: str, at: str, as_of: str) -> None:
    async with opened(migrated_url, (local(at) - timedelta(minutes=1)).replace(tzinfo=None).isoformat(), every=every) as brand:
        await brand.pass_to(at)
        nodes = (await brand.client.data(RUNS))["rfmRuns"]["nodes"]
        assert nodes[0]["asOf"] == said(as_of)
        await brand.pass_to((local(at) + timedelta(days=6)).replace(tzinfo=None).isoformat())
        assert (await brand.client.data(RUNS))["rfmRuns"]["nodes"] == nodes


async def test_runs_on_demand(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00") as brand:
        users = await brand.five()
        asked = await brand.client.data(COMPUTE, input={"waitSeconds": 0, "idempotencyKey": "k"})
        run = asked["computeRfm"]["run"]
        assert (run["state"], run["asOf"], run["population"], run["segments"]) == ("PENDING", said("2026-03-10T12:00"), 0, [])
        assert await brand.run() is None
        waiting = asyncio.create_task(brand.client.data(COMPUTE, input={"waitSeconds": 20, "idempotencyKey": "j"}))
        await asyncio.sleep(0)
        while not waiting.done():
            await drain(brand.client)
        assert waiting.result()["computeRfm"]["run"] == {**await brand.run(), "state": "DONE"}
        brand.set_time("2026-03-10T13:00")
        once = {"waitSeconds": 0, "asOf": local("2026-02-22T12:00").isoformat()}
        at_once = await asyncio.gather(*(brand.client.data(COMPUTE, input=once) for _ in range(5)))
        assert len({each["computeRfm"]["run"]["id"] for each in at_once}) == 1
        repeated = await brand.client.data(COMPUTE, input={"waitSeconds": 0, "idempotencyKey": "k"})
        assert repeated["computeRfm"]["run"]["id"] == run["id"]
        assert (await brand.run())["id"] == run["id"]
        # As of an earlier instant, or asked otherwise: to look at only.
        earlier = await brand.compute("2026-02-23T12:00")
        assert (earlier["state"], earlier["population"], earlier["standing"]) == ("INSUFFICIENT_DATA", 4, True)
        other = await brand.compute(mode="THRESHOLD", windowDays=17)
        assert (other["population"], other["mode"], other["standing"]) == (5 - 2, "THRESHOLD", False)
        assert (await brand.run())["id"] == run["id"]
        asked_at = "query($at: DateTime) { rfmRun(asOf: $at) { id } }"
        for at, found in (("2026-03-10T11:59:59", earlier), ("2026-03-10T12:00", run), ("2026-02-01T00:00", None)):
            data = await brand.client.data(asked_at, at=local(at).isoformat())
            assert data["rfmRun"] == ({"id": found["id"]} if found else None)
        for at in (local("2026-03-10T13:00:01").isoformat(), "1899-12-31T23:59:59Z"):
            assert await brand.refused(asOf=at) == ("INVALID_AS_OF", ["asOf"])
        assert (await brand.compute("1900-01-02T00:00"))["population"] == 0
        for window in (-1, 36_501):
            assert await brand.refused(windowDays=window) == ("INVALID_WINDOW", ["windowDays"])
        for seconds in (-1, 21):
            assert await brand.refused(waitSeconds=seconds) == ("INVALID_WAIT", ["waitSeconds"])
        # What comes late makes the same run anew, and says who is elsewhere by it.
        before = await brand.run(fields="position asOf")
        await brand.compute("2026-03-10T12:00")
        assert await brand.run(fields="position asOf") == before
        await brand.pay(users[0], "late", 1, "2026-03-10T12:00:00.000001")
        await brand.compute("2026-03-10T12:00")
        assert await brand.run(fields="position asOf") == before
        await brand.pay(users[0], "late", 1_000, "2026-03-10T11:00")
        await brand.compute("2026-03-10T12:00")
        assert (await brand.run(fields="position"))["position"] > before["position"]
        assert await brand.segments(users[:1]) == ["CHAMPIONS"]
        assert (users[0], "LOST", "CHAMPIONS") in await brand.changes()
        assert (await brand.client.data("{ rfmRuns { totalCount } }"))["rfmRuns"]["totalCount"] == 5
        await brand.check()


async def test_who_changes_is_announced_and_followed(migrated_url: str) -> None:
    issuer = Issuer()
    serve = {"jwt": issuer.settings(user_claim="uid"), "transport": issuer.transport}
    document = "subscription($id: ID) { rfmSegmentChanged(userId: $id) { segment { key } previousSegment { key } user { id } } }"
    async with opened(migrated_url, "2026-03-10T12:00", serve=serve) as brand:
        users = await brand.five()
        await brand.compute()
        brand.set_time("2026-03-11T12:00")
        mine = users[0]
        client = brand.client.with_key(issuer.token(brand.now, scope="users:read rfm:read rfm:write", uid=mine))
        async with following(brand.client, document, id=mine) as followed, following(client, document, id=None) as own:
            await brand.pay(mine, "p", 1)
            newcomer = await brand.member()
            await brand.pay(newcomer, "p", 1)
            await brand.compute()
            change = {"segment": {"key": "POTENTIAL_LOYALIST"}, "previousSegment": {"key": "LOST"}, "user": {"id": mine}}
            assert await followed.next() == await own.next() == {"rfmSegmentChanged": change}
        assert (newcomer, "PROSPECT", "NEW_CUSTOMERS") in await brand.changes()
        seen = await client.data(
            "{ users { nodes { id rfm { score history { score } } layers { value } } } rfmRun { population } }"
        )
        assert [node["id"] for node in seen["users"]["nodes"]] == [mine]
        assert seen["rfmRun"] is None  # what the house earns is not for its customers
        hidden = await client.data("{ rfmRuns { totalCount } rfmTransitions { count } rfmSegments { key } }")
        assert (hidden["rfmRuns"], hidden["rfmTransitions"], len(hidden["rfmSegments"])) == ({"totalCount": 0}, [], 17)
        assert seen["users"]["nodes"][0]["rfm"]["history"] == [{"score": "551"}, {"score": "111"}]
        refused = await client.graphql(COMPUTE, input={"waitSeconds": 0})
        assert refused["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        asked = 'query($id: ID!) { events(filter: {type: ["rfm.segment_changed"], user: $id}) { nodes { properties source } } }'
        [event] = (await brand.client.data(asked, id=mine))["events"]["nodes"]
        assert event["source"] == "plugin:rfm"
        assert {key: event["properties"][key] for key in ("from", "to", "score", "asOf")} == {
            "from": "LOST",
            "to": "POTENTIAL_LOYALIST",
            "score": "551",
            "asOf": said("2026-03-11T12:00"),
        }
        await brand.check()


async def test_merges_and_erasures(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00") as brand:
        users = await brand.five()
        first, *_, last = users
        new, nobody = await brand.members(2)
        await brand.compute()
        plan = """mutation($k: ID!, $a: ID!) {
          mergeUsers(input: {keptId: $k, absorbedId: $a, dryRun: true}) { moved { owner count } } }"""
        assert (await brand.client.data(plan, k=new, a=last))["mergeUsers"]["moved"][-1] == {"owner": "rfm", "count": 1}
        merge = await brand.merge(new, last)  # the survivor has no row of its own
        assert await brand.scores([new]) == ["515"]
        both = await brand.merge(first, new)  # and this one has
        assert await brand.scores([first]) == ["111"]
        brand.set_time("2026-03-11T12:00")
        run = await brand.compute()
        assert (run["state"], run["population"], await brand.segments([first])) == ("INSUFFICIENT_DATA", 4, ["INSUFFICIENT_DATA"])
        assert await brand.rfm(first, "frequency monetary { amountMinor }") == {"frequency": 2, "monetary": {"amountMinor": 600}}
        await brand.unmerge(both)
        assert [len(each["rfm"]["history"]) for each in await brand.everybody([first, new], "rfm { history { score } }")] == [
            2,
            1,
        ]
        await brand.unmerge(merge)
        assert [each["rfm"]["history"] for each in await brand.everybody([new, last], "rfm { history { score } }")] == [
            [],
            [{"score": "515"}],
        ]
        await brand.compute("2026-03-11T12:00")  # the same run: who is who has changed since
        assert await brand.scores([first, last, new]) == ["111", "515", None]
        merge = await brand.merge(last, first)
        await brand.pay(nobody, "o", 1)
        brand.set_time("2026-03-12T12:00")
        run = await brand.compute()
        assert (run["population"], run["state"]) == (5, "DONE")
        changed = {user for user, *_ in await brand.changes()}
        assert first not in changed  # who was absorbed did not leave anything
        assert {last, nobody} <= changed
        assert sum(each["count"] for each in run["transitions"]) == 5
        assert await forgotten(brand, last) == {"rfm": ["score", 2]}
        run = await brand.compute("2026-03-12T12:00")
        await brand.pay(nobody, "p", 1, "2026-03-12T11:00")
        run = await brand.compute("2026-03-12T12:00")
        assert (run["population"], run["state"]) == (4, "INSUFFICIENT_DATA")
        await brand.check()


async def forgotten(brand: Brand, user: str) -> Any:
    """What is handed over of somebody, who is then erased."""
    asked = "mutation($id: ID!) { exportUser(input: {id: $id}) { export errors { code } } }"
    data = (await brand.client.data(asked, id=user))["exportUser"]["export"]["plugins"]["rfm"]["scores"]
    assert {row["holder_id"] for row in data} == {Shop.key(user).hex}
    assert [datetime.fromisoformat(row["as_of"]) for row in data] == sorted(datetime.fromisoformat(row["as_of"]) for row in data)
    erased = "mutation($id: ID!) { eraseUser(input: {id: $id}) { errors { code message } } }"
    assert (await brand.client.data(erased, id=user))["eraseUser"]["errors"] == []
    await drain(brand.client)
    return {"rfm": ["score", len(data) - 1]}
