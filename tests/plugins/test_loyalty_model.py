"""Random histories give what a second, independent ledger gives; and each seeded fault is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scrm_loyalty import correcting, earning, facts, handlers, ledger, merging, rules, spending
from scrm_loyalty.models import lots
from scrm_loyalty.service import lasts
from tests.plugins.model import CORRECTING, PEOPLE, RULES, Life, Step, history
from tests.plugins.shop import opened

SEEDS = (24, 27)  # histories with debts, debts paid, refunds before orders, merges
EARNED: list[Step] = [("pay", 1, 0, 250), ("wait", 0, 0, 0)]  # five points of person 1
LONG: list[Step] = [("wait", 0, 0, 2)] * 4  # until they have expired
SHORT: list[list[Step]] = [
    [*EARNED, ("hold", 1, 0, 4), ("merge", 0, 1, 1), ("redeem", 0, 0, 4)],
    [*EARNED, ("hold", 1, 0, 4), ("refund", 1, 0, 500)],
    [*EARNED, ("hold", 1, 0, 4), ("release", 0, 0, 0), ("release", 0, 0, 0), ("capture", 0, 0, 4)],
    [*EARNED, ("hold", 1, 0, 10), ("wait", 0, 0, 0), ("capture", 0, 0, 0)],
    [*EARNED, ("merge", 0, 1, 1), ("hold", 0, 0, 4), ("unmerge", 0, 0, 0), ("capture", 0, 0, 2), ("merge", 0, 1, 1)],
    [*EARNED, ("redeem", 1, 0, 4), *LONG, ("undo", 1, 0, 0), ("undo", 1, 0, 0)],
    [*EARNED, ("redeem", 1, 0, 4), ("undo", 1, 0, 0), ("undo", 1, 0, 0), ("redeem", 1, 0, 4)],
    [*EARNED, ("redeem", 1, 0, 4), ("refund", 1, 0, 300), ("undo", 1, 0, 0)],
    [*EARNED, ("transfer", 1, 2, 2), ("refund", 1, 0, 500), *LONG, ("transfer", 2, 0, 2)],
    [*EARNED, *LONG, ("merge", 0, 1, 1)],
    [
        *EARNED,
        ("hold", 1, 0, 2),
        ("expire", 0, 0, 0),
        ("refund", 1, 0, 100),
        *LONG,
        *[("expire", 0, 0, 0)] * 2,
        ("undo", 0, 0, 0),
    ],
    [
        ("adjust", 1, 1, 6),
        ("transfer", 1, 2, 2),
        ("undo", 1, 0, 0),
        ("transfer", 2, 1, 2),
        ("adjust", 1, 0, 4),
        ("undo", 1, 0, 0),
    ],
    [*EARNED, ("merge", 0, 1, 1), ("redeem", 0, 0, 4), ("unmerge", 0, 0, 0), ("undo", 0, 0, 0), ("merge", 1, 0, 1)],
]
people = st.integers(0, PEOPLE - 1)
steps = st.lists(st.tuples(st.sampled_from(CORRECTING), people, people, st.integers(1, 1_200)), min_size=4, max_size=10)
PHASES = [Phase.explicit, Phase.generate]  # an example opens a shop, so shrinking one would take minutes
SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=8, deadline=None, derandomize=True, phases=PHASES, suppress_health_check=SUPPRESSED)
@given(steps=steps)
async def test_a_history_is_as_in_the_model(migrated_url: str, steps: list[Any]) -> None:
    async with opened(migrated_url, **RULES) as shop:
        await Life(shop).live(steps)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_long_history_is_as_in_the_model(migrated_url: str, seed: int) -> None:
    async with opened(migrated_url, **RULES) as shop:
        await Life(shop).live(history(seed, 40))
        await Life(shop).live(history(seed, 60, CORRECTING))


Patch = Callable[[pytest.MonkeyPatch], None]


def last_in_first_out(patch: pytest.MonkeyPatch) -> None:
    found = spending.free_parts
    patch.setattr(spending, "free_parts", lambda tx, account_id, at: list(reversed(found(tx, account_id, at))))


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

    _patch_settle(patch, alone)


def _patch_settle(patch: pytest.MonkeyPatch, settle: Any) -> None:
    patch.setattr(ledger, "settle", settle)
    patch.setattr(earning, "settle", settle)


def debt_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    settle = ledger.settle

    def forgetful(book: Any, event: Any, account: Any, *rest: Any) -> None:
        owed = account.debt
        settle(book, event, account, *rest)
        account.debt = owed

    _patch_settle(patch, forgetful)


def debt_is_never_paid(patch: pytest.MonkeyPatch) -> None:
    credit = earning.credit

    def unpaid(book: Any, event: Any, account: Any, *rest: Any) -> None:
        owed, account.debt = account.debt, 0
        credit(book, event, account, *rest)
        account.debt = owed

    patch.setattr(earning, "credit", unpaid)


def expired_points_are_spent(patch: pytest.MonkeyPatch) -> None:
    there = sa.and_(lots.c.account_id == sa.bindparam("account"), lots.c.remaining > 0)
    patch.setattr(spending, "USABLE", handlers.select_lots(there, spending.HELD))


def one_day_too_long(patch: pytest.MonkeyPatch) -> None:
    expires_on = rules.LoyaltyRules.expires_on
    patch.setattr(rules.LoyaltyRules, "expires_on", lambda self, at: expires_on(self, at + timedelta(days=1)))


def pending_points_are_spent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules.LoyaltyRules, "available_at", lambda self, at: at)


def early_refunds_are_lost(patch: pytest.MonkeyPatch) -> None:
    refund = ledger.refund

    def deaf(book: Any, event: Any, user_id: Any, amount: int, program: Any) -> None:
        if (user_id, event.order_id) in book.orders:
            refund(book, event, user_id, amount, program)

    patch.setattr(facts, "refund", deaf)


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

    def own_only(tx: Any, book: Any, keys: Any) -> None:
        load(tx, book, keys)
        own = {key: handlers._own_id(book.accounts, key[0]) for key in book.orders}
        book.orders = {key: order for key, order in book.orders.items() if order.account_id == own[key]}
        book.siblings.clear()

    patch.setattr(handlers, "load_orders", own_only)


def held_points_are_spent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(spending, "free_parts", lambda tx, account_id, at: _all_of(tx, account_id, at))


def _all_of(tx: Any, account_id: Any, at: Any) -> Any:
    at = sa.literal(at, lots.c.available_at.type)
    usable = sa.and_(lots.c.account_id == account_id, lots.c.available_at <= at, lasts(at))
    return [(lot, lot.remaining) for lot in handlers.load_lots(tx, handlers.select_lots(usable))]


def refunds_take_what_is_held(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ledger.Ledger, "free", lambda self, lot, at: lot.remaining)


def a_hold_is_released_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(spending, "_resolved", lambda row: None)


def a_hold_has_no_deadline(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(spending, "_expired", lambda row, at: None)


def a_capture_takes_everything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(spending, "first_of", _whole(spending.first_of))


def _whole(first_of: Any) -> Any:
    return lambda parts, points: first_of(parts, 10**9) if sum(there for _, there in parts) < 10 else first_of(parts, points)


def holds_stay_behind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(merging, "_split_held", lambda *_: [])


def merge_drops_the_holds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(merging, "MOVED_BY_A_MERGE", (lots,))


def undoing_revives_what_expired(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules.LoyaltyRules, "reinstatement_days", property(lambda self: 5), raising=False)


def what_was_undone_is_undone_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(correcting, "_undone", lambda tx, entry_id: False)


def undoing_pays_no_debt(patch: pytest.MonkeyPatch) -> None:
    lock_all = correcting._lock_all
    patch.setattr(correcting, "_lock_all", lambda *said: 0 * lock_all(*said))


def transferred_points_last_for_ever(patch: pytest.MonkeyPatch) -> None:
    move = ledger.Ledger.move

    def endless(self: Any, event: Any, lot: Any, *rest: Any) -> None:
        move(self, event, replace(lot, expires_at=None), *rest)
        lot.remaining -= rest[0]

    patch.setattr(ledger.Ledger, "move", endless)


def merge_drops_allocations(patch: pytest.MonkeyPatch) -> None:
    transfer = merging._transfer

    def forgetful(book: Any, *rest: Any) -> None:
        transfer(book, *rest)
        book.allocations.clear()

    patch.setattr(merging, "_transfer", forgetful)


def what_is_written_off_stays(patch: pytest.MonkeyPatch) -> None:
    def said_only(self: Any, event: Any, lot: Any, amount: int, part: Any) -> None:
        self.entry(event, lot.account_id, "EXPIRE", -amount, part=part)

    patch.setattr(ledger.Ledger, "write_off", said_only)


FAULTS: list[tuple[Patch, list[Step]]] = [
    (last_in_first_out, history(10, 18)),
    (each_refund_rounded_alone, history(24, 22)),
    (debt_is_forgotten, history(24, 10)),
    (debt_is_never_paid, history(24, 13)),
    (expired_points_are_spent, history(27, 28)),
    (one_day_too_long, history(27, 25)),
    (pending_points_are_spent, history(24, 2)),
    (early_refunds_are_lost, history(27, 5)),
    (merge_leaves_the_lots, history(8, 18)),
    (merge_drops_the_debt, history(22, 37)),
    (unmerge_gives_back_everything, history(27, 9)),
    (refunds_do_not_see_merged_orders, history(24, 21)),
    (held_points_are_spent, SHORT[0]),
    (refunds_take_what_is_held, SHORT[1]),
    (a_hold_is_released_twice, SHORT[2]),
    (a_hold_has_no_deadline, SHORT[3]),
    (a_capture_takes_everything, SHORT[3]),
    (holds_stay_behind, SHORT[4]),
    (merge_drops_the_holds, SHORT[0]),
    (undoing_revives_what_expired, SHORT[5]),
    (what_was_undone_is_undone_again, SHORT[5]),
    (undoing_pays_no_debt, SHORT[7]),
    (transferred_points_last_for_ever, SHORT[8]),
    (merge_drops_allocations, SHORT[9]),
    (what_is_written_off_stays, SHORT[9]),
]
"""Each with a history that shows it."""


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("fault", "steps"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
async def test_a_seeded_fault_is_noticed(
    migrated_url: str, fault: Patch, steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    async with opened(migrated_url, **RULES) as shop:
        with pytest.raises(AssertionError):
            await Life(shop).live(steps)


async def test_what_shows_a_fault_is_as_in_the_model_without_it(migrated_url: str) -> None:
    async with opened(migrated_url, **RULES) as shop:
        lived = [*SHORT, *(history(seed, 40) for seed in SEEDS)]  # the long ones above
        others = [steps for _, steps in FAULTS if not any(steps == known[: len(steps)] for known in lived)]
        for steps in [*SHORT, *others]:
            await Life(shop).live(steps)
