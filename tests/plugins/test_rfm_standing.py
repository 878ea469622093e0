"""By which run everybody stands where the rules become others, and what a run says of the one before."""

from __future__ import annotations

from typing import Any

from tests.plugins.layering import Brand, opened

BY_FIFTHS = ["LOST", "HIBERNATING", "PROMISING", "PROMISING", "PROMISING"]
BY_LINES = ["ACTIVE"] * 5
STANDS = "id asOf mode standing"


async def minutes(brand: Brand, *texts: str) -> None:
    """What the clock does by each of these times."""
    for text in texts:
        await brand.pass_to(text)


async def test_rules_that_are_put_back_take_effect(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00") as brand:
        users = await brand.five()
        await brand.pass_to("2026-03-10T12:02")
        assert await brand.segments(users) == BY_FIFTHS
        first = await brand.run(fields=STANDS)
        announced = await brand.changes()
        assert announced == []
        for minute in (4, 8):  # twice, for what is recorded twice under one key is recorded once
            await brand.configure({"mode": "threshold"})
            await brand.pass_to(f"2026-03-10T12:{minute:02}")
            assert await brand.segments(users) == BY_LINES
            announced += [(user, key, "ACTIVE") for user, key in zip(users, BY_FIFTHS, strict=True)]
            assert await brand.changes() == sorted(announced)
            await brand.configure({})
            await brand.pass_to(f"2026-03-10T12:{minute + 2:02}")
            assert await brand.segments(users) == BY_FIFTHS
            assert await brand.run(fields=STANDS) == first
            announced += [(user, "ACTIVE", key) for user, key in zip(users, BY_FIFTHS, strict=True)]
            assert await brand.changes() == sorted(announced)
        assert (await brand.client.data("{ rfmRuns { totalCount } }"))["rfmRuns"]["totalCount"] == 2
        await brand.check()


async def test_a_run_that_was_asked_for_is_the_one_once_the_rules_are_its(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00") as brand:
        users = await brand.five()
        await brand.pass_to("2026-03-10T12:02")
        tried = await brand.compute("2026-03-09T23:59:59.999999", mode="THRESHOLD")
        assert (tried["standing"], await brand.segments(users)) == (False, BY_FIFTHS)
        assert (await brand.run())["previous"] is None
        await brand.configure({"mode": "threshold"})
        await brand.pass_to("2026-03-10T12:04")
        assert await brand.segments(users) == BY_LINES
        assert await brand.run(fields="id standing") == {"id": tried["id"], "standing": True}
        assert await brand.changes() == sorted((user, key, "ACTIVE") for user, key in zip(users, BY_FIFTHS, strict=True))
        # Asked for by the mode of the rules then, it is for looking only, and was of the rules all the same.
        again = await brand.compute("2026-03-09T23:59:59.999999", mode="QUINTILE")
        assert (again["standing"], await brand.segments(users)) == (True, BY_LINES)
        history = (await brand.rfm(users[4], "history { score segment { key } }"))["history"]
        assert sorted(each["segment"]["key"] for each in history) == ["ACTIVE", "PROMISING"]
        await brand.check()


async def test_other_rules_take_effect_though_their_run_is_of_an_earlier_instant(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00") as brand:
        users = await brand.five()
        noon = await brand.compute()
        assert (await brand.run())["id"] == noon["id"]
        await brand.configure({"mode": "threshold", "every": "MONTH"})
        past = await brand.compute("2026-02-25T12:00")
        assert (past["standing"], past["mode"], (await brand.run())["id"]) == (True, "THRESHOLD", noon["id"])
        await minutes(brand, "2026-03-10T12:02")
        assert await brand.segments(users) == BY_LINES
        assert (await brand.rfm(users[0], "asOf stale"))["asOf"] == "2026-02-28T15:59:59.999999Z"
        assert len(await brand.changes()) == 5
        # What was asked for at noon is the newest by the rules that are put back.
        await brand.configure({})
        await minutes(brand, "2026-03-10T12:04", "2026-03-10T12:06")
        assert (await brand.run())["id"] == noon["id"]
        assert await brand.segments(users) == BY_FIFTHS
        assert len(await brand.changes()) == 10
        await minutes(brand, "2026-03-10T12:08", "2026-03-10T12:10")
        assert (await brand.run())["id"] == noon["id"]
        await minutes(brand, "2026-03-11T00:15", "2026-03-11T00:16")
        assert (await brand.run())["asOf"] == "2026-03-10T15:59:59.999999Z"
        await brand.check()


async def test_moves_are_counted_again_once_the_run_before_is_made_anew(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00") as brand:
        users = await brand.five()
        looker, leaver = await brand.members(2)
        await brand.send(brand.act(looker, "2026-03-09T12:00"), brand.act(leaver, "2026-02-08T12:00"))
        await brand.pass_to("2026-03-10T12:02")
        before = await brand.run()
        await brand.pay(users[1], "p", 600)
        noon = await brand.compute()
        assert noon["previous"] == {"id": before["id"]}
        moves = moves_of(noon)
        assert {pair: moves[pair] for pair in moves if pair[0] == "LOST"} == {("LOST", "LOST"): 1}
        await brand.pay(users[0], "late", 900, "2026-03-09T23:00")
        await brand.pass_to("2026-03-10T12:20")
        anew, run = await brand.run(before["id"]), await brand.run(noon["id"])
        assert await brand.run() == run
        then = {each["segment"]["key"]: each["count"] for each in anew["segments"]}
        assert then != {each["segment"]["key"]: each["count"] for each in before["segments"]}
        for each in run["segments"]:
            key = each["segment"]["key"]
            assert each["change"] == each["entered"] - each["left"] == each["count"] - then[key], key
        moves = moves_of(run)
        assert moves["CHAMPIONS", "LOST"] == 1
        assert sum(moves.values()) == 5  # who has never bought does not go from nowhere to nowhere
        live = await brand.client.data("{ rfmTransitions { from { key } to { key } count } }")
        assert live["rfmTransitions"] == run["transitions"]
        await brand.check()


def moves_of(run: Any) -> dict[tuple[str, str], int]:
    """How many went from which segment to which."""
    return {(each["from"]["key"], each["to"]["key"]): each["count"] for each in run["transitions"]}


async def test_periods_that_nobody_was_there_for_have_no_run_until_it_is_asked_for(migrated_url: str) -> None:
    async with opened(migrated_url, "2026-03-10T12:00") as brand:
        users = await brand.five()
        await brand.pass_to("2026-03-10T12:02")
        brand.set_time("2026-03-13T12:00")
        await brand.run_jobs()
        made = "{ rfmRuns { nodes { asOf } } }"
        days = ["2026-03-12T15:59:59.999999Z", "2026-03-09T15:59:59.999999Z"]
        assert (await brand.client.data(made))["rfmRuns"]["nodes"] == [{"asOf": day} for day in days]
        asked = await brand.compute("2026-03-11T23:59:59.999999")
        assert (await brand.run())["asOf"] == days[0]
        history = (await brand.rfm(users[0], "history { asOf }"))["history"]
        assert history == [{"asOf": days[0]}, {"asOf": asked["asOf"]}, {"asOf": days[1]}]
