"""Random histories, lived in a club and in a model of its rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scrm_tiers import book, periods, review, rules
from tests.plugins.club import opened
from tests.plugins.club_model import KINDS, PEOPLE, Life, Scheme, history

START = "2027-12-20T09:30"  # so that the leap day of 2028 comes, and goes out of the window again
SCHEMES = [
    Scheme("ROLLING_12M", "ALL", "TO_LEVEL", 0),
    Scheme("ROLLING_12M", "ANY", "ONE_DOWN", 1),
    Scheme("CALENDAR_YEAR", "ANY", "TO_LEVEL", 1),
    Scheme("LIFETIME", "ALL", "ONE_DOWN", 0),
    Scheme("ROLLING_12M", "ALL", "NEVER", 0),
]
people = st.integers(0, PEOPLE - 1)
steps = st.lists(st.tuples(st.sampled_from(KINDS), people, people, st.integers(1, 400)), min_size=6, max_size=14)
PHASES = [Phase.explicit, Phase.generate]  # an example opens a club, so shrinking one would take minutes
SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=6, deadline=None, derandomize=True, phases=PHASES, suppress_health_check=SUPPRESSED)
@given(steps=steps, scheme=st.sampled_from(SCHEMES))
async def test_a_history_is_as_in_the_model(migrated_url: str, steps: list[Any], scheme: Scheme) -> None:
    async with opened(migrated_url, START, **scheme.rules) as club:
        await Life(club, scheme).live(steps)


Patch = Callable[[pytest.MonkeyPatch], None]


def a_bound_must_be_passed(patch: pytest.MonkeyPatch) -> None:
    reached = rules.TiersRules.reached
    patch.setattr(rules.TiersRules, "reached", lambda self, values: reached(self, tuple(max(value - 1, 0) for value in values)))


def a_refund_lowers_at_once(patch: pytest.MonkeyPatch) -> None:
    rise = book.Book.rise

    def fall_too(self: Any, person: Any, event: Any, *rest: Any) -> None:
        rise(self, person, event, *rest)
        values = person.values(self.rules.window, person.main.seen_on)
        rank = max(self.rules.reached(values), self.rules.rank(person.main.pin))
        if event.type == "order.refunded" and rank < self.rules.held(person.main.tier):
            self.move(person, event, rank, "UPGRADE", event.occurred_at, person.main.seen_on, values)

    patch.setattr(book.Book, "rise", fall_too)


def a_review_is_as_of_now(patch: pytest.MonkeyPatch) -> None:
    summed = review.summed
    patch.setattr(review, "summed", lambda scheme, day: summed(scheme, day + timedelta(days=40)))


def a_review_sees_the_day_after(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(book, "_eve", lambda day: day)


def a_late_review_forgets_the_months_between(patch: pytest.MonkeyPatch) -> None:
    def hasty(self: Any, person: Any, event: Any) -> None:
        day = self.rules.day(event.occurred_at)
        person.main.reviewed_on = max(person.main.reviewed_on, periods.last_review(self.rules.review, day))
        person.main.seen_on = max(person.main.seen_on, day)

    patch.setattr(book.Book, "see", hasty)


def a_pin_is_ignored_by_the_review(patch: pytest.MonkeyPatch) -> None:
    done = book.Book.review

    def careless(self: Any, person: Any, *rest: Any) -> None:
        pin, person.main.pin = person.main.pin, None
        done(self, person, *rest)
        person.main.pin = pin if person.main.pinned_until is not None else None

    patch.setattr(book.Book, "review", careless)


def a_pin_never_ends(patch: pytest.MonkeyPatch) -> None:
    pin = book.Book.pin
    patch.setattr(
        book.Book, "pin", lambda self, person, event, key, until: pin(self, person, event, key, until + timedelta(days=365))
    )


def grace_is_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules.TiersRules, "grace", 0, raising=False)
    fall = book.Book._fall

    def at_once(self: Any, main: Any, held: int, rank: int) -> int:
        main.failures = self.rules.grace
        return fall(self, main, held, rank)

    patch.setattr(book.Book, "_fall", at_once)


def a_level_falls_all_the_way(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(book.Book, "_fall", lambda self, main, held, rank: rank)


def the_window_is_a_day_longer(patch: pytest.MonkeyPatch) -> None:
    after = periods.opens_after
    for module in (book, review):
        patch.setattr(module, "opens_after", lambda window, day: after(window, day) - timedelta(days=window != "LIFETIME"))


def a_refund_counts_on_its_own_day(patch: pytest.MonkeyPatch) -> None:
    count = book.Book.count

    def misplaced(self: Any, person: Any, account_id: Any, counted: Any, known: Any, values: Any) -> None:
        count(self, person, account_id, known if min(values) < 0 else counted, known, values)

    patch.setattr(book.Book, "count", misplaced)


def every_payment_is_an_order(patch: pytest.MonkeyPatch) -> None:
    order = book.Book.order

    def alone(self: Any, person: Any, event: Any) -> Any:
        return order(self, person, replace(event, properties={"orderId": event.id.hex}))

    patch.setattr(book.Book, "order", alone)


def a_merge_keeps_the_level_of_the_survivor(patch: pytest.MonkeyPatch) -> None:
    rise = book.Book.rise
    patch.setattr(book.Book, "rise", lambda self, person, event, cause="UPGRADE", least=0: rise(self, person, event, cause))


FAULTS: list[tuple[Patch, int, int]] = [
    (a_bound_must_be_passed, 0, 0),
    (a_refund_lowers_at_once, 1, 0),
    (a_review_is_as_of_now, 0, 1),
    (a_review_sees_the_day_after, 2, 2),
    (a_late_review_forgets_the_months_between, 0, 1),
    (a_pin_is_ignored_by_the_review, 2, 1),
    (a_pin_never_ends, 0, 1),
    (grace_is_not_counted, 1, 1),
    (a_level_falls_all_the_way, 1, 1),
    (the_window_is_a_day_longer, 0, 11),
    (a_refund_counts_on_its_own_day, 0, 1),
    (every_payment_is_an_order, 0, 0),
    (a_merge_keeps_the_level_of_the_survivor, 2, 5),
]
"""Each with a scheme and a history in which it shows; without the fault every such history is as in the model."""
LONG = [(0, 11), (1, 1), (2, 5), (3, 0), (4, 0)]
REST = sorted({(scheme, seed) for _, scheme, seed in FAULTS} - set(LONG))


@pytest.mark.parametrize(("scheme", "seed"), LONG)
async def test_a_long_history_is_as_in_the_model(migrated_url: str, scheme: int, seed: int) -> None:
    await live(migrated_url, scheme, seed)


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("scheme", "seed"), REST)
async def test_a_history_that_shows_a_fault_is_as_in_the_model_without_it(migrated_url: str, scheme: int, seed: int) -> None:
    await live(migrated_url, scheme, seed)


async def live(url: str, scheme: int, seed: int) -> None:
    async with opened(url, START, **SCHEMES[scheme].rules) as club:
        await Life(club, SCHEMES[scheme]).live(history(seed, 40))


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("fault", "scheme", "seed"), FAULTS, ids=lambda each: getattr(each, "__name__", str(each)))
async def test_a_seeded_fault_is_noticed(
    migrated_url: str, fault: Patch, scheme: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        await live(migrated_url, scheme, seed)
