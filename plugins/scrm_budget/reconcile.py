"""Whether budgets agree with their journal: every number that is kept is computed again from the entries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
import typer

from scrm.api import Command, PluginContext, Tx

from .book import Budget
from .models import budgets, commitments, earned, entries, lines, revenue

FUNDS = ("ALLOCATE", "ADJUST", "TRANSFER_IN", "TRANSFER_OUT")


def drifts(tx: Tx) -> list[str]:
    """What does not agree; empty when all is well."""
    return [*_lines(tx), *_commitments(tx), *_carried(tx), *_pairs(tx), *_refunds(tx), *_earned(tx)]


def _sum(of: sa.ColumnElement[bool], *signed: tuple[sa.ColumnElement[bool], Any]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.coalesce(sa.func.sum(sa.case(*signed, else_=0)), 0)).where(of).scalar_subquery()


def _lines(tx: Tx) -> Iterator[str]:
    """A line has, keeps and has spent what its entries sum to."""
    kind, amount, mine = entries.c.kind, entries.c.amount, entries.c.line_id == lines.c.id
    of_commitment = sa.and_(kind == "SPEND", entries.c.commitment_id.is_not(None))
    sums = {
        "allocated": _sum(mine, (kind.in_(FUNDS), amount)),
        "committed": _sum(mine, (kind == "COMMIT", amount), (kind == "RELEASE", -amount), (of_commitment, -amount)),
        "spent": _sum(mine, (kind == "SPEND", amount), (kind == "REFUND", -amount)),
    }
    said = [value.label(f"{name}_said") for name, value in sums.items()]
    for row in tx.rows(sa.select(lines.c.id, *(lines.c[name] for name in sums), *said).order_by(lines.c.id)):
        for name in sums:
            kept, summed = row._mapping[name], int(row._mapping[f"{name}_said"])
            if kept != summed:
                yield f"line {row.id.hex}: {name} {kept}, entries sum to {summed}"


def _commitments(tx: Tx) -> Iterator[str]:
    """A commitment was spent and released as its entries say, and is open exactly while something is left of it."""
    kind, amount, mine = entries.c.kind, entries.c.amount, entries.c.commitment_id == commitments.c.id
    spent, released = _sum(mine, (kind == "SPEND", amount)), _sum(mine, (kind == "RELEASE", amount))
    for row in tx.rows(sa.select(commitments, spent.label("spent_said"), released.label("released_said"))):
        if (row.spent, row.released) != (int(row.spent_said), int(row.released_said)):
            yield (
                f"commitment {row.id.hex}: {row.spent} spent and {row.released} released, "
                f"entries say {row.spent_said} and {row.released_said}"
            )
        if (row.state == "OPEN") != (row.amount > row.spent + row.released) or (row.state == "OPEN") != (row.resolved_at is None):
            yield f"commitment {row.id.hex}: {row.state} with {row.amount - row.spent - row.released} left"


def _carried(tx: Tx) -> Iterator[str]:
    """A line takes over what the line before leaves."""
    before = lines.alias("before")
    rest = (before.c.allocated + before.c.carrying - before.c.spent).label("rest")
    known = {row.id: Budget(**row._mapping) for row in tx.rows(sa.select(budgets))}
    joined = lines.join(before, before.c.id == lines.c.previous_id)
    for row in tx.rows(sa.select(lines.c.id, lines.c.budget_id, lines.c.carrying, rest).select_from(joined)):
        wanted = known[row.budget_id].carries(row.rest)
        if row.carrying != wanted:
            yield f"line {row.id.hex}: takes over {row.carrying}, the line before leaves {wanted}"


def _pairs(tx: Tx) -> Iterator[str]:
    """What leaves one line arrives at another."""
    other = entries.alias("other")
    columns = (entries.c.id, entries.c.amount, other.c.amount.label("other"), other.c.pair_id.label("back"))
    joined = entries.outerjoin(other, other.c.id == entries.c.pair_id)
    for row in tx.rows(sa.select(*columns).select_from(joined).where(entries.c.kind.in_(("TRANSFER_IN", "TRANSFER_OUT")))):
        if row.back != row.id or row.other != -row.amount:
            yield f"transfer {row.id.hex}: {row.amount}, the other half {row.other}"


def _refunds(tx: Tx) -> Iterator[str]:
    """No more comes back than was spent."""
    back = entries.alias("back")
    total = sa.func.sum(back.c.amount)
    joined = entries.join(back, back.c.reverses == entries.c.id)
    said = sa.select(entries.c.id, entries.c.amount, total.label("total")).select_from(joined)
    for row in tx.rows(said.group_by(entries.c.id, entries.c.amount).having(total > entries.c.amount)):
        yield f"spending {row.id.hex}: {row.amount}, of which {row.total} came back"


def _earned(tx: Tx) -> Iterator[str]:
    """A day earned what its payments and refunds sum to."""
    said: dict[tuple[Any, ...], int] = {}
    kept = sa.select(earned.c.day, earned.c.currency, earned.c.channel_id, earned.c.campaign, earned.c.amount)
    keys = (revenue.c.day, revenue.c.currency, revenue.c.channel_id, revenue.c.campaign)
    summed = sa.select(*keys, -sa.func.sum(revenue.c.amount)).where(revenue.c.known).group_by(*keys)
    for row in (*tx.rows(kept), *tx.rows(summed)):
        key: tuple[Any, ...] = tuple(row[:-1])
        said[key] = said.get(key, 0) + int(row[-1])
    for (day, currency, *_), amount in said.items():
        if amount:
            yield f"revenue of {day}: {amount} minor units of {currency} more than payments sum to"


async def reconcile(context: PluginContext) -> None:
    """Compute every number of every budget again from the entries; name what does not agree, and end with 1."""
    found = await context.read(drifts)
    for said in found:
        typer.echo(said)
    if found:
        raise typer.Exit(1)
    typer.echo("every budget agrees with its entries")


RECONCILE = Command("reconcile", reconcile)
