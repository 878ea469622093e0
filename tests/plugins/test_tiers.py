"""Levels as members and a front end see them; after every test the log must give the same rows again."""

from __future__ import annotations

import pytest

from tests.plugins.club import opened

YEAR = {"window": "CALENDAR_YEAR", "review": "MONTH"}


@pytest.mark.parametrize(
    ("amount", "tier"),
    [(1, "bronze"), (999, "bronze"), (1_000, "silver"), (1_001, "silver"), (2_999, "silver"), (3_000, "gold"), (3_001, "gold")],
)
async def test_a_bound_is_reached_when_it_is_equalled(migrated_url: str, amount: int, tier: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        assert await club.tier(user) == "bronze"
        await club.pay(user, "o1", amount)
        assert await club.tier(user) == tier
        await club.check()


async def test_a_membership_says_all(migrated_url: str) -> None:
    async with opened(migrated_url) as club:
        user = await club.member()
        await club.pay(user, "o1", 1_200)
        found = await club.membership(
            user,
            """tier { key name level thresholds { metric value } benefits { key name value } memberCount }
               since validUntil pinnedUntil user { id } asOf growth nextTier { key } projectedTier { key }
               progress { metric value required remaining money { amountMinor currency } } """,
        )
        assert found == {
            "tier": {
                "key": "silver",
                "name": "银",
                "level": 2,
                "thresholds": [{"metric": "SPEND", "value": 1_000}],
                "benefits": [{"key": "multiplier", "name": "积分倍数", "value": "1.5"}],
                "memberCount": 1,
            },
            "since": "2026-03-01T04:00:00.000000Z",
            "validUntil": "2026-03-31T16:00:00.000000Z",
            "pinnedUntil": None,
            "user": {"id": user},
            "asOf": "2026-03-01T04:00:00.000000Z",
            "growth": 0,
            "nextTier": {"key": "gold"},
            "projectedTier": {"key": "silver"},
            "progress": [
                {
                    "metric": "SPEND",
                    "value": 1_200,
                    "required": 3_000,
                    "remaining": 1_800,
                    "money": {"amountMinor": 1_200, "currency": "CNY"},
                }
            ],
        }
        await club.check()
