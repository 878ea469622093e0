"""`scrm loyalty reconcile`: every number that drifts is named, and its account is frozen until somebody lifts it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from scrm.api import Tx
from scrm_loyalty.models import accounts, allocations, held_lots, holds, lots, orders
from tests.plugins.conftest import Commands
from tests.plugins.shop import Shop, opened


@pytest.fixture
def told(tmp_path: Path, migrated_url: str, scrm_here: Commands) -> Commands:
    """The command line on the shop's database."""
    (tmp_path / "scrm.toml").write_text("[plugins.loyalty]\nenabled = true\n")
    return lambda *lines, **more: scrm_here(*lines, SCRM_DATABASE_URL=migrated_url, **more)


async def break_it(shop: Shop, *statements: sa.Executable) -> None:
    def run(tx: Tx) -> None:
        ends = "_no_delete" if tx.dialect == "sqlite" else "_kept on loyalty_allocations"
        tx.execute(sa.text(f"drop trigger if exists loyalty_allocations{ends}"))
        for statement in statements:
            tx.execute(statement)

    await shop.client.services.db.write(run)


async def frozen(shop: Shop, user: str) -> bool:
    return bool((await shop.account(user, "frozen"))["frozen"])


async def test_a_drift_is_named_and_freezes_its_account(migrated_url: str, told: Commands) -> None:
    async with opened(migrated_url) as shop:
        user, other = await shop.member(), await shop.member()
        for who in (user, other):
            await shop.pay(who, f"of {who}", 10_000)
        hold = await shop.hold(user, 10, 31_536_000)
        [well] = told("loyalty reconcile")
        assert (well.code, well.out) == (0, "every account agrees with its entries\n")
        mine = accounts.c.user_id == sa.bindparam(None, shop.key(user), accounts.c.user_id.type)
        own = lots.c.account_id.in_(sa.select(accounts.c.id).where(mine))
        await break_it(shop, sa.update(lots).where(own).values(remaining=99))
        drifted, again = told("loyalty reconcile", "loyalty reconcile")
        assert (drifted.code, again.code) == (1, 1)
        lines = drifted.out.splitlines()
        assert [line.split()[0] for line in lines] == ["account", "lot", "frozen:"]
        assert lines[0].endswith("entries sum to 100, lots less debt to 99")
        assert lines[1].endswith("99 of 100 left, yet 0 taken")
        assert lines[2] == f"frozen: {user}"
        assert again.out.splitlines() == lines[:2]
        assert (await frozen(shop, user), await frozen(shop, other)) == (True, False)
        assert (await shop.refused(user, 1))[0] == "ACCOUNT_FROZEN"
        for name, said in (
            ("holdPoints", {"userId": user, "points": 1}),
            ("captureHold", {"holdId": hold}),
            ("transferPoints", {"userId": user, "toUserId": other, "points": 1}),
        ):
            assert (await shop.refusal(name, **said))[0] == "ACCOUNT_FROZEN"
        await shop.pay(user, "more", 1_000)
        await shop.done("releaseHold", holdId=hold)
        assert await shop.account(user, "balance held") == {"balance": 109, "held": 0}
        await break_it(shop, sa.update(lots).where(own, lots.c.remaining == 99).values(remaining=100))
        lifted, twice, nobody = told(*(f"loyalty reconcile --unfreeze {who}" for who in (user, user, "User_1")))
        assert (lifted.code, lifted.out) == (0, f"{user} can spend again\n")
        assert (twice.code, nobody.code) == (2, 2)
        assert (await shop.redeem(user, 1))["errors"] == []
        data = await shop.client.data('{ events(filter: {type: ["points.frozen", "points.unfrozen"]}) { nodes { type } } }')
        assert [node["type"] for node in data["events"]["nodes"]] == ["points.unfrozen", "points.frozen"]
        audited = sa.text("select action from audit_log where action like 'decision.%freeze%'")
        rows = await shop.client.services.db.read(lambda tx: [row.action for row in tx.rows(audited)])
        assert sorted(rows) == ["decision.freezePoints", "decision.unfreezePoints"]
        await shop.check()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (sa.update(accounts).values(debt=7), "account"),
        (sa.delete(allocations), "REDEEM"),
        (sa.update(held_lots).values(amount=1), "hold"),
        (sa.update(holds).values(captured=1), "hold"),
        (sa.update(lots).values(expires_at=sa.literal(datetime(2099, 1, 1, tzinfo=UTC), lots.c.expires_at.type)), "lot"),
        (sa.update(orders).values(reversed=7), "order"),
        (sa.update(orders).values(points=3), "order"),
    ],
)
async def test_each_kind_of_drift_is_found(migrated_url: str, told: Commands, change: sa.Executable, word: str) -> None:
    async with opened(migrated_url) as shop:
        user = await shop.member()
        await shop.pay(user, "o1", 10_000)
        await shop.redeem(user, 30)
        await shop.hold(user, 10)
        await break_it(shop, change)
        [drifted] = told("loyalty reconcile")
        assert drifted.code == 1
        assert word in {line.split()[0] for line in drifted.out.splitlines()}
        assert await frozen(shop, user)


async def test_what_has_drifted_is_frozen_by_night(migrated_url: str) -> None:
    async with opened(migrated_url) as shop:
        user, other = await shop.member(), await shop.member()
        for who in (user, other):
            await shop.pay(who, f"of {who}", 10_000)
        await shop.expire()
        mine = accounts.c.user_id == sa.bindparam(None, shop.key(user), accounts.c.user_id.type)
        await break_it(shop, sa.update(accounts).where(mine).values(debt=1))
        shop.set_time("2026-03-02T03:29")
        await shop.expire()
        assert not await frozen(shop, user)
        shop.set_time("2026-03-02T03:30")
        for _ in range(2):
            await shop.expire()
            assert (await frozen(shop, user), await frozen(shop, other)) == (True, False)
        asked = '{ events(filter: {type: ["points.frozen"]}) { nodes { user { id } properties } } }'
        [said] = (await shop.client.data(asked))["events"]["nodes"]
        assert said["user"]["id"] == user
        assert [line.split()[0] for line in said["properties"]["drift"]] == ["account"]


async def test_a_merge_keeps_what_is_frozen(migrated_url: str, told: Commands) -> None:
    async with opened(migrated_url) as shop:
        kept, absorbed = await shop.member(), await shop.member()
        await shop.pay(kept, "k1", 1_000)
        await shop.pay(absorbed, "a1", 1_000)
        mine = accounts.c.user_id == sa.bindparam(None, shop.key(absorbed), accounts.c.user_id.type)
        await break_it(shop, sa.update(accounts).where(mine).values(debt=7))
        told("loyalty reconcile")
        await break_it(shop, sa.update(accounts).where(mine).values(debt=0))
        await shop.merge(kept, absorbed)
        assert await frozen(shop, kept)
        assert (await shop.refused(kept, 20))[0] == "ACCOUNT_FROZEN"
        await shop.check()
