"""Random histories give what a second, independent ledger gives; and each seeded fault is noticed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scrm_loyalty import handlers, ledger, merging, rules, service
from tests.plugins.model import KINDS, PEOPLE, RULES, Life, history
from tests.plugins.shop import Shop, opened

SEEDS = (24, 27, 8, 10, 22, 4, 14)  # histories with debts, debts paid, refunds before orders, merges
people = st.integers(0, PEOPLE - 1)
steps = st.lists(st.tuples(st.sampled_from(KINDS), people, people, st.integers(1, 1_200)), min_size=4, max_size=10)
PHASES = [Phase.explicit, Phase.generate]  # an example opens a shop, so shrinking one would take minutes
SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=8, deadline=None, derandomize=True, phases=PHASES, suppress_health_check=SUPPRESSED)
@given(steps=steps)
async def test_a_history_is_as_in_the_model(migrated_url: str, steps: list[Any]) -> None:
    async with opened(migrated_url, **RULES) as shop:
        await Life(shop).live(steps)


@pytest.mark.parametrize("seed", SEEDS[:2])
async def test_a_long_history_is_as_in_the_model(migrated_url: str, seed: int) -> None:
    async with opened(migrated_url, **RULES) as shop:
        await Life(shop).live(history(seed, 40))


Patch = Callable[[pytest.MonkeyPatch], None]


def last_in_first_out(patch: pytest.MonkeyPatch) -> None:
    found = handlers.load_lots
    patch.setattr(service, "load_lots", lambda tx, condition: list(reversed(found(tx, condition))))


def each_refund_rounded_alone(patch: pytest.MonkeyPatch) -> None:
    settle = ledger.settle

    def alone(book: Any, event: Any, account: Any, order: Any, program: Any) -> None:
        if event.type == "order.refunded" and order.paid:
            kept, before = order.refunded, order.reversed
            order.refunded, order.reversed = event.amount_minor, 0
            settle(book, event, account, order, program)
            order.refunded, order.reversed = kept, min(before + order.reversed, order.points)
        else:
            settle(book, event, account, order, program)

    patch.setattr(ledger, "settle", alone)


def debt_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    settle = ledger.settle

    def forgetful(book: Any, event: Any, account: Any, *rest: Any) -> None:
        owed = account.debt
        settle(book, event, account, *rest)
        account.debt = owed

    patch.setattr(ledger, "settle", forgetful)


def debt_is_never_paid(patch: pytest.MonkeyPatch) -> None:
    credit = ledger.credit

    def unpaid(book: Any, event: Any, account: Any, *rest: Any) -> None:
        owed, account.debt = account.debt, 0
        credit(book, event, account, *rest)
        account.debt = owed

    patch.setattr(ledger, "credit", unpaid)


def expired_points_are_spent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(service, "_lasts", lambda at: sa.true())


def one_day_too_long(patch: pytest.MonkeyPatch) -> None:
    expires_on = rules.LoyaltyRules.expires_on
    patch.setattr(rules.LoyaltyRules, "expires_on", lambda self, at: expires_on(self, at + timedelta(days=1)))


def pending_points_are_spent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules.LoyaltyRules, "available_at", lambda self, at: at)


def early_refunds_are_lost(patch: pytest.MonkeyPatch) -> None:
    refund = ledger.refund

    def deaf(book: Any, event: Any, user_id: Any, amount: int, program: Any) -> None:
        if (user_id, ledger.order_id_of(event)) in book.orders:
            refund(book, event, user_id, amount, program)

    patch.setattr(ledger, "refund", deaf)


def merge_leaves_the_lots(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(merging, "_own_lots", lambda *_: [])


def merge_drops_the_debt(patch: pytest.MonkeyPatch) -> None:
    transfer = merging._transfer
    patch.setattr(
        merging, "_transfer", lambda book, event, giver, taker, moving, debt: transfer(book, event, giver, taker, moving, 0)
    )


def unmerge_gives_back_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(merging, "_own_lots", _all_lots(merging._own_lots))


def _all_lots(own: Any) -> Any:
    return lambda tx, found, account, homes: own(tx, found, account, None)


def refunds_do_not_see_merged_orders(patch: pytest.MonkeyPatch) -> None:
    load = handlers.load_orders

    def own_only(tx: Any, keys: Any, own: Any) -> Any:
        return {key: order for key, order in load(tx, keys, own).items() if order.account_id == handlers._own_id(own, key[0])}

    patch.setattr(handlers, "load_orders", own_only)


FAULTS: list[Patch] = [
    last_in_first_out,
    each_refund_rounded_alone,
    debt_is_forgotten,
    debt_is_never_paid,
    expired_points_are_spent,
    one_day_too_long,
    pending_points_are_spent,
    early_refunds_are_lost,
    merge_leaves_the_lots,
    merge_drops_the_debt,
    unmerge_gives_back_everything,
    refunds_do_not_see_merged_orders,
]


async def lives(shop: Shop) -> None:
    """Several long histories."""
    for seed in SEEDS:
        await Life(shop).live(history(seed, 40))


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_a_seeded_fault_is_noticed(migrated_url: str, fault: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    async with opened(migrated_url, **RULES) as shop:
        with pytest.raises(AssertionError):
            await lives(shop)
