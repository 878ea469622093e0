"""What a level gives, as it is announced: also where nobody's level changes."""

from __future__ import annotations

from typing import Any

import pytest

from scrm.testing.following import following
from tests.plugins.club import THREE, Club, opened

SAID = """query($id: ID!) { events(filter: {type: ["tier.changed"], user: $id}, first: 100) { nodes { properties } } }"""
GIFT = {"key": "gift", "name": "礼", "names": {}, "value": 1}


def scheme(**changed: dict[str, Any]) -> list[dict[str, Any]]:
    """The three levels, with something else for some of them."""
    return [{**level, **changed.get(level["key"], {})} for level in THREE]


async def said(club: Club, user: str) -> list[tuple[Any, ...]]:
    """What was announced of a person, oldest first: cause, from, to, multiplier."""
    nodes = (await club.client.data(SAID, id=user))["events"]["nodes"][::-1]
    return [tuple(node["properties"][key] for key in ("cause", "from", "to", "multiplier")) for node in nodes]


async def test_the_level_that_everybody_has_multiplies_too(migrated_url: str) -> None:
    async with opened(migrated_url, loyalty=True, levels=scheme(bronze={"multiplier": 2})) as club:
        user = await club.member()
        await club.pay(user, "o1", 500)
        assert (await club.balance(user), await said(club, user)) == (5, [("SCHEME", "bronze", "bronze", "2")])
        await club.pay(user, "o2", 400)
        assert await club.balance(user) == 5 + 8
        assert await club.history(user) == []
        await club.pay(user, "o3", 100)
        await club.pass_to("2027-04-01T00:15")
        assert await said(club, user) == [
            ("SCHEME", "bronze", "bronze", "2"),
            ("UPGRADE", "bronze", "silver", "1.5"),
            ("REVIEW", "silver", "bronze", "2"),
        ]
        await club.check()


@pytest.mark.parametrize("how", ["by the next event", "by the review"])
async def test_another_multiplier_counts_from_the_next_event_or_review_on(migrated_url: str, how: str) -> None:
    async with opened(migrated_url, loyalty=True) as club:
        user, other = await club.member(), await club.member()
        await club.pay(user, "o1", 3_000)
        await club.pay(other, "o1", 100)
        was = await said(club, user)
        assert (await club.balance(user), was) == (30, [("UPGRADE", "bronze", "gold", "2")])
    async with opened(migrated_url, loyalty=True, levels=scheme(gold={"multiplier": 3})) as club:
        assert await said(club, user) == was
        if how == "by the review":
            await club.pass_to("2026-04-01T00:15")
        else:
            await club.pay(user, "o2", 100)
            assert await club.balance(user) == 30 + 2
        assert await said(club, user) == [*was, ("SCHEME", "gold", "gold", "3")]
        before = await club.balance(user)
        await club.pay(user, "o3", 100)
        assert await club.balance(user) == before + 3
        await club.pass_to("2026-06-01T00:15")
        assert (len(await said(club, user)), await said(club, other)) == (2, [])  # once, and of who has nothing not at all
        assert await club.history(user) == [("UPGRADE", "bronze", "gold")]
        await club.check()


async def test_other_benefits_are_announced_and_the_same_are_not(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        await club.pay(user, "o1", 3_000)
    schemes: list[dict[str, Any]] = [{"multiplier": "2.0"}, {"benefits": [GIFT]}, {"benefits": [GIFT]}, {"multiplier": 1}]
    for number, gold in enumerate(schemes):
        async with opened(migrated_url, levels=scheme(gold=gold)) as club:
            await club.pay(user, f"o{number}", 1)
    async with opened(migrated_url, levels=scheme(gold={"multiplier": 1})) as club:
        assert await said(club, user) == [
            ("UPGRADE", "bronze", "gold", "2"),
            ("SCHEME", "gold", "gold", "2"),
            ("SCHEME", "gold", "gold", "1"),
        ]
        [last, gift, _] = (await club.client.data(SAID, id=user))["events"]["nodes"]
        assert (last["properties"]["benefits"], gift["properties"]["benefits"]) == ([], [GIFT])
        assert "transition" not in gift["properties"]
        assert (gift["properties"]["fromLevel"], gift["properties"]["toLevel"]) == (3, 3)
        await club.check()


async def test_who_follows_changes_of_levels_hears_nothing_of_it(migrated_url: str) -> None:
    async with opened(migrated_url, levels=scheme(bronze={"multiplier": 2})) as club:
        user = await club.member()
        async with following(club.client, "subscription { tierChanged { cause to { key } } }") as followed:
            await club.pay(user, "o1", 1)
            assert len(await said(club, user)) == 1
            await club.pay(user, "o2", 999)
            assert await followed.next() == {"tierChanged": {"cause": "UPGRADE", "to": {"key": "silver"}}}
        await club.check()
