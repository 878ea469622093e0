"""Scores, segments and layers as a front end sees them; after every test the log must give the same rows again."""

from __future__ import annotations

from tests.plugins.layering import opened


async def test_fifths(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        users = [await brand.member() for _ in range(6)]
        for n, user in enumerate(users[:5]):
            await brand.pay(user, f"o{n}", 100 * (n + 1), f"2026-02-{20 + n}T12:00")
        assert await brand.rfm(users[0]) is None
        run = await brand.compute("2026-03-01T12:00")
        assert (run["state"], run["population"]) == ("DONE", 5)
        assert await brand.scores(users) == ["111", "212", "313", "414", "515", None]
        await brand.check()
