"""Decisions about budgets: to make one, to change, close and explain it, and to move money to where it earns more."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

import sqlalchemy as sa

from scrm.api import Fact, Tx, UserError, channels, is_currency

from .book import CAPPED, RESERVE
from .deciding import (
    insufficient,
    lock_budget,
    lock_line,
    no_budget,
    wrong_amount,
    wrong_currency,
)
from .models import budgets, guard, lines, sources
from .returns import Return, returns
from .rules import LONGEST_NAME, BudgetRules
from .service import closed, on
from .splits import PRESETS, Share, reallocate, split

LONGEST_DAYS, MOST_LINES, MOST_NAMES = 1_100, 50, 100
TOLERANCE = Fraction(1, 10**6)
"""Of the sum of shares in percent: a third is none of the numbers that JSON can say."""
CATEGORY = re.compile(r"[a-z][a-z0-9_-]{0,59}")


def create(tx: Tx, input: Mapping[str, Any], rules: BudgetRules, at: datetime) -> Fact | UserError:
    """Make a budget: the reserve off the top, the rest split among lines by share or amount, Σ exact.

    Refuses with INVALID_NAME, INVALID_PERIOD, INVALID_AMOUNT, CURRENCY_MISMATCH, INVALID_LINES, SHARES_NOT_WHOLE,
    AMOUNTS_NOT_TOTAL, INVALID_ROLLOVER, BUDGET_NOT_FOUND, PREVIOUS_TAKEN, UNKNOWN_CHANNEL or SOURCE_TAKEN.
    """
    start, end = date.fromisoformat(input["start"]), date.fromisoformat(input["end"])
    refusal = _unfit(input, rules, start, end)
    if refusal is not None:
        return refusal
    asked = _lines_of(input)
    if isinstance(asked, UserError):
        return asked
    amounts = _amounts(asked, input["total"] - input["reserve"])
    if isinstance(amounts, UserError):
        return amounts
    tx.rows(sa.select(guard).with_for_update())
    refusal = _previous(tx, input, start)
    if refusal is not None:
        return refusal
    named = _named(tx, [(one, None) for one in asked], start, end, rules.day(at))
    if isinstance(named, UserError):
        return named
    said = [{**_line(one), "planned": amount, **own} for one, amount, own in zip(asked, amounts, named, strict=True)]
    reserve = {**_line({"category": RESERVE, "policy": "BLOCK"}), "planned": input["reserve"], "channels": [], "campaigns": []}
    fact = {name: input[name] for name in ("name", "start", "end", "currency", "previous", "rollover", "rolloverCap")}
    closes = (end + timedelta(days=rules.close_after_days)).isoformat()
    ranges = {category: list(both) for category, both in rules.ranges.items()}
    kept = {"closes": closes, "timezone": rules.timezone, "ranges": ranges, "causePercent": rules.cause_percent}
    return Fact(None, {**fact, **kept, "lines": [reserve, *said]})


def _line(one: Mapping[str, Any]) -> dict[str, Any]:
    names = ("cap_per_day", "cap_per_user", "expected_roi")
    return {"category": one["category"], "policy": one.get("policy") or "BLOCK", **{name: one.get(name) for name in names}}


def _wrong_name(name: str) -> UserError | None:
    if name.strip() and len(name) <= LONGEST_NAME:
        return None
    return UserError("INVALID_NAME", f"a budget's name has 1 to {LONGEST_NAME} characters, not blanks alone", ("name",))


def _unfit(input: Mapping[str, Any], rules: BudgetRules, start: date, end: date) -> UserError | None:
    refusal = _wrong_name(input["name"])
    if refusal is not None:
        return refusal
    if not start < end <= start + timedelta(days=LONGEST_DAYS):
        message = f"the budget is from {start} to {end}; its end is the day after its last one, at most {LONGEST_DAYS} days on"
        return UserError("INVALID_PERIOD", message, ("end",), {"start": start.isoformat(), "end": end.isoformat()})
    if (input["rollover"] == CAPPED) != (input["rolloverCap"] is not None):
        return UserError("INVALID_ROLLOVER", "rolloverCap goes with the rollover CAPPED, and only with it", ("rolloverCap",))
    if not is_currency(input["currency"]):
        message = f"total is in {input['currency'][:40]!r}; take an ISO 4217 code such as {rules.currency}"
        return UserError("INVALID_CURRENCY", message, ("total", "currency"), {"currency": input["currency"][:40]})
    refusal = wrong_amount(input["total"], "total") or wrong_amount(input["reserve"], "reserve", 0)
    if refusal is None and input["reserve"] > input["total"]:
        message = f"reserve is {input['reserve']}, and there are {input['total']} in all; take less"
        refusal = UserError("INVALID_AMOUNT", message, ("reserve",), {"amount": input["reserve"]})
    for said in input["currencies"]:
        refusal = refusal or wrong_currency(said, input["currency"], "total")
    return refusal


def _lines_of(input: Mapping[str, Any]) -> Sequence[Mapping[str, Any]] | UserError:
    """The lines as they are asked for, with those of the preset."""
    asked = list(input["lines"])
    if input["preset"] is not None:
        own = {one["category"]: one for one in asked}
        known = [category for category, _ in PRESETS[input["preset"]]]
        other = next((category for category in own if category not in known), None)
        if other is not None or len(own) < len(asked) or any(one["share"] or one["amount"] is not None for one in asked):
            message = f"with a preset, lines say more of its categories, each once, without share or amount: {', '.join(known)}"
            return UserError("INVALID_LINES", message, ("lines",), {"category": other})
        blank: dict[str, Any] = {"amount": None, "channels": [], "campaigns": []}
        return [{"category": name, **blank, **own.get(name, {}), "share": str(share)} for name, share in PRESETS[input["preset"]]]
    categories = [one["category"] for one in asked]
    fits = [CATEGORY.fullmatch(name) and name != RESERVE and categories.count(name) == 1 for name in categories]
    wrong = next((name for name, fit in zip(categories, fits, strict=True) if not fit), None)
    if wrong is not None or not 1 <= len(asked) <= MOST_LINES:
        message = f"a budget has 1 to {MOST_LINES} lines, each with a category of its own in lower case; {RESERVE} is none"
        return UserError("INVALID_LINES", message, ("lines",), {"category": wrong})
    return asked


def _amounts(asked: Sequence[Mapping[str, Any]], total: int) -> list[int] | UserError:
    """What each line gets."""
    if all(one["share"] is not None and one["amount"] is None for one in asked):
        shares = [Fraction(one["share"]) for one in asked]
        whole = sum(shares, Fraction(0))
        if abs(whole - 100) > TOLERANCE or min(shares) < 0:
            message = f"the shares sum to {_decimal(whole)} %, none below 0; let them sum to 100"
            return UserError("SHARES_NOT_WHOLE", message, ("lines",), {"sum": _decimal(whole)})
        return split(total, shares)
    if all(one["share"] is None and one["amount"] is not None for one in asked):
        amounts = [one["amount"] for one in asked]
        refusal = next(filter(None, (wrong_amount(amount, "lines", 0) for amount in amounts)), None)
        if refusal is not None:
            return refusal
        if sum(amounts) != total:
            message = f"the lines sum to {sum(amounts)}; total less reserve is {total}"
            return UserError("AMOUNTS_NOT_TOTAL", message, ("lines",), {"sum": sum(amounts), "expected": total})
        return amounts
    return UserError("INVALID_LINES", "every line says a share, or every line says an amount", ("lines",), {"category": None})


def _decimal(value: Fraction) -> str:
    whole, rest = divmod(value.numerator * 10_000 // value.denominator, 10_000)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".")


def _previous(tx: Tx, input: Mapping[str, Any], start: date) -> UserError | None:
    if input["previous"] is None:
        return None
    row = tx.row(sa.select(budgets).where(budgets.c.id == uuid.UUID(input["previous"])))
    if row is None:
        return no_budget(input["previous"])
    if row.ends_on > start:
        message = f"the budget before ends on {row.ends_on}; begin no earlier"
        return UserError("INVALID_PERIOD", message, ("start",), {"start": start.isoformat(), "end": row.ends_on.isoformat()})
    if tx.row(sa.select(budgets.c.id).where(budgets.c.previous_id == row.id)) is not None:
        shown = f"Budget_{row.id.hex}"
        return UserError("PREVIOUS_TAKEN", f"another budget follows {shown} already", ("previousId",), {"previousId": shown})
    return wrong_currency(row.currency, input["currency"], "previousId")


# ---- channels and campaigns


def _named(
    tx: Tx, asked: Iterable[tuple[Mapping[str, Any], uuid.UUID | None]], start: date, end: date, today: date
) -> list[dict[str, list[str]]] | UserError:
    """The channels, by id, and campaigns that each line names, none of them another's; UNKNOWN_CHANNEL, SOURCE_TAKEN."""
    asked = list(asked)
    rows = tx.rows(sa.select(channels.c.id, channels.c.key, channels.c.parent_id))
    by_key = {row.key: row.id for row in rows}
    parents = {row.id.hex: row.parent_id.hex for row in rows if row.parent_id is not None}
    taken = _taken(tx, [line_id for _, line_id in asked if line_id is not None], start, end, today)
    over = {above for name in taken for above in _above(name, parents)}
    found = []
    for one, _ in asked:
        unknown = next((key for key in one["channels"] if key not in by_key), None)
        if unknown is not None:
            return UserError("UNKNOWN_CHANNEL", f"no channel has the key {unknown!r}", ("channels",), {"channel": unknown})
        many = len(one["channels"]) + len(one["campaigns"]) > MOST_NAMES
        if many or not all(0 < len(name) <= LONGEST_NAME for name in one["campaigns"]):
            message = f"a line names {MOST_NAMES} channels and campaigns at most, campaigns of 1 to 200 characters"
            return UserError("INVALID_LINES", message, ("campaigns",), {"category": one.get("category")})
        own: dict[str, list[str]] = {"channels": sorted({by_key[key].hex for key in one["channels"]}), "campaigns": []}
        own["campaigns"] = sorted(set(one["campaigns"]))
        lineages = {name: {name, *_above(name, parents)} for name in (*own["channels"], *own["campaigns"])}
        clash = next((name for name, lineage in lineages.items() if lineage & taken or name in over), None)
        if clash is not None:
            shown = next((row.key for row in rows if row.id.hex == clash), clash)
            message = f"{shown} is another line's in these days, or one above or below it is; a source is one line's"
            return UserError("SOURCE_TAKEN", message, ("lines",), {"source": shown})
        taken |= lineages.keys()
        over |= set().union(*lineages.values()) - lineages.keys()
        found.append(own)
    return found


def _taken(tx: Tx, but: Sequence[uuid.UUID], start: date, end: date, today: date) -> set[str]:
    """What lines of open budgets of these days name, without some lines."""
    joined = sources.join(lines, lines.c.id == sources.c.line_id).join(budgets, budgets.c.id == lines.c.budget_id)
    apart = (budgets.c.opens_on < end, budgets.c.ends_on > start, sa.not_(closed(budgets, on(today))))
    return {row.key for row in tx.rows(sa.select(sources.c.key).select_from(joined).where(*apart, lines.c.id.not_in(but)))}


def _above(name: str, parents: Mapping[str, str]) -> list[str]:
    """The channels above one; none above a campaign."""
    found = []
    here = parents.get(name)
    while here is not None:
        found.append(here)
        here = parents.get(here)
    return found


# ---- what is there already


def update(tx: Tx, input: Mapping[str, Any], rules: BudgetRules, at: datetime) -> Fact | UserError:
    """Change a budget's name, and what its lines have and name.

    Refuses with BUDGET_NOT_FOUND, BUDGET_CLOSED, INVALID_NAME, INVALID_AMOUNT, CURRENCY_MISMATCH, INSUFFICIENT_BUDGET,
    INVALID_LINES, UNKNOWN_CHANNEL or SOURCE_TAKEN.
    """
    tx.rows(sa.select(guard).with_for_update())
    found = lock_budget(tx, input["budget"], rules, at)
    if isinstance(found, UserError):
        return found
    budget, own = found
    by_id = {row.id: row for row in own}
    asked = [*input["lines"], *([{"line": own[0].id.hex, "allocated": input["reserve"]}] if input["reserve"] is not None else [])]
    keys = [uuid.UUID(one["line"]) for one in asked]
    if len(set(keys)) < len(keys) or any(key not in by_id for key in keys):
        return UserError("INVALID_LINES", "each line is one of the budget's, and is named once", ("lines",), {"category": None})
    for said in input["currencies"]:
        refusal = wrong_currency(said, budget.currency, "lines")
        if refusal is not None:
            return refusal
    named = _named(tx, _as_named(tx, asked), budget.opens_on, budget.ends_on, rules.day(at))
    if isinstance(named, UserError):
        return named
    said_lines = []
    for one, names in zip(asked, named, strict=True):
        row = by_id[uuid.UUID(one["line"])]
        change = one["allocated"] - row.allocated if one.get("allocated") is not None else 0
        refusal = wrong_amount(row.allocated + change, "allocated", 0) if change else None
        if refusal is None and change < 0 and row.available + change < 0:
            refusal = insufficient(row.available, -change)
        if refusal is not None:
            return refusal
        kept = {name: one.get(name, row._mapping[name]) for name in ("policy", "cap_per_day", "cap_per_user", "expected_roi")}
        said_lines.append({"line": row.id.hex, "change": change, **kept, **names})
    name = input["name"] if input["name"] is not None else budget.name
    refusal = _wrong_name(name)
    if refusal is not None:
        return refusal
    return Fact(None, {"budget": budget.id.hex, "name": name, "lines": said_lines})


def _as_named(tx: Tx, asked: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], uuid.UUID]]:
    """What each line shall name: as it is where nothing else is asked."""
    found: list[tuple[Mapping[str, Any], uuid.UUID]] = []
    for one in asked:
        line_id = uuid.UUID(one["line"])
        columns = (sources.c.key, sources.c.channel_id, channels.c.key.label("channel"))
        said = sa.select(*columns).where(sources.c.line_id == line_id)
        rows = tx.rows(said.outerjoin(channels, channels.c.id == sources.c.channel_id))
        now = {
            "channels": [row.channel for row in rows if row.channel is not None],
            "campaigns": [row.key for row in rows if row.channel_id is None],
        }
        found.append(({**now, **{name: one[name] for name in now if one.get(name) is not None}}, line_id))
    return found


def close(tx: Tx, input: Mapping[str, Any], rules: BudgetRules, at: datetime) -> Fact | UserError:
    """Close a budget before its time. Refuses with BUDGET_NOT_FOUND, BUDGET_CLOSED, BUDGET_NOT_OPEN or PREVIOUS_OPEN."""
    found = lock_budget(tx, input["budget"], rules, at)
    if isinstance(found, UserError):
        return found
    budget, _ = found
    if budget.opens_on > rules.day(at):
        message = f"the budget begins on {budget.opens_on.isoformat()}; what has not begun cannot be closed"
        return UserError("BUDGET_NOT_OPEN", message, ("budgetId",), {"start": budget.opens_on.isoformat()})
    if budget.previous_id is not None:
        shut = sa.select(closed(budgets, on(rules.day(at)))).where(budgets.c.id == budget.previous_id)
        if not tx.scalar(shut):
            shown = f"Budget_{budget.previous_id.hex}"
            message = f"the budget before, {shown}, is open; close it first, for this one takes over what it leaves"
            return UserError("PREVIOUS_OPEN", message, ("budgetId",), {"previousId": shown})
    return Fact(None, {"budget": budget.id.hex})


def explain(tx: Tx, input: Mapping[str, Any], rules: BudgetRules, at: datetime) -> Fact | UserError:
    """Say why a line's spending differs from its plan; of a closed budget too. Refuses with LINE_NOT_FOUND."""
    line = lock_line(tx, input["line"], rules, at, also_closed=True)
    if isinstance(line, UserError):
        return line
    said = {"budget": line.budget_id.hex, "line": line.id.hex}
    return Fact(None, {**said, "cause": input["cause"], "note": input["note"]})


def reallocation(tx: Tx, rows: Sequence[sa.Row[Any]], rules: BudgetRules, at: datetime) -> list[tuple[sa.Row[Any], Return, int]]:
    """What each line with a return would have after a reallocation, in their order."""
    found = returns(tx, [row.id for row in rows], rules.day(at))
    earning = [row for row in rows if row.place and row.allocated > 0 and found[row.id].roi is not None]
    shares = [
        Share(row.allocated, max(found[row.id].roi or Fraction(0), Fraction(0)), max(row.allocated - max(row.available, 0), 0))
        for row in earning
    ]
    targets = reallocate(shares, rules.reallocation_percent)
    return [(row, found[row.id], target) for row, target in zip(earning, targets, strict=True)]


def reallocate_budget(tx: Tx, input: Mapping[str, Any], rules: BudgetRules, at: datetime) -> Fact | UserError:
    """Move money to where it earns more. Refuses with BUDGET_NOT_FOUND, BUDGET_CLOSED or NOTHING_TO_MOVE."""
    found = lock_budget(tx, input["budget"], rules, at)
    if isinstance(found, UserError):
        return found
    budget, rows = found
    moves = [
        {"line": row.id.hex, "change": target - row.allocated}
        for row, _, target in reallocation(tx, rows, rules, at)
        if target != row.allocated
    ]
    if not moves:
        message = "every line has what it should, or too few have a return; nothing is to be moved"
        return UserError("NOTHING_TO_MOVE", message, ("budgetId",), {"budgetId": f"Budget_{budget.id.hex}"})
    return Fact(None, {"budget": budget.id.hex, "moves": moves})
