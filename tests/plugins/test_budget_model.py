"""Random histories give what a second, independent treasury gives; and each seeded fault is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from scrm_budget import book, deciding, facts
from scrm_budget.models import commitments, lines
from tests.plugins.budget_model import KINDS, RULES, Life, Step, history
from tests.plugins.treasury import opened

AT = "2026-03-01T12:00"
COMMITTED: list[Step] = [("commit", 0, 1, 9), ("commit", 0, 2, 9)]
WAITED: list[Step] = [("wait", 0, 0, 0)] * 3
SHORT: list[Step] = [
    *COMMITTED,
    ("commit", 0, 1, 3),
    ("use", 0, 0, 4),
    ("use", 0, 0, 6),
    ("release", 0, 0, 0),
    ("release", 0, 0, 0),
    *WAITED,
    ("use", 0, 1, 2),
    ("release", 0, 1, 0),
    ("spend", 0, 0, 9),
    ("refund", 0, 0, 5),
    ("refund", 0, 0, 5),
    ("refund", 0, 0, 4),
    ("transfer", 0, 3, 6),
    ("transfer", 3, 2, 9),
    ("spend", 1, 1, 9),
    ("spend", 1, 1, 7),
    ("commit", 1, 4, 5),
    ("spend", 1, 2, 6),
    ("spend", 1, 0, 9),
    ("merge", 0, 0, 0),
    ("days", 0, 0, 0),
    ("commit", 1, 1, 1),
    ("cost", 0, 1, 9),
    ("again", 0, 0, 9),
    ("spend", 2, 0, 9),
    ("spend", 2, 0, 9),
    ("commit", 2, 0, 9),
    ("days", 0, 1, 0),
    ("days", 0, 1, 0),
    ("use", 0, 0, 1),
    ("refund", 0, 0, 3),
    ("spend", 0, 0, 9),
    ("spend", 2, 0, 9),
    ("days", 0, 2, 0),
    ("days", 0, 2, 0),
    ("refund", 0, 0, 2),
    ("spend", 0, 0, 9),
]
"""Thought out: what each fault needs to be seen."""
numbers = st.integers(0, 11)
steps = st.lists(st.tuples(st.sampled_from(KINDS), numbers, numbers, st.integers(1, 9)), min_size=5, max_size=12)
PHASES = [Phase.explicit, Phase.generate]  # an example opens a treasury, so shrinking one would take minutes
SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=2, deadline=None, derandomize=True, phases=PHASES, suppress_health_check=SUPPRESSED)
@given(steps=steps)
async def test_a_history_is_as_in_the_model(migrated_url: str, steps: list[Any]) -> None:
    async with opened(migrated_url, AT, **RULES) as brand:
        await Life(brand).live(steps)


async def test_a_long_history_is_as_in_the_model(migrated_url: str) -> None:
    async with opened(migrated_url, AT, **RULES) as brand:
        await Life(brand).live([*SHORT, *history(1, 16)])


Patch = Callable[[pytest.MonkeyPatch], None]


def expired_commitments_keep_their_money(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deciding, "available", lambda line, at, day: line.c.allocated - line.c.committed - line.c.spent)
    patch.setattr(deciding, "LINE", deciding.select_line(lines.c.allocated - lines.c.committed - lines.c.spent))


def commitments_have_no_deadline(patch: pytest.MonkeyPatch) -> None:
    def forgetful(tx: Any, key: str, at: Any) -> Any:
        return tx.rows(sa.select(commitments).where(commitments.c.id == UUID(key)))[0]

    patch.setattr(deciding, "open_commitment", forgetful)


def a_line_gives_more_than_it_has(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deciding, "insufficient", lambda there, amount: 0)


def spending_leaves_the_commitment(patch: pytest.MonkeyPatch) -> None:
    count = book.Book.count
    patch.setattr(book.Book, "count", lambda self, line, kind, amount, committed=False: count(self, line, kind, amount))


def refunds_are_endless(patch: pytest.MonkeyPatch) -> None:
    refund = facts.refund

    def unlinked(self: Any, event: Any) -> Any:
        found = refund(self, event)
        self.journal.lines[-1]["reverses"] = None
        return found

    patch.setitem(facts.FACTS, "budget.refunded", unlinked)


def nothing_is_taken_over(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(book.Book, "carry", lambda self, line: None)


def debts_are_forgiven(patch: pytest.MonkeyPatch) -> None:
    carries = book.Budget.carries
    patch.setattr(book.Budget, "carries", lambda self, rest: carries(self, max(rest, 0)))


def thresholds_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(book.Book, "cross", lambda self, event, budget_id, line, lines: None)


def caps_forget_commitments(patch: pytest.MonkeyPatch) -> None:
    drawn = deciding.drawn_of
    patch.setattr(deciding, "drawn_of", lambda tx, line, at, kept, spent: drawn(tx, line, at, sa.false(), spent))


def a_transfer_arrives_nowhere(patch: pytest.MonkeyPatch) -> None:
    count = book.Book.count

    def lossy(self: Any, line: Any, kind: str, amount: int, committed: bool = False) -> None:
        count(self, line, kind, 0 if kind == "TRANSFER_IN" else amount, committed)

    patch.setattr(book.Book, "count", lossy)


FAULTS: list[Patch] = [
    expired_commitments_keep_their_money,
    commitments_have_no_deadline,
    a_line_gives_more_than_it_has,
    spending_leaves_the_commitment,
    refunds_are_endless,
    nothing_is_taken_over,
    debts_are_forgiven,
    thresholds_are_forgotten,
    caps_forget_commitments,
    a_transfer_arrives_nowhere,
]


@pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_a_seeded_fault_is_noticed(migrated_url: str, fault: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    async with opened(migrated_url, AT, **RULES) as brand:
        with pytest.raises(AssertionError):
            await Life(brand).live(SHORT)
