"""Who is told of alerts; indicators of other plugins; and back-tests."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from scrm.api import Contribution, Indicator, IndicatorUnit, Period, Ratio, Tx, hookimpl
from scrm.testing.client import drain
from scrm_risk import notices
from tests.plugins.conftest import Commands
from tests.plugins.tower import Tower, opened, threshold, utc


class Post:
    """Stands in for Apprise: what was sent where, and whether it works."""

    sent: ClassVar[list[tuple[str, str, str]]] = []
    works = True

    def __init__(self) -> None:
        self.url = ""

    def add(self, url: str) -> bool:
        self.url = url
        return url != "nonsense"

    async def async_notify(self, *, title: str, body: str) -> bool:
        if Post.works:
            Post.sent.append((self.url, title, body))
        return Post.works


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> type[Post]:
    """Nothing leaves this process."""
    monkeypatch.setattr(notices, "Apprise", Post)
    Post.sent, Post.works = [], True
    return Post


async def messages(tower: Tower) -> list[tuple[str, int, str | None]]:
    """The outbox: state, attempts, error."""
    statement = sa.text("select state, attempts, error from outbox order by id")
    return [tuple(row) for row in await tower.client.services.db.read(lambda tx: list(tx.rows(statement)))]


async def test_messages_are_grouped_limited_and_tried_again(migrated_url: str, post: type[Post]) -> None:
    rules = {
        "many": threshold(playbook="call them"),
        "watch": threshold(severity="WATCH"),
        "urgent": threshold(severity="URGENT"),
    }
    notify = [{"to": "ops"}, {"to": "boss", "severity": "URGENT", "resolved": False}]
    said: dict[str, Any] = {
        "notify": notify,
        "notify_per_hour": 2,
        "urls": {"ops": "json://ops", "boss": "json://boss"},
        "language": "en",
    }
    async with opened(migrated_url, "2026-03-09T08:00", rules=rules, **said) as tower:
        await tower.complain("2026-03-08", 3)
        await tower.evaluate()
        assert [(to, title) for to, title, _ in sorted(post.sent)] == [
            ("json://boss", "[URGENT] 1 risk alert"),
            ("json://ops", "[URGENT] 2 risk alerts"),
        ]
        body = {to: body for to, _, body in post.sent}["json://ops"]
        assert body == (
            "Alert URGENT Rule\nComplaints was 3 on 2026-03-08; limit 2\ndue 2026-03-09 10:00\n\n"
            "Alert GENERAL Rule\nComplaints was 3 on 2026-03-08; limit 2\ndue 2026-03-09 16:00\ncall them"
        )
        post.sent.clear()
        await tower.report("2026-03-08", 1)
        await tower.evaluate("2026-03-09T08:30")  # nothing is new
        await tower.called("saveRiskRule", key="many", enabled=False, **threshold())
        await tower.evaluate("2026-03-09T08:59:59")
        assert post.sent == []  # two messages an hour are sent
        await tower.evaluate("2026-03-09T09:00")
        [(to, title, body)] = post.sent
        assert (to, title, body.splitlines()[0]) == ("json://ops", "[GENERAL] 1 risk alert", "Resolved GENERAL Rule")
        post.sent.clear()
        post.works = False
        await tower.complain("2026-03-09", 1)
        await tower.evaluate("2026-03-10T10:00")
        assert post.sent == []
        assert [each[:2] for each in await messages(tower) if each[0] == "PENDING"] == [("PENDING", 1)]
        post.works = True
        tower.set_time("2026-03-10T10:00:02")
        await drain(tower.client)
        assert [(to, title) for to, title, _ in post.sent] == [("json://ops", "[URGENT] 1 risk alert")]
        assert {state for state, _, _ in await messages(tower)} == {"SENT"}
        await tower.check()


async def test_a_dry_run_only_writes_to_the_log(tmp_path: Any, post: type[Post], caplog: pytest.LogCaptureFixture) -> None:
    said: dict[str, Any] = {
        "rules": {"many": threshold()},
        "notify": [{"to": "ops"}],
        "dry_run": True,
        "urls": {"ops": "json://secret"},
    }
    async with opened(f"sqlite:///{tmp_path / 'scrm.db'}", "2026-03-09T08:00", **said) as tower:
        await tower.complain("2026-03-08", 3)
        with caplog.at_level(logging.INFO, "scrm.risk"):
            await tower.evaluate()
        assert post.sent == []
        assert "dry run: to ops: 【GENERAL】风险预警 1 条" in caplog.text
        assert "投诉量2026-03-08为3，限值2" in caplog.text
        assert "secret" not in caplog.text
        shown = await tower.client.data("{ plugins { name settings } }")
        assert "json://secret" not in json.dumps(shown)
    with pytest.raises(LookupError, match="nothing is said of x in plugins"):
        await notices.deliver({"to": "x", "title": "", "body": ""}, notices.RiskWiring())
    with pytest.raises(ValueError, match="none that Apprise knows"):
        await notices.send("nonsense", "", "")


async def undelivered(tower: Tower) -> dict[str, Any]:
    """What could not be delivered, as an operator asks."""
    shown = "{ plugins { name undelivered { totalCount nodes { kind givenUp attempts error nextAttemptAt } } } }"
    [found] = [each["undelivered"] for each in (await tower.client.data(shown))["plugins"] if each["name"] == "risk"]
    answer: dict[str, Any] = found
    return answer


async def test_what_could_not_be_delivered_is_seen(migrated_url: str, tmp_path: Any, post: type[Post], scrm: Commands) -> None:
    post.works = False
    said: dict[str, Any] = {"rules": {"many": threshold()}, "notify": [{"to": "ops"}], "urls": {"ops": "json://secret"}}
    async with opened(migrated_url, "2026-03-09T08:00", **said) as tower:
        await tower.complain("2026-03-08", 3)
        assert await undelivered(tower) == {"totalCount": 0, "nodes": []}
        await tower.evaluate()
        [first] = (await undelivered(tower))["nodes"]
        assert first["error"].startswith("ConnectionError in send (notices.py:")
        waits = {"kind": "notify", "givenUp": False, "attempts": 1, "nextAttemptAt": utc("2026-03-09T08:00:02")}
        assert first == waits | {"error": first["error"]}
        for hour in range(9, 18):
            tower.set_time(f"2026-03-09T{hour:02}:00")
            await drain(tower.client)
        dead = {"kind": "notify", "givenUp": True, "attempts": 10, "error": first["error"], "nextAttemptAt": None}
        assert await undelivered(tower) == {"totalCount": 1, "nodes": [dead]}
        other = tower.client.with_key(await tower.client.key("risk:read", name="r"))
        refused = (await other.graphql("{ plugins { undelivered { totalCount } } }"))["errors"]
        assert {error["extensions"]["params"]["scope"] for error in refused} == {"plugins:read"}
    (tmp_path / "scrm.toml").write_text(f'database_url = "{migrated_url}"\n[plugins.risk]\nenabled = true\n')
    [done] = scrm("plugins show risk")
    assert re.search(r"message [0-9a-f]{32} \(notify\): DEAD after 10 attempts: ConnectionError in send", done.out)


def test_a_test_message_that_cannot_be_sent_is_a_line(tmp_path: Any, scrm: Commands) -> None:
    urls = '[plugins.risk.urls]\nops = "nonsense"\n'
    (tmp_path / "scrm.toml").write_text(
        f'database_url = "sqlite:///{tmp_path / "scrm.db"}"\n[plugins.risk]\nenabled = true\n{urls}'
    )
    upgraded, *ran = scrm("db upgrade", "risk notify-test boss", "risk notify-test ops")
    assert upgraded.code == 0, upgraded
    assert [(done.code, done.out, done.err) for done in ran] == [
        (2, "", ["plugins.risk.urls has no address of boss, but those of ops; add it there"]),
        (2, "", ["nothing was sent to ops: the address is none that Apprise knows; see its list of services"]),
    ]


VALUES = {"value": 5}


def series(tx: Tx, periods: Sequence[Period], channel_id: uuid.UUID | None, as_of: datetime) -> list[Ratio]:
    if VALUES["value"] == -1:
        raise RuntimeError("broken")
    if VALUES["value"] == -2:
        tx.rows(sa.text("select n from bells_nothing where name = 'Zhang'"))
    return [Ratio(VALUES["value"]) for _ in periods]


@hookimpl
def contribute() -> Contribution:
    own = Indicator("bells", "Bells", IndicatorUnit.COUNT, "bells that rang", series)
    return Contribution(name="bells", version="1", indicators=[own])


async def test_an_indicator_and_a_rule_of_a_partner(migrated_url: str, caplog: pytest.LogCaptureFixture) -> None:
    modules = {"bells": SimpleNamespace(contribute=contribute)}
    rules = {"rings": threshold("bells"), "many": threshold()}
    VALUES["value"] = 5
    sections = {"bells": {"enabled": True}}
    async with opened(migrated_url, "2026-03-09T08:00", rules=rules, modules=modules, sections=sections) as tower:
        await tower.evaluate()
        VALUES["value"] = -1  # an error neither resolves nor fires
        with caplog.at_level(logging.WARNING, "scrm.risk"):
            failed = await tower.evaluate("2026-03-10T08:00")
        line = series.__code__.co_firstlineno + 2
        words = f"plugin bells failed in the indicator bells: RuntimeError in series (test_risk_notices.py:{line})"
        assert failed["problems"] == [f"rings: {words}"]
        assert f"rule rings could not be evaluated: {words}" in caplog.text
        VALUES["value"] = -2
        [said] = (await tower.evaluate("2026-03-10T08:30"))["problems"]
        assert re.fullmatch(rf"rings: .* bells: \w+Error( 42P01)? in series \(test_risk_notices.py:{line + 2}\)", said)
        await tower.pass_to("2026-03-10T09:00")
        assert await tower.states() == [("rings", "FIRING")]
        VALUES["value"] = 2
        await tower.pass_to("2026-03-10T10:00")
        [alert] = await tower.alerts()
        assert (alert["state"], alert["value"], alert["explanation"]) == (
            "RESOLVED",
            5.0,
            "Bells was 5 on at least 8 consecutive days; limit 2. Over: 2 on 2026-03-08, no longer above 2",
        )
        await tower.check()  # the replay reads what the events carry, not what the other plugin says by now


async def test_backtests(tmp_path: Any, scrm_here: Commands) -> None:
    url = f"sqlite:///{tmp_path / 'scrm.db'}"
    (tmp_path / "scrm.toml").write_text(f'database_url = "{url}"\n[plugins.risk]\nenabled = true\n')
    two = {"kind": "in_a_row", "periods": 2, "condition": {"kind": "threshold", "above": 800}}
    rule = {**threshold("opinion_index", condition=two)}
    async with opened(url, "2026-03-20T08:00", presets=True, rules={"two": rule}) as tower:
        for day, value in (("05", 801), ("06", 802), ("07", 803), ("09", 900), ("10", 1), ("12", 801), ("13", 801)):
            await tower.report(f"2026-03-{day}", value)
    (tmp_path / "mine.toml").write_text(
        'name = "m"\nindicator = "opinion_index"\nseverity = "URGENT"\ncondition = {kind = "threshold", above = 850}\n'
    )
    ran = scrm_here(
        "risk backtest two --from 2026-03-01 --to 2026-03-20",
        "risk backtest mine.toml --from 2026-03-01 --to 2026-03-20",
        "risk backtest none --from 2026-03-01 --to 2026-03-20",
        "risk backtest coupon_abuse --from 2026-03-01 --to 2026-03-20",
        "risk backtest two --from 2026-03-20 --to 2026-03-20",
    )
    assert [done.code for done in ran] == [0, 0, 2, 2, 2], ran
    assert ran[0].out.splitlines() == [
        "2026-03-07 00:00  FIRING    Opinion index was 802 on 2 consecutive days; limit 800",
        "2026-03-11 00:00  RESOLVED  Opinion index was 1 on 2026-03-10, no longer above 800",
        "2026-03-14 00:00  FIRING    Opinion index was 801 on 2 consecutive days; limit 800",
        "two would have fired 2 times from 2026-03-01 to 2026-03-20",
    ]
    assert ran[1].out.splitlines()[-1] == "mine.toml would have fired 1 time from 2026-03-01 to 2026-03-20"
    assert utc("2026-03-20T00:00")
