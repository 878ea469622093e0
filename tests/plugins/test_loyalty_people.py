"""Points of people who merge, part again, are erased or ask for what is kept of them."""

from __future__ import annotations

import orjson
import sqlalchemy as sa

from scrm.testing.client import drain
from scrm_loyalty.models import accounts, entries, merges, notes
from tests.plugins.shop import Shop, opened


async def total(shop: Shop) -> int:
    """The sum of all entries."""
    return int(await shop.client.services.db.read(lambda tx: tx.scalar(sa.select(sa.func.sum(entries.c.points)))))


async def test_merge_moves_lots_with_their_expiry_by_a_linked_pair(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=30) as shop:
        kept, absorbed = await shop.member(), await shop.member()
        await shop.pay(kept, "k1", 10_000, "2026-02-20T12:00")
        await shop.pay(absorbed, "a1", 5_000, "2026-02-10T12:00")
        await shop.redeem(absorbed, 10)
        before = await total(shop)
        await shop.merge(kept, absorbed)
        expected = {"balance": 140, "pending": 0, "debt": 0, "earned": 150, "redeemed": 10, "expired": 0}
        assert await shop.account(kept) == expected
        assert await total(shop) == before
        listed = await shop.account(kept, "expiring(withinDays: 60) { date points }")
        assert listed["expiring"] == [{"date": "2026-03-12", "points": 40}, {"date": "2026-03-22", "points": 100}]
        moved = await shop.entries(kept, "(filter: {kind: [TRANSFER_IN, TRANSFER_OUT]})")
        assert sorted(moved) == [("TRANSFER_IN", 40), ("TRANSFER_OUT", -40)]
        assert await shop.account(absorbed, "balance") == await shop.account(kept, "balance")  # the old id means the survivor
        assert (await shop.redeem(absorbed, 140))["errors"] == []
        assert await shop.balance(kept) == 0
        await shop.check()


async def test_nobody_spends_before_a_merge_or_its_end_was_followed(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        kept, absorbed, other = await shop.member(), await shop.member(), await shop.member()
        for user in (kept, absorbed, other):
            await shop.pay(user, f"o{user}", 10_000)
        merge = await shop.merge(kept, absorbed, followed=False)
        for user in (kept, absorbed):
            [error] = (await shop.redeem(user, 1, key=f"first {user}"))["errors"]
            assert (error["code"], error["params"]) == ("PLUGIN_BEHIND", {"plugin": "loyalty"})
        assert (await shop.redeem(other, 1))["errors"] == []
        await drain(shop.client)
        assert (await shop.redeem(kept, 1, key=f"first {kept}"))["errors"] == []
        await shop.unmerge(merge, followed=False)
        for user, code in ((kept, "PLUGIN_BEHIND"), (absorbed, "INSUFFICIENT_POINTS")):  # all are the survivor's so far
            assert (await shop.redeem(user, 150))["errors"][0]["code"] == code
        await drain(shop.client)
        assert await shop.balance(kept) + await shop.balance(absorbed) == 199
        assert (await shop.redeem(absorbed, 1))["errors"] == []
        await shop.check()


async def test_merge_moves_debt_and_writes_off_what_expired(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=10) as shop:
        kept, absorbed = await shop.member(), await shop.member()
        await shop.pay(kept, "k1", 10_000)
        await shop.pay(absorbed, "gone", 2_000, "2026-02-01T12:00")
        await shop.pay(absorbed, "a1", 5_000)
        await shop.redeem(absorbed, 50)
        await shop.refund(absorbed, "a1", 5_000)
        assert await shop.account(absorbed, "balance debt expired") == {"balance": 0, "debt": 50, "expired": 20}
        await shop.merge(kept, absorbed)
        assert await shop.account(kept, "balance debt expired") == {"balance": 100, "debt": 50, "expired": 20}
        await shop.pay(kept, "k2", 6_000)
        assert await shop.account(kept, "balance debt") == {"balance": 110, "debt": 0}
        await shop.check()


async def test_a_refund_after_the_merge_finds_the_order(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        kept, absorbed = await shop.member(), await shop.member()
        await shop.pay(absorbed, "a1", 10_000)
        await shop.merge(kept, absorbed)
        await shop.redeem(kept, 30)
        await shop.refund(kept, "a1", 5_000)
        assert await shop.account(kept, "balance debt") == {"balance": 20, "debt": 0}
        await shop.refund(kept, "a1", 5_000)
        assert await shop.account(kept, "balance debt") == {"balance": 0, "debt": 30}
        await shop.check()


async def test_unmerge_gives_back_what_came_before_and_is_not_spent(migrated_url: str) -> None:
    async with opened(migrated_url, validity_days=100) as shop:
        kept, absorbed = await shop.member(), await shop.member()
        await shop.pay(kept, "k1", 10_000, "2026-02-20T12:00")
        await shop.pay(absorbed, "a1", 5_000, "2026-02-10T12:00")
        before = await total(shop)
        merge = await shop.merge(kept, absorbed)
        await shop.pay(kept, "later", 1_000)
        await shop.redeem(kept, 20)  # of a1, which expires sooner
        await shop.unmerge(merge)
        assert await shop.account(kept) == {"balance": 110, "pending": 0, "debt": 0, "earned": 110, "redeemed": 20, "expired": 0}
        assert await shop.account(absorbed, "balance earned debt") == {"balance": 30, "earned": 50, "debt": 0}
        assert await total(shop) == before + 10 - 20
        await shop.refund(absorbed, "a1", 5_000)
        assert await shop.account(absorbed, "balance debt") == {"balance": 0, "debt": 20}
        assert await shop.balance(kept) == 110
        await shop.check()


async def test_unmerge_through_a_chain(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        a, b, c = await shop.member(), await shop.member(), await shop.member()
        for user, amount in ((a, 1_000), (b, 2_000), (c, 3_000)):
            await shop.pay(user, f"o of {user}", amount)
        await shop.redeem(a, 10)
        await shop.refund(a, f"o of {a}", 1_000)
        first = await shop.merge(b, a)
        second = await shop.merge(c, b)
        assert await shop.account(c, "balance debt") == {"balance": 50, "debt": 10}
        await shop.unmerge(first)
        assert await shop.account(a, "balance debt earned") == {"balance": 0, "debt": 10, "earned": 10}
        assert await shop.account(c, "balance debt earned") == {"balance": 50, "debt": 0, "earned": 50}
        await shop.unmerge(second)
        assert await shop.account(b, "balance debt earned") == {"balance": 20, "debt": 0, "earned": 20}
        assert await shop.account(c, "balance debt earned") == {"balance": 30, "debt": 0, "earned": 30}
        await shop.check()


async def test_a_dry_run_counts_rows_and_moves_nothing(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        kept, absorbed = await shop.member(), await shop.member()
        await shop.pay(absorbed, "a1", 1_000)
        data = await shop.client.data(
            "mutation($k: ID!, $a: ID!) { mergeUsers(input: {keptId: $k, absorbedId: $a, dryRun: true}) "
            "{ moved { owner count } } }",
            k=kept,
            a=absorbed,
        )
        assert {"owner": "loyalty", "count": 3} in data["mergeUsers"]["moved"]
        assert (await shop.balance(kept), await shop.balance(absorbed)) == (0, 10)
        await shop.check()


async def test_merging_people_without_points_leaves_no_row(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        kept, absorbed = await shop.member(), await shop.member()
        merge = await shop.merge(kept, absorbed)
        await shop.unmerge(merge)
        db = shop.client.services.db
        assert await db.read(lambda tx: [*tx.rows(sa.select(accounts)), *tx.rows(sa.select(merges))]) == []
        await shop.check()


async def test_an_erased_person_s_ledger_goes_on_under_a_pseudonym(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        kept, absorbed = await shop.member(), await shop.member()
        await shop.pay(kept, "k1", 1_000)
        await shop.pay(absorbed, "a1", 2_000)
        await shop.redeem(absorbed, 5, reason="for her mother")
        await shop.merge(kept, absorbed)
        db = shop.client.services.db
        before = await db.read(lambda tx: tx.rows(sa.select(entries).order_by(entries.c.id)))
        assert await db.read(lambda tx: tx.rows(sa.select(notes.c.reason))) == [("for her mother",)]
        data = await shop.client.data("mutation($u: ID!) { eraseUser(input: {id: $u}) { pseudonym errors { code } } }", u=kept)
        await drain(shop.client)
        assert await db.read(lambda tx: tx.rows(sa.select(entries).order_by(entries.c.id))) == before
        assert await db.read(lambda tx: tx.rows(sa.select(notes))) == []
        found = await db.read(lambda tx: tx.rows(sa.select(accounts)))
        assert {row.holder_id.hex for row in found} == {data["eraseUser"]["pseudonym"]}
        people = {kept.removeprefix("User_"), absorbed.removeprefix("User_")}
        assert not people & {row.user_id.hex for row in found}
        assert await shop.balance(kept) == 0
        await shop.check()


async def test_an_export_holds_entries_and_lots(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 1_000)
        await shop.redeem(user, 4, reason="tea")
        data = await shop.client.data("mutation($u: ID!) { exportUser(input: {id: $u}) { export errors { code } } }", u=user)
        kept = data["exportUser"]["export"]["plugins"]["loyalty"]
        assert [(row["kind"], row["points"], row["reason"]) for row in kept["entries"]] == [
            ("EARN", 10, None),
            ("REDEEM", -4, "tea"),
        ]
        assert [(row["original"], row["remaining"]) for row in kept["lots"]] == [(10, 6)]
        assert orjson.dumps(kept)
        await shop.check()


async def test_nothing_is_decided_for_an_erased_person(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        kept, absorbed = await shop.member(), await shop.member()
        await shop.pay(kept, "k1", 10_000)
        await shop.merge(kept, absorbed)
        await shop.client.data("mutation($u: ID!) { eraseUser(input: {id: $u}) { errors { code } } }", u=kept)
        for who in (kept, absorbed):  # at once, before any plugin has read of it
            assert [error["code"] for error in (await shop.redeem(who, 10))["errors"]] == ["USER_ERASED"]
        await drain(shop.client)
        assert [error["code"] for error in (await shop.redeem(kept, 10))["errors"]] == ["USER_ERASED"]
        await shop.check()
