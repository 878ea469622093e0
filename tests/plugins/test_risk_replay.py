"""What a replay must not depend on: where channels hang now; and what merges do to snoozes and to alerts that were settled."""

from __future__ import annotations

from typing import Any

from scrm.testing.client import drain
from tests.plugins.test_risk_people import of, redeem
from tests.plugins.tower import Tower, opened, threshold, utc

REDEEMED = threshold("coupons_redeemed", per="user", days=2, condition={"kind": "threshold", "at_least": 3})
CHANNEL = "mutation($input: %s!) { %s(input: $input) { channel { id } errors { code } } }"


async def channel(tower: Tower, name: str, /, **said: Any) -> str:
    """Create a channel, or update one; its id."""
    data = await tower.client.data(CHANNEL % (f"{name[0].upper()}{name[1:]}Input", name), input=said)
    assert data[name]["errors"] == []
    await drain(tower.client)
    return str(data[name]["channel"]["id"])


async def test_channels_are_as_they_were(migrated_url: str) -> None:
    """One hangs below another when its complaints are counted, and is hung elsewhere then; one is not there yet."""
    share = {"kind": "threshold", "above": "0.4"}
    rules = {
        "shop": threshold(channels=["root"]),
        "later": threshold(channels=["later"]),
        "lost": threshold("unfollow_rate", condition=share),
        "busy": threshold("interaction_rate", condition=share),
    }
    async with opened(migrated_url, "2026-03-10T12:00", rules=rules) as tower:
        for key in ("root", "other"):
            await channel(tower, "createChannel", key=key, name=key, kind="WECOM")
        child = await channel(tower, "createChannel", key="child", name="c", kind="WECOM", parent="root")
        who, other = await tower.member(), await tower.member()
        below, above = {"channel": "child"}, {"channel": "root"}
        await tower.send(*(tower.event("complaint.filed", who, None, None, "2026-03-09T10:00") | below for _ in range(3)))
        await tower.send(
            tower.event("user.followed", who, None, None, "2026-03-08T10:00") | below,
            tower.event("user.followed", other, None, None, "2026-03-08T10:00") | below,
            tower.event("user.unfollowed", who, None, None, "2026-03-09T10:00") | above,
            tower.event("message.received", other, None, None, "2026-03-09T10:00"),
        )
        done = await tower.evaluate("2026-03-10T13:00")
        assert (done["fired"], len(done["problems"])) == (3, 1)
        found = {each["rule"]["key"]: each["value"] for each in await tower.alerts("", "rule { key } value")}
        assert found == {"shop": 3.0, "lost": 0.5, "busy": 1.0}
        await channel(tower, "updateChannel", id=child, parent="other")
        await channel(tower, "createChannel", key="later", name="l", kind="WECOM")
        await tower.check()


async def test_who_was_merged_means_the_survivor(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00", rules={"coupons": REDEEMED}) as tower:
        kept, absorbed = await tower.member(), await tower.member()
        await tower.merge(kept, absorbed)
        await tower.called("snoozeAlert", rule="coupons", scope={"user": absorbed}, until=utc("2026-03-20T00:00"))
        await redeem(tower, kept, "2026-03-10", 3)
        await tower.evaluate("2026-03-10T13:00")
        assert await of(tower, kept, "state snoozedUntil") == [{"state": "SNOOZED", "snoozedUntil": utc("2026-03-20T00:00")}]
        for user in (kept, absorbed):
            assert await tower.alerts(f'(filter: {{user: "{user}"}})', "state") == [{"state": "SNOOZED"}]
        nobody = "User_" + "ab" * 16
        assert await tower.alerts(f'(filter: {{user: "{nobody}"}})', "state") == []
        said = {"rule": "coupons", "until": utc("2026-03-20T00:00")}
        assert (await tower.denied("snoozeAlert", scope={"user": nobody}, **said))[0] == "USER_NOT_FOUND"
        await tower.check()


async def test_of_two_snoozes_the_later_one_holds(migrated_url: str) -> None:
    """The survivor is snoozed until the 20th, the absorbed person's alert, or scope, until the 12th or not at all."""
    async with opened(migrated_url, "2026-03-10T12:00", rules={"coupons": REDEEMED}) as tower:
        for until in (None, "2026-03-12T00:00", "2026-03-25T00:00"):
            kept, absorbed = await tower.member(), await tower.member()
            await redeem(tower, absorbed, "2026-03-10", 3)
            await tower.evaluate()
            for user, end in ((kept, "2026-03-20T00:00"), (absorbed, until)):
                if end is not None:
                    await tower.called("snoozeAlert", rule="coupons", scope={"user": user}, until=utc(end))
            await tower.merge(kept, absorbed)
            later = max(until or "", "2026-03-20T00:00")
            [alert] = await of(tower, kept, "state snoozedUntil dueAt")
            due = utc(later.replace("T00", "T08"))
            assert alert == {"state": "SNOOZED", "snoozedUntil": utc(later), "dueAt": due}
        await tower.check()


async def test_what_a_person_resolved_stays_resolved_after_a_merge(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00", rules={"coupons": REDEEMED}) as tower:
        kept, absorbed = await tower.member(), await tower.member()
        await redeem(tower, absorbed, "2026-03-10", 3)
        await tower.evaluate()
        [alert] = await of(tower, absorbed, "id")
        await tower.called("resolveAlert", id=alert["id"])
        await tower.merge(kept, absorbed)
        assert (await tower.evaluate("2026-03-10T13:00"))["fired"] == 0
        assert (await tower.evaluate("2026-03-11T13:00"))["fired"] == 1  # a newer day
        await tower.check()
