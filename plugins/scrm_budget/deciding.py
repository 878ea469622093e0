"""Decisions about money: to commit, to release, to spend, to take back and to move some.

Each locks the lines whose money it changes, looks at the plugin's tables, and either refuses or says a fact that holds everything
it chose. What changes spending or funds locks all lines of the budget, in the order of their ids, for it may cross a threshold.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from scrm.api import Fact, Id, Tx, UserError, instant_text

from .models import budgets, commitments, entries, lines, people
from .rules import LARGEST, BudgetRules
from .service import available, closed, on, then

LONGEST = 31_536_000
"""Seconds that a commitment may last."""
# Built once: to build a statement costs more than to run it.
_MINE = sa.bindparam("line", type_=Id)
_DAY = sa.bindparam("day", type_=sa.Date())
_LOCK = sa.select(lines.c.id).where(lines.c.id == _MINE).with_for_update()
_OF_ITS_BUDGET = sa.select(lines.c.budget_id).where(lines.c.id == _MINE).correlate(None).scalar_subquery()
_LOCK_WHOLE = sa.select(lines.c.id).where(lines.c.budget_id == _OF_ITS_BUDGET).order_by(lines.c.id).with_for_update()


def select_line(left: sa.ColumnElement[int]) -> sa.Select[Any]:
    """A line with what a decision looks at: its budget, and what is left of it."""
    of_budget = [budgets.c[name] for name in ("currency", "opens_on", "closes_on")]
    said = sa.select(lines, *of_budget, closed(budgets, _DAY).label("closed"), left.label("available"))
    return said.join(budgets, budgets.c.id == lines.c.budget_id).where(lines.c.id == _MINE)


LINE = select_line(available(lines, sa.bindparam("at", type_=entries.c.occurred_at.type), _DAY))


def commit(tx: Tx, input: Mapping[str, Any], rules: BudgetRules, at: datetime) -> Fact | UserError:
    """Keep money of a line until a deadline, at most until its budget closes.

    Refuses with INVALID_AMOUNT, CURRENCY_MISMATCH, INVALID_DEADLINE, LINE_NOT_FOUND, BUDGET_CLOSED, CAP_REACHED or
    INSUFFICIENT_BUDGET.
    """
    seconds = input["seconds"] if input["seconds"] is not None else rules.commitment_seconds
    if not 1 <= seconds <= LONGEST:
        message = f"expiresInSeconds is {seconds}; a commitment lasts 1 to {LONGEST}"
        return UserError("INVALID_DEADLINE", message, ("expiresInSeconds",), {"expiresInSeconds": seconds})
    line = _fit_line(tx, input["line"], input, rules, at)
    if isinstance(line, UserError):
        return line
    over = _over(tx, line, input, rules, at)
    if isinstance(over, UserError):
        return over
    until = min(at + timedelta(seconds=seconds), rules.midnight(line.closes_on))
    return _fact(line, input, {"over": over, "warned": _warned(line, over), "expiresAt": instant_text(until)})


def spend(tx: Tx, input: Mapping[str, Any], rules: BudgetRules, at: datetime) -> Fact | UserError:
    """Spend money of a line, or of a commitment.

    Refuses with what `commit` refuses with but for the deadline, with BUDGET_NOT_OPEN before the budget's first day, and with
    COMMITMENT_NOT_FOUND, COMMITMENT_ENDED or COMMITMENT_TOO_SMALL.
    """
    key = input["line"]
    if input["commitment"] is not None:
        of_line = tx.scalar(sa.select(commitments.c.line_id).where(commitments.c.id == uuid.UUID(input["commitment"])))
        if of_line is None:
            return no_commitment(input["commitment"])
        key = of_line.hex
    line = _fit_line(tx, key, input, rules, at, whole=True)
    if isinstance(line, UserError):
        return line
    if line.opens_on > rules.day(at):
        message = f"the budget begins on {line.opens_on.isoformat()}; until then its money can be committed, not spent"
        return UserError("BUDGET_NOT_OPEN", message, ("lineId",), {"start": line.opens_on.isoformat()})
    if input["commitment"] is None:
        over = _over(tx, line, input, rules, at)
        if isinstance(over, UserError):
            return over
        return _fact(line, input, {"over": over, "warned": _warned(line, over), "commitment": None, "final": False})
    kept = open_commitment(tx, input["commitment"], at)
    if isinstance(kept, UserError):
        return kept
    left = kept.amount - kept.spent - kept.released
    if input["amount"] > left:
        message = f"{input['amount']} asked for, and the commitment keeps {left}; spend the rest of the line without it"
        return UserError("COMMITMENT_TOO_SMALL", message, ("amount",), {"amount": input["amount"], "left": left})
    reference = input["reference"] if input["reference"] is not None else kept.reference
    said = {**input, "reference": reference, "user": None}
    return _fact(line, said, {"over": 0, "warned": False, "commitment": kept.id.hex, "final": input["final"]})


def release(tx: Tx, input: Mapping[str, Any], rules: BudgetRules, at: datetime) -> Fact | UserError:
    """Free what a commitment keeps. Refuses with COMMITMENT_NOT_FOUND, COMMITMENT_ENDED or BUDGET_CLOSED."""
    key = tx.scalar(sa.select(commitments.c.line_id).where(commitments.c.id == uuid.UUID(input["commitment"])))
    if key is None:
        return no_commitment(input["commitment"])
    line = lock_line(tx, key.hex, rules, at)
    if isinstance(line, UserError):
        return line
    kept = open_commitment(tx, input["commitment"], at)
    if isinstance(kept, UserError):
        return kept
    left = kept.amount - kept.spent - kept.released
    said = {"line": line.id.hex, "budget": line.budget_id.hex, "amount": left, "currency": line.currency}
    return Fact(None, {**said, "commitment": kept.id.hex})


def refund(tx: Tx, input: Mapping[str, Any], rules: BudgetRules, at: datetime) -> Fact | UserError:
    """Take back what was spent, all that is left of it or less; of a closed budget too.

    Refuses with ENTRY_NOT_FOUND, ENTRY_NOT_REFUNDABLE, CURRENCY_MISMATCH, INVALID_AMOUNT or REFUND_TOO_LARGE.
    """
    entry_id = uuid.UUID(input["entry"])
    entry = tx.row(sa.select(entries).where(entries.c.id == entry_id))
    shown = {"entryId": f"BudgetEntry_{entry_id.hex}"}
    if entry is None:
        return UserError("ENTRY_NOT_FOUND", f"no entry has the id {shown['entryId']}", ("entryId",), shown)
    if entry.kind != "SPEND":
        message = f"the entry is {entry.kind}; what can be refunded is what was spent"
        return UserError("ENTRY_NOT_REFUNDABLE", message, ("entryId",), {**shown, "kind": entry.kind})
    line = lock_line(tx, entry.line_id.hex, rules, at, whole=True, also_closed=True)
    assert not isinstance(line, UserError)
    back = tx.scalar(sa.select(sa.func.coalesce(sa.func.sum(entries.c.amount), 0)).where(entries.c.reverses == entry_id))
    left = entry.amount - int(back)
    amount = input["amount"] if input["amount"] is not None else left
    refusal = unfit(line, {**input, "amount": amount or 1, "currency": input["currency"] or line.currency})
    if refusal is not None:
        return refusal
    if not left:
        return UserError("REFUND_TOO_LARGE", "all that was spent came back already", ("entryId",), {"amount": amount, "left": 0})
    if not 0 < amount <= left:
        message = f"{amount} asked back, and {left} of what was spent did not come back yet; ask for no more than that"
        return UserError("REFUND_TOO_LARGE", message, ("amount",), {"amount": amount, "left": left})
    counts_on = entry.counts_on
    if entry.commitment_id is not None:
        counts_on = tx.scalar(sa.select(commitments.c.counts_on).where(commitments.c.id == entry.commitment_id))
    said = {"line": line.id.hex, "budget": line.budget_id.hex, "amount": amount, "currency": line.currency}
    person = entry.person_id.hex if entry.person_id is not None else None
    said |= {"entry": entry_id.hex, "person": person, "capDay": counts_on.isoformat(), "reference": input["reference"]}
    return Fact(None, said)


def transfer(tx: Tx, input: Mapping[str, Any], rules: BudgetRules, at: datetime) -> Fact | UserError:
    """Move money that is free from one line, or the reserve, to another of the same budget.

    Refuses with SAME_LINE, LINE_NOT_FOUND, BUDGET_CLOSED, CURRENCY_MISMATCH, INVALID_AMOUNT or INSUFFICIENT_BUDGET.
    """
    if input["from"] == input["to"]:
        return UserError("SAME_LINE", "money goes from one line to another; name two, or one and the reserve", ("toLineId",))
    known = input["from"] or input["to"]
    line = lock_line(tx, known, rules, at, whole=True, path="fromLineId" if input["from"] else "toLineId")
    if isinstance(line, UserError):
        return line
    own = tx.rows(sa.select(lines.c.id, lines.c.place, available_at(rules, at)).where(lines.c.budget_id == line.budget_id))
    ends = []
    for name in ("from", "to"):
        wanted = uuid.UUID(input[name]) if input[name] else None
        end = next((row for row in own if (row.id == wanted if wanted is not None else row.place == 0)), None)
        if end is None:
            return no_line(input[name], f"{name}LineId", "in the budget of the other line")
        ends.append(end)
    giver, taker = ends
    refusal = unfit(line, input)
    if refusal is not None:
        return refusal
    if giver.available < input["amount"]:
        return insufficient(giver.available, input["amount"])
    said = {"budget": line.budget_id.hex, "from": giver.id.hex, "to": taker.id.hex}
    return Fact(None, {**said, "amount": input["amount"], "currency": line.currency, "reference": input["reference"]})


# ---- looking


def available_at(rules: BudgetRules, at: datetime) -> sa.ColumnElement[int]:
    """What can be committed or spent of a line at an instant."""
    return available(lines, then(at), on(rules.day(at))).label("available")


def lock_line(
    tx: Tx, key: str, rules: BudgetRules, at: datetime, *, whole: bool = False, also_closed: bool = False, path: str = "lineId"
) -> sa.Row[Any] | UserError:
    """A line with its budget, locked, or the whole budget with it; LINE_NOT_FOUND, or BUDGET_CLOSED."""
    line_id = uuid.UUID(key)
    tx.rows(_LOCK_WHOLE if whole else _LOCK, {"line": line_id})
    row = tx.row(LINE, {"line": line_id, "at": at, "day": rules.day(at)})
    if row is None or not row.place:
        return no_line(key, path)
    return budget_closed(row.budget_id) if row.closed and not also_closed else row


def _fit_line(
    tx: Tx, key: str, input: Mapping[str, Any], rules: BudgetRules, at: datetime, *, whole: bool = False
) -> sa.Row[Any] | UserError:
    line = lock_line(tx, key, rules, at, whole=whole)
    if isinstance(line, UserError):
        return line
    return unfit(line, input) or line


def open_commitment(tx: Tx, key: str, at: datetime) -> sa.Row[Any] | UserError:
    """A commitment of a locked line that still keeps something; COMMITMENT_ENDED."""
    row = tx.rows(sa.select(commitments).where(commitments.c.id == uuid.UUID(key)))[0]
    if row.state == "OPEN" and row.expires_at > at:
        return row
    state = "EXPIRED" if row.state == "OPEN" else row.state
    shown = f"BudgetCommitment_{row.id.hex}"
    message = f"the commitment {shown} is {state} and keeps nothing any more; commit anew"
    return UserError("COMMITMENT_ENDED", message, ("commitmentId",), {"commitmentId": shown, "state": state})


def _over(tx: Tx, line: sa.Row[Any], input: Mapping[str, Any], rules: BudgetRules, at: datetime) -> int | UserError:
    """How much more than there is, where the line's policy lets it; CAP_REACHED or INSUFFICIENT_BUDGET."""
    refusal = _capped(tx, line, input, rules, at)
    if refusal is not None:
        return refusal
    over: int = input["amount"] - max(line.available, 0)
    if over > 0 and line.policy == "BLOCK":
        return insufficient(line.available, input["amount"])
    return max(over, 0)


def _warned(line: sa.Row[Any], over: int) -> bool:
    return over > 0 and line.policy == "WARN"


def _capped(tx: Tx, line: sa.Row[Any], input: Mapping[str, Any], rules: BudgetRules, at: datetime) -> UserError | None:
    user = uuid.UUID(input["user"]) if input["user"] else None
    if line.cap_per_day is not None:
        drawn = drawn_of(tx, line.id, at, commitments.c.counts_on == rules.day(at), entries.c.cap_day == rules.day(at))
        if drawn + input["amount"] > line.cap_per_day:
            return _cap_reached("DAY", line.cap_per_day, drawn, input["amount"])
    if line.cap_per_user is not None and user is not None:
        own = sa.select(people.c.id).where(people.c.holder_id == user)
        drawn = drawn_of(tx, line.id, at, commitments.c.person_id.in_(own), entries.c.person_id.in_(own))
        if drawn + input["amount"] > line.cap_per_user:
            return _cap_reached("USER", line.cap_per_user, drawn, input["amount"])
    return None


def drawn_of(
    tx: Tx, line_id: uuid.UUID, at: datetime, of_commitments: sa.ColumnElement[bool], of_entries: sa.ColumnElement[bool]
) -> int:
    """What was taken of a line, in either form, and did not come back."""
    lasts = sa.and_(commitments.c.state == "OPEN", commitments.c.expires_at > then(at))
    kept = sa.case((lasts, commitments.c.amount - commitments.c.released), else_=commitments.c.spent)
    first = sa.select(sa.func.coalesce(sa.func.sum(kept), 0)).where(commitments.c.line_id == line_id, of_commitments)
    spent = sa.and_(entries.c.kind == "SPEND", entries.c.commitment_id.is_(None))
    signed = sa.case((spent, entries.c.amount), (entries.c.kind == "REFUND", -entries.c.amount), else_=0)
    second = sa.select(sa.func.coalesce(sa.func.sum(signed), 0)).where(entries.c.line_id == line_id, of_entries)
    return int(tx.scalar(first)) + int(tx.scalar(second))


# ---- saying


def _fact(line: sa.Row[Any], input: Mapping[str, Any], more: Mapping[str, Any]) -> Fact:
    said = {"line": line.id.hex, "budget": line.budget_id.hex, "amount": input["amount"], "currency": line.currency}
    user = uuid.UUID(input["user"]) if input["user"] else None
    return Fact(user, {**said, "reference": input["reference"], **more})


def unfit(line: sa.Row[Any], input: Mapping[str, Any]) -> UserError | None:
    """INVALID_AMOUNT or CURRENCY_MISMATCH."""
    return wrong_amount(input["amount"], "amount") or wrong_currency(input["currency"], line.currency, "amount")


def wrong_amount(amount: int, name: str, least: int = 1) -> UserError | None:
    """INVALID_AMOUNT, if so."""
    if least <= amount <= LARGEST:
        return None
    message = f"{name} is {amount}; it takes {least} to {LARGEST} minor units"
    return UserError("INVALID_AMOUNT", message, (name,), {"amount": amount})


def wrong_currency(said: str, wanted: str, name: str) -> UserError | None:
    """CURRENCY_MISMATCH, if so."""
    if said == wanted:
        return None
    message = f"{name} is in {said}; the budget is in {wanted}"
    return UserError("CURRENCY_MISMATCH", message, (name,), {"currency": said, "expected": wanted})


def insufficient(there: int, amount: int) -> UserError:
    """More was asked for than there is."""
    message = f"{amount} asked for, {there} available; ask for no more, or transfer some first"
    return UserError("INSUFFICIENT_BUDGET", message, ("amount",), {"amount": amount, "available": there})


def _cap_reached(kind: str, cap: int, drawn: int, amount: int) -> UserError:
    of = "for one person" if kind == "USER" else "a day"
    message = f"{amount} asked for; the line gives {cap} {of}, and {drawn} are taken"
    return UserError("CAP_REACHED", message, ("amount",), {"cap": cap, "taken": drawn, "amount": amount, "kind": kind})


def no_line(key: str, path: str, where: str = "of a budget") -> UserError:
    """LINE_NOT_FOUND."""
    shown = f"BudgetLine_{uuid.UUID(key).hex}" if key else "the reserve"
    return UserError("LINE_NOT_FOUND", f"no line {where} has the id {shown}", (path,), {"lineId": shown})


def budget_closed(budget_id: uuid.UUID) -> UserError:
    """BUDGET_CLOSED."""
    shown = f"Budget_{budget_id.hex}"
    message = f"the budget {shown} is closed; what was spent of it can be refunded, nothing else"
    return UserError("BUDGET_CLOSED", message, ("budgetId",), {"budgetId": shown})


def no_commitment(key: str) -> UserError:
    """COMMITMENT_NOT_FOUND."""
    shown = f"BudgetCommitment_{uuid.UUID(key).hex}"
    return UserError("COMMITMENT_NOT_FOUND", f"no commitment has the id {shown}", ("commitmentId",), {"commitmentId": shown})


def no_budget(key: str) -> UserError:
    """BUDGET_NOT_FOUND."""
    shown = f"Budget_{uuid.UUID(key).hex}"
    return UserError("BUDGET_NOT_FOUND", f"no budget has the id {shown}", ("budgetId",), {"budgetId": shown})


def lock_budget(
    tx: Tx, key: str, rules: BudgetRules, at: datetime, *, lock: bool = True
) -> tuple[sa.Row[Any], Sequence[sa.Row[Any]]] | UserError:
    """A budget and its lines, locked unless nothing shall change; BUDGET_NOT_FOUND or BUDGET_CLOSED."""
    budget_id = uuid.UUID(key)
    if lock:
        tx.rows(sa.select(lines.c.id).where(lines.c.budget_id == budget_id).order_by(lines.c.id).with_for_update())
    shut = closed(budgets, on(rules.day(at))).label("closed")
    row = tx.row(sa.select(budgets, shut).where(budgets.c.id == sa.literal(budget_id, Id)))
    if row is None:
        return no_budget(key)
    if row.closed:
        return budget_closed(budget_id)
    own = sa.select(lines, available_at(rules, at)).where(lines.c.budget_id == budget_id).order_by(lines.c.place)
    return row, tx.rows(own)
