"""What does not agree with the entries is named, and the command ends with 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from scrm.api import Tx
from scrm_budget.models import commitments, lines
from scrm_budget.reconcile import drifts
from tests.plugins.conftest import Commands
from tests.plugins.treasury import opened

FIRST = lines.c.place == 1, lines.c.previous_id.is_(None)
BROKEN: list[tuple[Any, str]] = [
    (sa.update(lines).where(*FIRST).values(spent=lines.c.spent + 1), "spent 11, entries sum to 10"),
    (sa.update(lines).where(*FIRST).values(committed=0), "committed 0, entries sum to 30"),
    (sa.update(lines).where(*FIRST).values(allocated=1), "allocated 1, entries sum to 1000"),
    (sa.update(lines).where(lines.c.previous_id.is_not(None)).values(carrying=7), "takes over 7, the line before leaves"),
    (sa.update(commitments).values(spent=1), "1 spent and 0 released, entries say 0 and 0"),
    (sa.update(commitments).values(state="SPENT"), "SPENT with 30 left"),
]


class Undone(Exception):
    """What was tried does not stay."""


async def test_what_does_not_agree_is_named(migrated_url: str) -> None:
    async with opened(migrated_url) as brand:
        first, own = await brand.budget(1_000)
        await brand.budget(1_000, start="2026-04-01", end="2026-05-01", previousId=first, rollover="REMAINING")
        await brand.spend(own["campaigns"], 10)
        await brand.commit(own["campaigns"], 30)
        db = brand.client.services.db
        found: list[str] = []

        def tried(tx: Tx, change: Any) -> None:
            tx.execute(change)
            found[:] = drifts(tx)
            raise Undone

        for change, said in BROKEN:
            with pytest.raises(Undone):
                await db.write(tried, change)
            assert [line for line in found if said in line], said
        assert await db.read(drifts) == []


def test_the_command_says_so(scrm_here: Commands, tmp_path: Path) -> None:
    (tmp_path / "scrm.toml").write_text('database_url = "sqlite:///scrm.db"\n[plugins.budget]\nenabled = true\n')
    *_, done = scrm_here("db upgrade", "budget reconcile")
    assert (done.code, done.out) == (0, "every budget agrees with its entries\n")
