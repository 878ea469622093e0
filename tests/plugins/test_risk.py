"""Alerts as an operations dashboard sees them; after every test the log must give the same rows again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from scrm.testing.client import run_jobs
from scrm.testing.following import following
from tests.plugins.tower import ALERT, opened, threshold, utc


async def test_an_alert_says_all(migrated_url: str) -> None:
    rules = {"many": threshold(assignee="小李", playbook="call"), "more": threshold(condition={"kind": "threshold", "above": 5})}
    async with opened(migrated_url, rules=rules) as tower:
        await tower.complain("2026-03-09", 2)
        assert (await tower.evaluate("2026-03-10T00:00"))["fired"] == 0  # 2 is not above 2
        await tower.complain("2026-03-09", 3)
        done = await tower.evaluate("2026-03-10T01:00")
        assert done == {"asOf": utc("2026-03-10T01:00"), "rules": 2, "fired": 1, "resolved": 0, "problems": [], "errors": []}
        [alert] = await tower.alerts()
        assert {**alert, "id": None} == {
            "id": None,
            "state": "FIRING",
            "severity": "GENERAL",
            "scope": {},
            "value": 5.0,
            "threshold": 2.0,
            "explanation": "Complaints was 5 on 2026-03-09; limit 2",
            "startedAt": utc("2026-03-10T01:00"),
            "firedAt": utc("2026-03-10T01:00"),
            "dueAt": utc("2026-03-10T09:00"),
            "breached": False,
            "escalations": 0,
            "assignee": "小李",
            "acknowledgedAt": None,
            "acknowledgedBy": None,
            "resolvedAt": None,
            "snoozedUntil": None,
            "phase": "DETECT",
            "rule": {"key": "many"},
            "user": None,
        }
        assert await tower.timeline(alert["id"]) == [(None, "FIRING", None)]
        again = await tower.evaluate("2026-03-10T02:00")  # a repeat updates it
        assert (again["fired"], len(await tower.alerts())) == (0, 1)
        await tower.complain("2026-03-09", 1)
        await tower.evaluate("2026-03-10T03:00")
        assert [(each["rule"]["key"], each["value"]) for each in await tower.alerts()] == [("many", 6.0), ("more", 6.0)]
        await tower.complain("2026-03-10", 1)
        assert (await tower.evaluate("2026-03-11T00:00"))["resolved"] == 2
        assert await tower.timeline(alert["id"]) == [(None, "FIRING", None), ("FIRING", "RESOLVED", None)]
        assert await tower.states() == [("many", "RESOLVED"), ("more", "RESOLVED")]
        await tower.check()


async def test_in_a_row_by_channel_missing_and_late(migrated_url: str) -> None:
    """Three rules: an index on three days in a row, complaints of a channel, and one that is pending first."""
    three = {"kind": "in_a_row", "periods": 3, "condition": {"kind": "threshold", "above": 800}}
    rules = {
        "index": threshold("opinion_index", "URGENT", condition=three),
        "shop": threshold(channels=["mini", "none"]),
        "held": threshold("opinion_index", for_periods=2, missing="OK", condition={"kind": "threshold", "above": 800}),
    }
    async with opened(migrated_url, "2026-03-08T00:30", rules=rules) as tower:
        await tower.client.data(
            'mutation { createChannel(input: {key: "mini", name: "m", kind: MINI_PROGRAM}) { errors { code } } }'
        )
        for day, value in (("2026-03-05", 801), ("2026-03-06", 801), ("2026-03-07", 800)):
            await tower.report(day, value)
        done = await tower.evaluate("2026-03-08T00:30")
        assert done["problems"] == ["shop: no channel has the key 'none'"] or "none" in done["problems"][0]
        assert await tower.states() == []
        await tower.report("2026-03-07", 800.001)  # a day's last word counts; so it was over on three days
        await tower.evaluate("2026-03-08T01:00")
        assert sorted(await tower.states()) == [("held", "FIRING"), ("index", "FIRING")]
        who = await tower.member()
        sent = [tower.event("complaint.filed", who, None, None, "2026-03-07T10:00") | {"channel": "mini"} for _ in range(3)]
        await tower.send(*sent)
        await tower.evaluate("2026-03-08T02:00")
        [shop] = await tower.alerts('(filter: {rule: ["shop"]})')
        assert (shop["scope"], shop["state"]) == ({"channel": "mini"}, "FIRING")
        await tower.evaluate("2026-03-09T00:00")  # nothing was reported: one is kept as it is, the other takes it for well
        assert dict(await tower.states()) == {"index": "FIRING", "held": "RESOLVED", "shop": "RESOLVED"}
        await tower.report("2026-03-08", 900)
        await tower.evaluate("2026-03-09T01:00")
        assert ("held", "FIRING") in await tower.states()  # with what came late it held on four days
        await tower.report("2026-03-07", 10)  # … and with what came later still it did not, when they fired
        await tower.evaluate("2026-03-09T02:00")
        found = await tower.alerts("(filter: {open: false})", "rule { key } timeline { to comment }")
        late = [line["comment"] for each in found for line in each["timeline"] if line["comment"]]
        assert "late data for 2026-03-07" in late
        assert [state for key, state in await tower.states() if key == "index"] == ["RESOLVED"]
        await tower.check()


async def test_responding(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-09T08:00", rules={"many": threshold(severity="IMPORTANT")}) as tower:
        await tower.complain("2026-03-08", 3)
        await tower.evaluate()
        [alert] = await tower.alerts()
        said = {"id": alert["id"], "comment": "on it"}
        early = await tower.call("advanceAlert", id=alert["id"], phase="DETECT")
        assert [(error["code"], error["params"]) for error in early["errors"]] == [("PHASE_NOT_LATER", {"phase": "DETECT"})]
        tower.set_time("2026-03-09T11:59:59")
        taken = await tower.call("acknowledgeAlert", idempotencyKey="a", **said)
        assert {name: taken["alert"][name] for name in ("state", "acknowledgedBy", "phase", "breached")} == {
            "state": "ACKNOWLEDGED",
            "acknowledgedBy": taken["alert"]["acknowledgedBy"],
            "phase": "ASSESS",
            "breached": False,
        }
        assert await tower.call("acknowledgeAlert", idempotencyKey="a", **said) == taken
        assert await tower.denied("acknowledgeAlert", **said) == ("ALERT_ACKNOWLEDGED", {"by": taken["alert"]["acknowledgedBy"]})
        for phase in ("RESPOND", "COMMUNICATE"):
            assert (await tower.called("advanceAlert", id=alert["id"]))["alert"]["phase"] == phase
        assert (await tower.called("advanceAlert", id=alert["id"], phase="REVIEW"))["alert"]["phase"] == "REVIEW"
        assert (await tower.denied("advanceAlert", id=alert["id"]))[0] == "PHASE_NOT_LATER"
        ended = await tower.called("resolveAlert", **said)
        assert (ended["alert"]["state"], ended["alert"]["breached"]) == ("RESOLVED", False)
        assert (await tower.denied("resolveAlert", **said))[0] == "ALERT_RESOLVED"
        assert (await tower.denied("acknowledgeAlert", **said))[0] == "ALERT_RESOLVED"
        unknown = "RiskAlert_" + "0" * 32
        assert (await tower.denied("resolveAlert", id=unknown))[0] == "ALERT_NOT_FOUND"
        await tower.evaluate("2026-03-09T13:00")  # the same day opens no other
        assert len(await tower.alerts()) == 1
        lines = [(None, "FIRING", None), ("FIRING", "ACKNOWLEDGED", "on it"), *[("ACKNOWLEDGED", "ACKNOWLEDGED", None)] * 3]
        assert await tower.timeline(alert["id"]) == [*lines, ("ACKNOWLEDGED", "RESOLVED", "on it")]
        await tower.complain("2026-03-09", 3)
        await tower.evaluate("2026-03-10T00:00")
        assert await tower.states() == [("many", "RESOLVED"), ("many", "FIRING")]
        await tower.check()


async def test_overdue_is_raised_and_due_to_the_second(migrated_url: str) -> None:
    rules = {"many": threshold(), "watch": threshold(severity="WATCH"), "sleepy": threshold(severity="URGENT")}
    async with opened(migrated_url, "2026-03-09T08:00", rules=rules, escalate_to="经理") as tower:
        await tower.complain("2026-03-08", 3)
        silent = await tower.called("snoozeAlert", rule="sleepy", scope={}, until=utc("2026-03-09T10:00"), comment="known")
        assert silent["alert"] is None
        await tower.evaluate()
        states = dict(await tower.states())
        assert states == {"many": "FIRING", "watch": "FIRING", "sleepy": "SNOOZED"}
        by_due = await tower.alerts("", "rule { key } dueAt breached snoozedUntil")
        assert [(each["rule"]["key"], each["dueAt"]) for each in by_due] == [
            ("sleepy", utc("2026-03-09T12:00")),
            ("many", utc("2026-03-09T16:00")),
            ("watch", None),
        ]
        asked = "query($after: String) { riskAlerts(first: 1, after: $after) { nodes { rule { key } } pageInfo { endCursor } } }"
        after, paged = None, []
        while (page := (await tower.client.data(asked, after=after))["riskAlerts"])["nodes"]:
            paged += [node["rule"]["key"] for node in page["nodes"]]
            after = page["pageInfo"]["endCursor"]
        assert paged == ["sleepy", "many", "watch"]
        tower.set_time("2026-03-09T10:00")
        assert dict(await tower.states())["sleepy"] == "FIRING"  # ended by itself
        for time, overdue in (("12:00", []), ("12:00:00.000001", ["sleepy"]), ("16:00:00.000001", ["sleepy", "many"])):
            tower.set_time(f"2026-03-09T{time}")
            found = await tower.alerts("(filter: {breached: true})", "rule { key }")
            assert [each["rule"]["key"] for each in found] == overdue
        await tower.evaluate("2026-03-09T16:00:00.000001")
        found = await tower.alerts('(filter: {breached: true, assignee: ["经理"]})', ALERT)
        assert [(each["rule"]["key"], each["severity"], each["escalations"], each["dueAt"]) for each in found] == [
            ("sleepy", "URGENT", 1, utc("2026-03-09T12:00")),
            ("many", "IMPORTANT", 1, utc("2026-03-09T20:00:00.000001")),
        ]
        await tower.evaluate("2026-03-09T20:00:00.000001")
        assert [each["escalations"] for each in await tower.alerts("(filter: {breached: true})")] == [1, 1]
        await tower.evaluate("2026-03-09T20:00:00.000002")
        urgent = await tower.alerts('(filter: {severity: [URGENT], rule: ["many"]})')
        assert [(each["escalations"], each["breached"]) for each in urgent] == [(2, True)]
        slept = next(each for each in found if each["rule"]["key"] == "sleepy")
        assert await tower.timeline(slept["id"]) == [
            (None, "SNOOZED", None),
            ("SNOOZED", "FIRING", None),
            ("FIRING", "FIRING", "overdue"),
        ]
        await tower.check()


async def test_the_clock_evaluates_once_and_time_does_not_go_back(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-09T00:00", rules={"many": threshold(severity="URGENT")}) as tower:
        await tower.complain("2026-03-08", 3)
        await tower.pass_to("2026-03-09T00:05")
        assert await tower.states() == [("many", "FIRING")]
        due = (await tower.alerts())[0]["dueAt"]
        assert due == utc("2026-03-09T02:00")
        await asyncio.gather(*(run_jobs(tower.client, tower.now + timedelta(minutes=10)) for _ in range(4)))
        await tower.pass_to("2026-03-09T02:05")  # overdue since: evaluated although it is no full hour
        asked = '{ events(filter: {type: ["risk.evaluation_due"]}, orderBy: [{position: ASC}]) { nodes { source properties } } }'
        nodes = (await tower.client.data(asked))["events"]["nodes"]
        assert [node["properties"]["asOf"] for node in nodes] == [utc(f"2026-03-09T{at}") for at in ("00:00", "02:00")]
        await tower.pass_to("2026-03-09T02:10")
        assert (await tower.alerts())[0]["escalations"] == 1
        assert [len((await tower.client.data(asked))["events"]["nodes"]), await tower.states()] == [3, [("many", "FIRING")]]
        await tower.pass_to("2026-03-09T02:15")
        assert len((await tower.client.data(asked))["events"]["nodes"]) == 3
        assert (await tower.denied("evaluateRisks", asOf=utc("2026-03-09T02:16")))[0] == "EVALUATION_IN_THE_FUTURE"
        code, params = await tower.denied("evaluateRisks", asOf=utc("2026-03-09T02:09"))
        assert (code, params["newest"]) == ("EVALUATION_OUT_OF_ORDER", utc("2026-03-09T02:10"))
        assert (await tower.called("evaluateRisks", asOf=utc("2026-03-09T02:10")))["fired"] == 0
        await tower.check()


async def test_rules_that_are_saved(migrated_url: str) -> None:
    said: dict[str, Any] = {
        "name": "x",
        "indicator": "complaints",
        "severity": "WATCH",
        "condition": {"kind": "threshold", "above": 0},
    }
    async with opened(migrated_url, "2026-03-09T08:00", rules={"many": threshold()}) as tower:
        await tower.complain("2026-03-08", 1)
        made = 'mutation { createChannel(input: {key: "store", name: "s", kind: STORE}) { errors { code } } }'
        await tower.client.data(made)
        saved = await tower.called("saveRiskRule", key="many", **said)
        assert saved["rule"]["saved"] is True
        await tower.called("saveRiskRule", key="there", **said, enabled=False, channels=["store"])
        await tower.called("deleteRiskRule", id=(await tower.client.data("{ riskRules { id key } }"))["riskRules"][-1]["id"])
        await tower.called("saveRiskRule", key="other", **said, forPeriods=2, options={"missing": "OK"})
        await tower.evaluate()
        assert sorted(await tower.states()) == [("many", "FIRING"), ("other", "PENDING")]
        for wrong, code in (
            ({"indicator": "bells"}, "UNKNOWN_INDICATOR"),
            ({"condition": {"kind": "threshold"}}, "BOUND_MISSING"),
            ({"forPeriods": 0}, "INVALID_RULE"),
            ({"options": {"mising": "OK"}}, "UNKNOWN_NAME"),
            ({"condition": {"kind": "threshold", "above": 5, "below": 3}}, "NO_VALUE_FITS"),
            ({"channels": ["store", "nochan"]}, "UNKNOWN_CHANNEL"),
            ({"days": 3}, "NOT_ABOUT_PEOPLE"),
            ({"per": "USER", "period": "WEEK"}, "RULE_ABOUT_PEOPLE"),
        ):
            assert (await tower.denied("saveRiskRule", key="many", **{**said, **wrong}))[0] == code
        assert (await tower.denied("saveRiskRule", key="No", **said))[0] == "INVALID_RULE"
        rules = {rule["key"]: rule for rule in (await tower.client.data("{ riskRules { id key enabled saved } }"))["riskRules"]}
        assert {key: rule["saved"] for key, rule in rules.items()} == {"many": True, "other": True}
        for key in ("many", "other"):
            await tower.called("deleteRiskRule", id=rules[key]["id"])
        assert await tower.denied("deleteRiskRule", id=rules["many"]["id"]) == ("RULE_OF_SETTINGS", {"rule": "many"})
        assert (await tower.denied("deleteRiskRule", id=rules["other"]["id"]))[0] == "RULE_NOT_FOUND"
        await tower.evaluate("2026-03-09T09:00")  # by the settings' rule 1 is not above 2, and the other is not watched
        assert sorted(await tower.states()) == [("many", "RESOLVED"), ("other", "RESOLVED")]
        shown = (await tower.client.data("{ riskRules { key name saved condition } }"))["riskRules"]
        assert [(rule["key"], rule["name"], rule["saved"]) for rule in shown] == [("many", "Rule", False)]
        asked = """query($to: Date!) { riskRules { id indicator { ...shown } key } 
            riskAlerts { nodes { rule { indicator { key } } } } }
          fragment shown on Indicator { key unit owner
            values: series(from: "2026-03-08", to: $to) { value } wrong: series(from: $to, to: $to) { value } }"""
        answer = await tower.client.graphql(asked, to="2026-03-10")
        indicator = {
            "key": "complaints",
            "unit": "COUNT",
            "owner": "core",
            "values": [{"value": 1.0}, {"value": 0.0}],
            "wrong": None,
        }
        assert [rule["indicator"] for rule in answer["data"]["riskRules"]] == [indicator]
        assert [alert["rule"] for alert in answer["data"]["riskAlerts"]["nodes"]] == [{"indicator": {"key": "complaints"}}] * 2
        [error] = answer["errors"]
        assert (error["extensions"]["code"], error["path"]) == ("INVALID_RANGE", ["riskRules", "indicator", "wrong"])
        reader = tower.client.with_key(await tower.client.key("risk:read", name="i"))
        answer = await reader.graphql(asked, to="2026-03-10")
        assert answer["errors"][0]["extensions"]["params"] == {"scope": "indicators:read"}
        assert answer["data"]["riskRules"][0]["indicator"] == {**indicator, "values": None}
        await tower.check()


async def test_permissions_and_the_subscription(migrated_url: str) -> None:
    async with opened(
        migrated_url, "2026-03-09T08:00", rules={"many": threshold(), "watch": threshold(severity="WATCH")}
    ) as tower:
        await tower.complain("2026-03-08", 3)
        document = "subscription { riskAlertChanged(filter: {severity: [GENERAL]}) { state rule { key } } }"
        async with following(tower.client, document) as followed:
            await tower.evaluate()
            assert await followed.next() == {"riskAlertChanged": {"state": "FIRING", "rule": {"key": "many"}}}
        reader = tower.client.with_key(await tower.client.key("users:read", name="r"))
        for query in (
            "{ riskAlerts { totalCount } }",
            "{ riskRules { key } }",
            "{ risks { totalCount } }",
            "{ riskMatrix { count } }",
        ):
            answer = await reader.graphql(query)
            assert answer["errors"][0]["extensions"]["params"] == {"scope": "risk:read"}
        seeing = tower.client.with_key(await tower.client.key("risk:read", name="s"))
        answer = await seeing.graphql("mutation { evaluateRisks(input: {}) { fired } }")
        assert answer["errors"][0]["extensions"]["params"] == {"scope": "risk:write"}
        assert (await seeing.graphql("{ riskAlerts { totalCount } }"))["data"] == {"riskAlerts": {"totalCount": 2}}


async def test_snoozes_that_make_no_sense(tmp_path: Any) -> None:
    later = utc("2026-03-10T08:00")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"rule": "many", "scope": {}, "until": utc("2026-03-09T08:00")}, "INVALID_SNOOZE"),
        ({"rule": "none", "scope": {}, "until": later}, "RULE_NOT_FOUND"),
        ({"rule": "many", "scope": {"user": "x"}, "until": later}, "INVALID_SCOPE"),
        ({"rule": "many", "scope": {"channel": "x"}, "until": later}, "INVALID_SCOPE"),
        ({"rule": "many", "scope": "x", "until": later}, "INVALID_SCOPE"),
        ({"id": "RiskAlert_" + "0" * 32, "until": later}, "ALERT_NOT_FOUND"),
    ]
    async with opened(f"sqlite:///{tmp_path / 'scrm.db'}", "2026-03-09T08:00", rules={"many": threshold()}) as tower:
        for said, code in refused:
            assert (await tower.denied("snoozeAlert", **said))[0] == code, said
        assert (await tower.denied("snoozeAlert", until=later))[0] in ("RULE_NOT_FOUND", "INVALID_SCOPE")
